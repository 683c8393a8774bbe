//! The coordinator's settings.

use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_partition::PartitionConfig;
use bmq_proto::meta::MIN_SESSION_TTL;
use serde::{Deserialize, Serialize};

use crate::group::config::GroupsConfig;

/// The most partitions of the topic that holds the groups.
const MAX_SHARDS: u32 = 1000;

/// How a coordinator behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoordinatorConfig {
    /// Unique among coordinators.
    pub node_id: u32,
    /// `host:port` told to the others; empty in a single process. No setting: the process knows where it listens.
    #[serde(skip)]
    pub advertised_address: String,
    /// How long the coordinator counts as alive after its last sign of life.
    pub session_ttl: HumanDuration,
    /// How long a coordinator that shall take a shard over waits for the present owner to release it.
    pub handover_wait: HumanDuration,
    /// How long sealed files may take to be closed when the coordinator stops.
    pub close_wait: HumanDuration,
    /// Over how many partitions the groups are spread, when the first coordinator of a cluster starts; it cannot change
    /// later, since a group's partition follows from it. Kafka has 50; each costs a file and syncs of its own here, so
    /// a few for each coordinator that there will ever be are enough.
    pub shards: u32,
    /// A shard writes its whole state anew, and drops what is older, after this many bytes of changes (or twice its
    /// state, if that is more). It bounds what a takeover has to read.
    pub snapshot_bytes: ByteSize,
    pub groups: GroupSettings,
    pub partition: PartitionConfig,
}

/// How groups behave; the names are Kafka's, in other words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupSettings {
    /// The shortest session time-out that a member may ask for.
    pub min_session_timeout: HumanDuration,
    /// The longest.
    pub max_session_timeout: HumanDuration,
    /// How long an empty group waits for more members before its first rebalance, anew with each that comes.
    pub initial_rebalance_delay: HumanDuration,
    /// The most members of a group.
    pub max_members: usize,
    /// The most bytes of text that a commit may add to an offset.
    pub max_offset_metadata: ByteSize,
    /// How long the offsets of a group without members are kept.
    pub offsets_retention: HumanDuration,
    /// How often expired offsets are looked for.
    pub offsets_retention_check_interval: HumanDuration,
    /// How often members of the newer protocol (KIP-848) are told to give a sign of life.
    pub consumer_heartbeat_interval: HumanDuration,
    /// How long such a member lives without one.
    pub consumer_session_timeout: HumanDuration,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        let partition = PartitionConfig {
            segment_bytes: ByteSize::mib(16),
            // Nobody reads a shard's tail but a takeover, which reads files.
            tail_bytes: ByteSize::mib(1),
            ..PartitionConfig::default()
        };
        Self {
            node_id: 1,
            advertised_address: String::new(),
            session_ttl: HumanDuration(Duration::from_secs(3)),
            handover_wait: HumanDuration(Duration::from_secs(2)),
            close_wait: HumanDuration(Duration::from_secs(3)),
            shards: 8,
            snapshot_bytes: ByteSize::mib(4),
            groups: GroupSettings::default(),
            partition,
        }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        let groups = GroupsConfig::default();
        let consumer = groups.consumer;
        Self {
            min_session_timeout: HumanDuration(groups.min_session_timeout),
            max_session_timeout: HumanDuration(groups.max_session_timeout),
            initial_rebalance_delay: HumanDuration(groups.initial_rebalance_delay),
            max_members: groups.max_members,
            max_offset_metadata: ByteSize(groups.max_offset_metadata_bytes as u64),
            offsets_retention: HumanDuration(groups.offsets_retention),
            offsets_retention_check_interval: HumanDuration(groups.offsets_retention_check_interval),
            consumer_heartbeat_interval: HumanDuration(consumer.heartbeat_interval),
            consumer_session_timeout: HumanDuration(consumer.session_timeout),
        }
    }
}

impl GroupSettings {
    /// The settings as the groups take them.
    pub fn to_config(&self) -> GroupsConfig {
        let mut config = GroupsConfig {
            min_session_timeout: self.min_session_timeout.0,
            max_session_timeout: self.max_session_timeout.0,
            initial_rebalance_delay: self.initial_rebalance_delay.0,
            max_members: self.max_members,
            max_offset_metadata_bytes: self.max_offset_metadata.0 as usize,
            offsets_retention: self.offsets_retention.0,
            offsets_retention_check_interval: self.offsets_retention_check_interval.0,
            ..GroupsConfig::default()
        };
        config.consumer.heartbeat_interval = self.consumer_heartbeat_interval.0;
        config.consumer.session_timeout = self.consumer_session_timeout.0;
        config.consumer.max_members = self.max_members;
        config
    }

    fn validate(&self) -> Result<(), String> {
        if self.min_session_timeout > self.max_session_timeout {
            let (min, max) = (self.min_session_timeout, self.max_session_timeout);
            return Err(format!("min_session_timeout ({min}) must not exceed max_session_timeout ({max})"));
        }
        if self.consumer_heartbeat_interval >= self.consumer_session_timeout {
            let (heartbeat, session) = (self.consumer_heartbeat_interval, self.consumer_session_timeout);
            return Err(format!(
                "consumer_heartbeat_interval ({heartbeat}) must be below consumer_session_timeout ({session})"
            ));
        }
        if self.max_members == 0 {
            return Err("max_members must be at least 1".to_owned());
        }
        if self.offsets_retention_check_interval.0.is_zero() {
            return Err("offsets_retention_check_interval must not be zero".to_owned());
        }
        Ok(())
    }
}

impl CoordinatorConfig {
    /// Checks what a single value cannot show.
    pub fn validate(&self) -> Result<(), String> {
        if self.session_ttl.0 < MIN_SESSION_TTL {
            let min = HumanDuration(MIN_SESSION_TTL);
            return Err(format!("session_ttl ({}) must be at least {min}", self.session_ttl));
        }
        if !(1..=MAX_SHARDS).contains(&self.shards) {
            return Err(format!("shards ({}) must be from 1 to {MAX_SHARDS}", self.shards));
        }
        self.groups.validate().map_err(|error| format!("groups.{error}"))?;
        self.partition.validate().map_err(|error| format!("partition.{error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_consistent_and_kafkas() {
        let config = CoordinatorConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.groups.to_config(), GroupsConfig::default());
        assert_eq!(config.groups.initial_rebalance_delay, HumanDuration::secs(3));
        assert_eq!(config.groups.min_session_timeout, HumanDuration::secs(6));
    }

    #[test]
    fn contradictions_are_named() {
        let check = |change: fn(&mut CoordinatorConfig), hint: &str| {
            let mut config = CoordinatorConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(hint), "{error}");
        };
        check(|config| config.shards = 0, "shards (0)");
        check(|config| config.session_ttl = HumanDuration::millis(1), "session_ttl");
        check(|config| config.groups.max_session_timeout = HumanDuration::secs(1), "groups.min_session_timeout");
        check(|config| config.groups.consumer_session_timeout = HumanDuration::secs(1), "consumer_heartbeat_interval");
    }
}
