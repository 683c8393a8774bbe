//! How groups of KIP-848's protocol behave: Kafka's settings, with Kafka's defaults, and bounds of our own.

use std::time::Duration;

use crate::assignor::Assignor;

/// Settings of all such groups of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupConfig {
    /// `group.consumer.session.timeout.ms`
    pub session_timeout: Duration,
    /// `group.consumer.heartbeat.interval.ms`
    pub heartbeat_interval: Duration,
    /// `group.consumer.max.size`, with a bound.
    pub max_members: usize,
    /// `group.consumer.assignors`: the first is the one of a group whose members name none.
    pub assignors: Vec<Assignor>,
    /// What the subscriptions of all members of a group may take together, as stored.
    pub max_subscription_bytes: usize,
}

impl Default for ConsumerGroupConfig {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
            max_members: 10_000,
            assignors: vec![Assignor::Uniform, Assignor::Range],
            max_subscription_bytes: 16 << 20,
        }
    }
}
