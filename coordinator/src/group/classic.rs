//! A group of the classic protocol: members join, one of them, the leader, is told of all, and hands in who gets what.
//!
//! ```text
//!           first join              all joined, or time is up          leader's sync
//!   Empty ─────────────▶ Preparing ──────────────────────▶ Completing ───────────────▶ Stable
//!     ▲                   │  ▲  ▲                             │                          │
//!     └── nobody joined ──┘  │  └─ a member comes, goes or ───┘                          │
//!                            └──── changes what it brought ──────────────────────────────┘
//! ```
//! As Kafka's coordinator behaves (KIP-62, 134, 345, 394, 814). Invariants:
//! * the generation grows with each completed join, and only then; an assignment belongs to one generation;
//! * who waits for a join is answered when the join completes, who waits for a sync when the leader's comes, or when
//!   the member is removed, replaced, or the rebalance starts anew: nobody waits in `Empty` or `Stable`;
//! * all members share at least one protocol, and the chosen one is among those;
//! * the leader is a member, if there are members;
//! * stored are complete generations, at the leader's sync and when the group becomes empty: after a coordinator's
//!   death the members of the last one go on with a heartbeat.

mod describe;
#[cfg(test)]
mod invariants;
mod join;
mod leave;
mod member;
mod rebalance;
mod record;
mod subscription;
mod sync;

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::coordinator::CommitOffsetsRequest;

use super::error::GroupError;
use super::step::Step;
pub(crate) use member::{Member, join_error, session_timeout};

/// The protocol type of consumers: the coordinator can read their subscriptions.
pub(crate) const CONSUMER: &str = "consumer";

/// A group of the classic protocol.
#[derive(Debug, Default)]
pub(crate) struct ClassicGroup {
    phase: Phase,
    pub generation: i32,
    /// Empty while there never was a member.
    pub protocol_type: String,
    /// Chosen when the last join completed; empty if nobody was there.
    pub protocol: String,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// Instance id to member id.
    instances: BTreeMap<String, String>,
    /// Member ids that were given out and not used yet, and until when they are good.
    given: BTreeMap<String, Monotonic>,
    pub state_since: WallMillis,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No members.
    #[default]
    Empty,
    /// Members are joining.
    Preparing {
        /// Then the join completes with those who are there, unless the initial delay is extended.
        until: Monotonic,
        initial: Option<InitialDelay>,
    },
    /// All have joined; the leader's assignment is awaited.
    Completing {
        /// Who has not sent a sync by then is removed.
        until: Monotonic,
    },
    /// There is an assignment.
    Stable {
        /// As in `Completing`, while there are such members.
        until: Option<Monotonic>,
    },
}

/// The join of a group that was empty: it waits a while for more members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InitialDelay {
    /// The delay that is running.
    delay: Duration,
    /// By how much it may be extended.
    remaining: Duration,
    /// A member has come since the delay began.
    extend: bool,
}

impl ClassicGroup {
    /// Kafka's name of the state.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable { .. } => "Stable",
        }
    }

    /// Whether there is nobody, nor anybody on the way.
    pub fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    /// Whether nothing would be lost with the group, besides its offsets.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.given.is_empty()
    }

    pub fn is_stable(&self) -> bool {
        matches!(self.phase, Phase::Stable { .. })
    }

    /// Starts the members' clocks after loading.
    pub fn finish_loading(&mut self, id: &str, step: &mut Step<'_>) {
        for member in self.members.values_mut() {
            member.touch(step.now);
        }
        if self.members.len() > step.config.max_members {
            self.begin_rebalance(id, step);
        }
    }

    /// When something is due without a request.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let phase = match self.phase {
            Phase::Empty => None,
            Phase::Preparing { until, .. } | Phase::Completing { until } => Some(until),
            Phase::Stable { until } => until,
        };
        let members = self.members.values().filter_map(Member::deadline);
        members.chain(self.given.values().copied()).chain(phase).min()
    }

    /// Removes who has gone silent, and completes or restarts the rebalance whose time is up.
    pub fn tick(&mut self, id: &str, step: &mut Step<'_>) {
        let given_before = self.given.len();
        self.given.retain(|_, until| *until > step.now);
        let silent: Vec<String> =
            self.members.iter().filter(|(_, member)| member.is_silent(step.now)).map(|(id, _)| id.clone()).collect();
        for member in &silent {
            self.remove(member, GroupError::UnknownMemberId, step);
        }
        if !silent.is_empty() || self.given.len() < given_before {
            self.take_silence(id, !silent.is_empty(), step);
        }
        match self.phase {
            Phase::Preparing { until, .. } if until <= step.now => self.end_join_time(id, step),
            Phase::Completing { until } | Phase::Stable { until: Some(until) } if until <= step.now => {
                self.end_sync_time(id, step);
            }
            _ => {}
        }
    }

    /// Whether the request may commit offsets for this group.
    pub fn check_commit(&self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        let generation = request.generation_or_member_epoch;
        if generation < 0 && self.is_empty() {
            return Ok(());
        }
        if generation < 0 && request.member.is_empty() && request.instance.is_none() {
            // A simple consumer would overwrite what the members commit.
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&request.member, request.instance.as_deref())?;
        self.check_generation(generation)?;
        match self.phase {
            // It knows the new generation, but not yet its assignment.
            Phase::Completing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// A member is alive. One whose first join is not complete has its own, longer time.
    pub fn touch(&mut self, member: &str, now: Monotonic) {
        if let Some(member) = self.members.get_mut(member).filter(|member| !member.is_new) {
            member.touch(now);
        }
    }

    fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(present) if present != member => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    fn enter(&mut self, phase: Phase, step: &Step<'_>) {
        self.phase = phase;
        self.state_since = step.wall;
    }
}
