//! The settings of a partition, the same for every partition of a node but for what its topic overrides.

use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_proto::record_batch::{Codec, TimestampType};
use bmq_proto::topic_config::TopicSettings;
use bmq_storage::StoreProperties;
use serde::{Deserialize, Serialize};

/// What may wait for one file's writer: a roll hands everything over at once.
pub const MAX_BUFFER_BYTES: u64 = 64 << 20;

/// However short records are kept, a segment is not rolled for its age before this.
const SHORTEST_ROLL_AGE: Duration = Duration::from_secs(10);

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
    /// How often a partition looks for segments that its topic no longer wants kept.
    pub retention_interval: HumanDuration,
    /// How often a partition looks whether there is enough to compact, where its topic wants that.
    pub compaction_interval: HumanDuration,
    /// How fast compaction reads at most, so that producers do not feel it.
    pub compaction_bytes_per_second: ByteSize,
    /// What the topic says of its log.
    #[serde(skip)]
    pub log: LogRules,
    /// What the topic says of its batches.
    #[serde(skip)]
    pub batches: BatchRules,
}

/// What a topic says of the batches that are appended to it; by default they are kept as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRules {
    pub timestamp_type: TimestampType,
    /// `None` keeps what the producer chose.
    pub compression: Option<Codec>,
    /// Whether every record must have a key.
    pub keyed: bool,
}

impl Default for BatchRules {
    fn default() -> Self {
        Self { timestamp_type: TimestampType::Create, compression: None, keyed: false }
    }
}

/// What a topic says of its log. A node has no settings of its own for these; by default everything is kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogRules {
    /// Closed segments whose newest record is older are dropped.
    pub retention_age: Option<Duration>,
    /// The oldest closed segments are dropped while the rest has at least so many bytes.
    pub retention_bytes: Option<u64>,
    /// Of each key the last record is kept, and others go.
    pub compaction: Option<CompactionRules>,
}

/// When records go that have a later one of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionRules {
    /// How long a record without a value stays after compaction first met it as the last of its key.
    pub delete_retention: Duration,
    /// Segments with younger records are left alone.
    pub min_lag: Duration,
    /// Segments with older records are compacted in any case.
    pub max_lag: Duration,
    /// How many thousandths of the bytes must not be compacted yet.
    pub min_dirty_per_mille: u32,
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
            retention_interval: HumanDuration(Duration::from_secs(300)),
            compaction_interval: HumanDuration(Duration::from_secs(15)),
            compaction_bytes_per_second: ByteSize::mib(32),
            log: LogRules::default(),
            batches: BatchRules::default(),
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
        if self.retention_interval.0.is_zero() || self.compaction_interval.0.is_zero() {
            return Err("retention_interval and compaction_interval must be longer than nothing".to_owned());
        }
        if self.compaction_bytes_per_second.0 == 0 {
            return Err("compaction_bytes_per_second must be at least 1".to_owned());
        }
        if self.rolls_per_minute == 0 {
            return Err("rolls_per_minute must be at least 1".to_owned());
        }
        Ok(())
    }

    /// The settings of a topic's partitions: the node's own but for what the topic sets itself.
    pub fn for_topic(&self, topic: &TopicSettings) -> Self {
        let mut config = self.clone();
        if let Some(bytes) = topic.segment_bytes {
            config.segment_bytes = ByteSize(bytes);
        }
        if let Some(age) = topic.segment_age {
            config.segment_age = HumanDuration(age);
        }
        if let Some(bytes) = topic.max_batch_bytes {
            config.max_batch_bytes = ByteSize(bytes);
            config.buffer_bytes = ByteSize(config.buffer_bytes.0.max(bytes));
        }
        let delete = topic.cleanup.delete;
        config.log = LogRules {
            retention_age: topic.retention_age.filter(|_| delete),
            retention_bytes: topic.retention_bytes.filter(|_| delete),
            compaction: topic.cleanup.compact.then_some(CompactionRules {
                delete_retention: topic.delete_retention,
                min_lag: topic.min_compaction_lag,
                max_lag: topic.max_compaction_lag,
                min_dirty_per_mille: topic.min_dirty_per_mille,
            }),
        };
        config.batches = BatchRules {
            timestamp_type: topic.timestamp_type,
            compression: topic.compression,
            keyed: topic.cleanup.compact,
        };
        config
    }

    /// How old an open segment may grow: retention and compaction act on closed ones only, so none is open for longer
    /// than records are to be kept, or to stay as they are.
    pub fn roll_age(&self) -> Duration {
        let limits = [self.log.retention_age, self.log.compaction.map(|rules| rules.max_lag)];
        let limit = limits.into_iter().flatten().min().unwrap_or(Duration::MAX);
        limit.max(SHORTEST_ROLL_AGE).min(self.segment_age.0)
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
