//! How groups behave: Kafka's settings of the same meaning, with Kafka's defaults, and bounds of our own.

use std::time::Duration;

use crate::consumer_group::config::ConsumerGroupConfig;

/// Settings of all groups of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupsConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members, anew with each that comes.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`, with a bound.
    pub max_members: usize,
    /// Groups of one shard.
    pub max_groups: usize,
    /// Committed offsets of one group.
    pub max_offsets: usize,
    /// `offset.metadata.max.bytes`
    pub max_offset_metadata_bytes: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval: Duration,
    /// What the records of one append may have together: they are stored all or none.
    /// Bounds what a group's members bring and what one commit holds.
    pub max_append_bytes: usize,
    /// For groups of KIP-848's protocol.
    pub consumer: ConsumerGroupConfig,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self {
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_secs(3),
            max_members: 10_000,
            max_groups: 100_000,
            max_offsets: 100_000,
            max_offset_metadata_bytes: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
            max_append_bytes: 16 << 20,
            consumer: ConsumerGroupConfig::default(),
        }
    }
}
