//! One step of a member towards its target. Pure.
//!
//! ```text
//!              target changed, nothing to revoke
//!           ┌───────────────────────────────────────┐
//!           │                                       ▼
//!        Stable ──must revoke──▶ Unrevoked ──▶ Unreleased, or Stable if all is free
//!           ▲                    (old epoch)   (target's epoch) │
//!           └──────────────────others have released─────────────┘
//! ```

use bmq_proto::TopicPartition;

use super::member::{Current, State};
use crate::assignor::Partitions;

/// Where a member shall get to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal<'a> {
    pub epoch: i32,
    pub partitions: &'a Partitions,
}

/// The member's next state. `owned` is what its heartbeat says that it has, if it says so; `is_held` tells of a
/// partition whether another member holds it.
pub(super) fn step(
    current: &Current,
    goal: Goal<'_>,
    owned: Option<&Partitions>,
    is_held: impl Fn(&TopicPartition) -> bool,
) -> Current {
    let waits = match current.state {
        State::Stable => current.epoch == goal.epoch,
        State::UnrevokedPartitions => may_own(&current.revoking, owned),
        State::UnreleasedPartitions => false,
    };
    if waits { current.clone() } else { advance(current, goal, owned, is_held) }
}

fn advance(
    current: &Current,
    goal: Goal<'_>,
    owned: Option<&Partitions>,
    is_held: impl Fn(&TopicPartition) -> bool,
) -> Current {
    let kept: Partitions = current.assigned.intersection(goal.partitions).copied().collect();
    let revoking: Partitions = current.assigned.difference(&kept).copied().collect();
    if may_own(&revoking, owned) {
        return Current {
            epoch: current.epoch,
            previous_epoch: current.epoch,
            state: State::UnrevokedPartitions,
            assigned: kept,
            revoking,
        };
    }
    let (held, free): (Partitions, Partitions) = goal.partitions.difference(&kept).copied().partition(|p| is_held(p));
    Current {
        epoch: goal.epoch,
        previous_epoch: current.epoch,
        state: if held.is_empty() { State::Stable } else { State::UnreleasedPartitions },
        assigned: kept.union(&free).copied().collect(),
        revoking: Partitions::new(),
    }
}

/// Whether the member may still have some of these. One that does not say may have all.
///
/// The protocol leaves a hole here that a coordinator cannot close: a member that was told of a partition and has not
/// taken it yet does not list it, and so gives it up; if it then misses the answer, it must not take the partition
/// after all. A member is safe that takes nothing between a heartbeat that went wrong and the answer to the next one.
fn may_own(partitions: &Partitions, owned: Option<&Partitions>) -> bool {
    match owned {
        None => !partitions.is_empty(),
        Some(owned) => !partitions.is_disjoint(owned),
    }
}
