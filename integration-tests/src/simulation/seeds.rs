//! Seeds that found something once. They run always.

/// A seed, and what it found.
pub const KEPT: &[(u64, &str)] = &[];
