//! A member of a group: what it wants, what it shall have, what it has, and until when it must show itself.

use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::internal::ConsumerMemberRecord;

use super::config::ConsumerGroupConfig;
use crate::assignor::Partitions;

/// The epoch of a static member that has left for now.
pub(super) const AWAY: i32 = -2;

/// One member.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    pub subscription: ConsumerMemberRecord,
    /// None until the first target assignment that knows the member.
    pub target: Option<Partitions>,
    pub current: Current,
    /// Fenced if nothing is heard of it until then.
    pub session_deadline: Monotonic,
    /// Fenced if it has not done by then what it is asked to do: to revoke, or as a classic member to join or to sync.
    pub rebalance_deadline: Option<Monotonic>,
}

/// How far a member has got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// [`AWAY`] for a static member that left for now.
    pub epoch: i32,
    pub previous_epoch: i32,
    pub state: State,
    /// What the member is told that it has.
    pub assigned: Partitions,
    /// What it had and may still have.
    pub revoking: Partitions,
}

/// Where a member stands on the way to its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It has what the target of its epoch gives it.
    #[default]
    Stable,
    /// It must give something up before it goes on.
    UnrevokedPartitions,
    /// It is in the target's epoch, and waits for what others have not released.
    UnreleasedPartitions,
}

impl Member {
    pub fn is_classic(&self) -> bool {
        self.subscription.classic.is_some()
    }

    pub fn rebalance_timeout(&self) -> Duration {
        Duration::from_millis(self.subscription.rebalance_timeout_ms.into())
    }

    /// A classic member brings its own.
    pub fn session_timeout(&self, config: &ConsumerGroupConfig) -> Duration {
        match &self.subscription.classic {
            Some(classic) => Duration::from_millis(classic.session_timeout_ms.into()),
            None => config.session_timeout,
        }
    }

    pub fn deadline(&self) -> Monotonic {
        self.rebalance_deadline.map_or(self.session_deadline, |rebalance| rebalance.min(self.session_deadline))
    }
}
