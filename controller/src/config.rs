//! What an operator may set of a controller.

use bmq_common::HumanDuration;
use bmq_proto::NodeId;
use bmq_proto::meta::MIN_SESSION_TTL;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A controller's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerConfig {
    /// Unique among the controllers.
    pub node_id: u32,
    /// The session time of the whole cluster: the controller's own session, and how long brokers that vanish many at
    /// once have to return before their partitions move.
    pub session_ttl: HumanDuration,
    /// The pause after a failed step of work.
    pub retry_delay: HumanDuration,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        ControllerConfig { node_id: 1, session_ttl: HumanDuration::secs(3), retry_delay: HumanDuration::millis(500) }
    }
}

/// The settings contradict each other or the rest of the system.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidConfig {
    #[error("session_ttl is {0}, it must be at least {min}", min = HumanDuration(MIN_SESSION_TTL))]
    SessionTooShort(HumanDuration),
    #[error("retry_delay must not be zero")]
    NoRetryDelay,
}

impl ControllerConfig {
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.session_ttl.get() < MIN_SESSION_TTL {
            return Err(InvalidConfig::SessionTooShort(self.session_ttl));
        }
        if self.retry_delay.get().is_zero() {
            return Err(InvalidConfig::NoRetryDelay);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(ControllerConfig::default().validate(), Ok(()));
        let short = ControllerConfig { session_ttl: HumanDuration::millis(1_999), ..Default::default() };
        assert_eq!(short.validate().unwrap_err().to_string(), "session_ttl is 1999ms, it must be at least 2s");
        let hasty = ControllerConfig { retry_delay: HumanDuration::secs(0), ..Default::default() };
        assert_eq!(hasty.validate(), Err(InvalidConfig::NoRetryDelay));
    }
}
