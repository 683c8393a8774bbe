//! A group of KIP-848's protocol: the coordinator assigns, and moves each member towards its assignment one heartbeat
//! at a time.
//!
//! ```text
//!   subscription, topics ──▶ group epoch ──▶ target assignment (its epoch follows) ──▶ each member's current
//!                                                                                      assignment and epoch
//! ```
//! Invariants:
//! * **a partition is held by at most one member.** A member holds what it is assigned and what it is asked to revoke;
//!   what it was asked to revoke stays its own until a heartbeat of it no longer lists it, or until it leaves or is
//!   fenced. Nothing is assigned that another member holds. Each member's holdings change in one record, so they are
//!   whole after a reload too, wherever the records end;
//! * `assignment epoch ≤ group epoch`, and `member epoch ≤ assignment epoch`; none of them goes back, except that a
//!   member begins at 0, also anew under its instance id;
//! * state changes only in [`ConsumerGroup::apply`], so a reload makes the same state; the time-outs begin anew then.

mod classic_members;
pub mod config;
mod describe;
mod embedded;
mod heartbeat;
mod leave;
mod member;
mod migration;
mod offset_checks;
mod reconcile;
mod records;
mod subscription;
mod target;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod migration_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use bmq_common::clock::Monotonic;
use bmq_proto::TopicPartition;
use bmq_proto::internal::ConsumerMemberRecord;

use crate::assignor::MemberId;
use crate::group::step::Step;
pub(crate) use heartbeat::{is_join, validate};
use member::{Member, State};

/// The protocol type of consumers, classic and new.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// One group. See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroup {
    epoch: i32,
    assignment_epoch: i32,
    metadata_hash: u64,
    members: BTreeMap<MemberId, Member>,
    instances: BTreeMap<String, MemberId>,
    /// Who holds a partition.
    holders: HashMap<TopicPartition, MemberId>,
    /// What the members' subscriptions take together, as stored.
    subscription_bytes: usize,
    /// Whether topics may differ from those that `metadata_hash` is of.
    topics_stale: bool,
    /// The names of the topics that each regular expression in use matches, as far as it was looked.
    matches: BTreeMap<String, Vec<String>>,
    /// Not later than the first deadline of any member.
    wake: Option<Monotonic>,
}

impl ConsumerGroup {
    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Kafka's name of the state.
    pub fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().any(|member| !self.is_reconciled(member)) {
            "Reconciling"
        } else {
            "Stable"
        }
    }

    /// Topics changed: the next heartbeat looks whether they are this group's.
    pub fn topics_changed(&mut self) {
        self.topics_stale = true;
        self.matches.clear();
    }

    /// Every stored record was applied: each member has its time to show that it is alive.
    pub fn finish_loading(&mut self, step: &Step<'_>) {
        self.topics_stale = true;
        for member in self.members.values_mut() {
            member.session_deadline = step.now + member.session_timeout(&step.config.consumer);
            member.rebalance_deadline = None;
            if member.current.state == State::UnrevokedPartitions && !member.is_classic() {
                member.rebalance_deadline = Some(step.now + member.rebalance_timeout());
            }
        }
        self.wake = self.members.values().map(Member::deadline).min();
    }

    /// Not later than the next thing to be done without a request.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.wake
    }

    fn is_reconciled(&self, member: &Member) -> bool {
        member.current.state == State::Stable && member.current.epoch == self.assignment_epoch
    }

    /// Sees to it that the member's deadlines are looked at.
    fn arm(&mut self, id: &MemberId) {
        let deadline = self.members.get(id).map(Member::deadline);
        self.wake = [self.wake, deadline].into_iter().flatten().min();
    }

    fn subscriptions(&self) -> impl Iterator<Item = (&MemberId, &ConsumerMemberRecord)> {
        self.members.iter().map(|(id, member)| (id, &member.subscription))
    }
}
