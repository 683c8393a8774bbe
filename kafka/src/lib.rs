//! The Kafka wire protocol without IO: bytes in, bytes out.
