//! The settings of a partition, the same for every partition of a broker but for what its topic overrides.

use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_storage::StoreProperties;
use serde::{Deserialize, Serialize};

/// What may wait for one file's writer: a roll hands everything over at once.
pub const MAX_BUFFER_BYTES: u64 = 64 << 20;

/// How a partition writes, rolls and recovers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionConfig {
    /// A segment is rolled when its file reaches this size.
    pub segment_bytes: ByteSize,
    /// A segment is rolled when it has been open this long.
    pub segment_age: HumanDuration,
    /// A partition without appends for this long seals its segment and holds no file open.
    pub idle_after: HumanDuration,
    /// The largest record batch taken.
    pub max_batch_bytes: ByteSize,
    /// The most bytes taken in and not yet durable; beyond that appends are told to come again.
    pub buffer_bytes: ByteSize,
    /// The most bytes of durable batches kept in memory for readers of the tail.
    pub tail_bytes: ByteSize,
    /// A checkpoint is recorded after this many durable bytes …
    pub checkpoint_bytes: ByteSize,
    /// … or after this long, if anything was written.
    pub checkpoint_interval: HumanDuration,
    /// The most rolls in a minute; beyond that a sick store turns into back-pressure instead of a storm of files.
    pub rolls_per_minute: u32,
    /// How long a claim waits for sealed files of the older owner to be closed, since their producers' sequences are
    /// not known before.
    pub sealed_wait: HumanDuration,
    /// How long a graceful release may take before what is outstanding is given up.
    pub release_wait: HumanDuration,
}

impl Default for PartitionConfig {
    fn default() -> Self {
        Self {
            segment_bytes: ByteSize::mib(256),
            segment_age: HumanDuration(Duration::from_secs(3600)),
            idle_after: HumanDuration(Duration::from_secs(60)),
            max_batch_bytes: ByteSize::mib(1),
            buffer_bytes: ByteSize::mib(32),
            tail_bytes: ByteSize::mib(16),
            checkpoint_bytes: ByteSize::mib(16),
            checkpoint_interval: HumanDuration(Duration::from_secs(30)),
            rolls_per_minute: 30,
            sealed_wait: HumanDuration(Duration::from_secs(10)),
            release_wait: HumanDuration(Duration::from_secs(3)),
        }
    }
}

impl PartitionConfig {
    /// Checks what a single value cannot show.
    pub fn validate(&self) -> Result<(), String> {
        if self.max_batch_bytes.0 > self.buffer_bytes.0 {
            return Err(format!(
                "max_batch_bytes ({}) must not exceed buffer_bytes ({})",
                self.max_batch_bytes, self.buffer_bytes
            ));
        }
        if self.buffer_bytes.0 > MAX_BUFFER_BYTES {
            let most = ByteSize(MAX_BUFFER_BYTES);
            return Err(format!(
                "buffer_bytes ({}) must not exceed {most}, which a store's writer takes",
                self.buffer_bytes
            ));
        }
        if self.segment_bytes.0 < 4096 {
            return Err(format!("segment_bytes ({}) must be at least 4KiB", self.segment_bytes));
        }
        if self.rolls_per_minute == 0 {
            return Err("rolls_per_minute must be at least 1".to_owned());
        }
        Ok(())
    }

    /// The settings that a store allows: a batch is written in one append, and a file may grow on for a while past the
    /// segment's size when the next one is late.
    pub fn within(mut self, store: &StoreProperties) -> Self {
        self.max_batch_bytes = ByteSize(self.max_batch_bytes.0.min(store.max_append_bytes as u64));
        if let Some(max) = store.max_file_bytes {
            let most = max.saturating_sub(2 * self.max_batch_bytes.0) / 2;
            self.segment_bytes = ByteSize(self.segment_bytes.0.min(most.max(4096)));
        }
        self
    }
}
