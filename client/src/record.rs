//! Records as users give and get them.

use bytes::Bytes;

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Decides the partition unless `partition` does: one key, one partition.
    pub key: Option<Bytes>,
    /// What is to be told.
    pub value: Option<Bytes>,
    /// In order; keys may repeat.
    pub headers: Vec<Header>,
    /// The partition to write to. Without it the key decides, and without a key the producer.
    pub partition: Option<u32>,
    /// Milliseconds since 1970; the time of sending if absent.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record that has only a value.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The record with a key.
    pub fn with_key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The record with one more header.
    pub fn with_header(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// The record addressed to a partition.
    pub fn to_partition(self, partition: u32) -> Self {
        Self { partition: Some(partition), ..self }
    }
}

/// A header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// By convention UTF-8.
    pub key: Bytes,
    /// Any bytes, or null.
    pub value: Option<Bytes>,
}

/// A record that was read.
///
/// Key, value and headers are slices of the batch they came in and keep it in memory: copy what is to be kept long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic it was read from.
    pub topic: std::sync::Arc<str>,
    /// The partition it was read from.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since 1970, −1 for none.
    pub timestamp_ms: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// In order; keys may repeat.
    pub headers: Vec<Header>,
}
