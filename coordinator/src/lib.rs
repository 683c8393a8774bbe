//! The coordinator service: consumer groups and committed offsets, kept in internal partitions that it owns.
