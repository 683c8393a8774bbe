//! From one generation to the next: members gather, a protocol and a leader are chosen.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_proto::coordinator::JoinedMember;
use bmq_proto::internal::{ClassicGroupRecord, group_record::Kind};
use bytes::Bytes;

use super::member::Waiting;
use super::{ClassicGroup, InitialDelay, Phase};
use crate::group::error::GroupError;
use crate::group::step::Step;
use crate::shard::Response;

impl ClassicGroup {
    /// Something has changed that needs a new generation.
    pub(super) fn begin_rebalance_or_go_on(&mut self, id: &str, step: &mut Step<'_>) {
        match self.phase {
            Phase::Preparing { .. } => self.finish_join_if_complete(id, step),
            _ => self.begin_rebalance(id, step),
        }
    }

    /// All members are to join again.
    pub(super) fn begin_rebalance(&mut self, id: &str, step: &mut Step<'_>) {
        if let Phase::Completing { .. } = self.phase {
            // The assignment that they wait for will not come.
            self.members.values_mut().for_each(|member| member.assignment = Bytes::new());
            for (id, member) in &mut self.members {
                if let Waiting::ForSync(_) = member.waiting {
                    member.refuse(id, GroupError::RebalanceInProgress, step);
                    member.touch(step.now);
                }
            }
        }
        if self.is_empty() {
            let delay = step.config.initial_rebalance_delay;
            let remaining = self.rebalance_timeout().saturating_sub(delay);
            let initial = Some(InitialDelay { delay, remaining, extend: false });
            self.enter(Phase::Preparing { until: step.now + delay, initial }, step);
        } else {
            let until = step.now + self.rebalance_timeout();
            self.enter(Phase::Preparing { until, initial: None }, step);
            self.finish_join_if_complete(id, step);
        }
    }

    /// Becomes the group of this record, whose members have been a group of KIP-848's protocol until now, and starts
    /// their first rebalance.
    pub fn take_over(id: &str, record: ClassicGroupRecord, step: &mut Step<'_>) -> Self {
        step.append(id, Kind::Classic(record.clone()));
        let mut group = Self::restore(record).expect("it was made of a group");
        group.finish_loading(id, step);
        group.begin_rebalance(id, step);
        group
    }

    /// Its members are a group of KIP-848's protocol from now on: whoever waits is to join again there.
    pub fn dissolve(&mut self, step: &mut Step<'_>) {
        for (id, member) in &mut self.members {
            member.refuse(id, GroupError::RebalanceInProgress, step);
        }
    }

    /// Completes the join if nobody is missing. A group that was empty waits for more members nevertheless.
    pub(super) fn finish_join_if_complete(&mut self, id: &str, step: &mut Step<'_>) {
        if matches!(self.phase, Phase::Preparing { initial: None, .. }) && self.all_joined() {
            self.finish_join(id, step);
        }
    }

    /// Members, or ids that were given out, are gone without a word.
    pub(super) fn take_silence(&mut self, id: &str, members_gone: bool, step: &mut Step<'_>) {
        match self.phase {
            Phase::Empty => {}
            Phase::Preparing { .. } => {
                if self.all_joined() {
                    self.finish_join(id, step);
                }
            }
            Phase::Completing { .. } | Phase::Stable { .. } => {
                if members_gone {
                    self.begin_rebalance(id, step);
                }
            }
        }
    }

    /// The time for joining is up.
    pub(super) fn end_join_time(&mut self, id: &str, step: &mut Step<'_>) {
        let Phase::Preparing { initial, .. } = self.phase else { return };
        match initial {
            Some(initial) if initial.extend && !initial.remaining.is_zero() => {
                let delay = step.config.initial_rebalance_delay.min(initial.remaining);
                let remaining = initial.remaining.saturating_sub(initial.delay);
                let initial = Some(InitialDelay { delay, remaining, extend: false });
                self.phase = Phase::Preparing { until: step.now + delay, initial };
            }
            _ => self.finish_join(id, step),
        }
    }

    /// Whoever has not joined again is out, except static members, who may be restarting; the others are told of the
    /// new generation.
    fn finish_join(&mut self, id: &str, step: &mut Step<'_>) {
        let absent: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| !member.awaits_join() && member.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member in &absent {
            self.remove(member, GroupError::UnknownMemberId, step);
        }
        if !self.members.is_empty() && !self.choose_leader() {
            // Only static members that are away: they have until their sessions end.
            let until = step.now + self.rebalance_timeout();
            self.phase = Phase::Preparing { until, initial: None };
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.members.values_mut().for_each(|member| member.synced = false);
        self.protocol = self.vote().unwrap_or_default();
        if self.members.is_empty() {
            self.enter(Phase::Empty, step);
            step.append(id, self.record());
        } else {
            self.enter(Phase::Completing { until: step.now + self.rebalance_timeout() }, step);
            self.announce_generation(step);
        }
    }

    fn announce_generation(&mut self, step: &mut Step<'_>) {
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            member.is_new = false;
            member.touch(step.now);
            if let Waiting::ForJoin(token) = member.waiting {
                member.waiting = Waiting::No;
                answers.push((token, id.clone()));
            }
        }
        for (token, member) in answers {
            step.reply(token, Response::JoinGroup(self.joined(&member)));
        }
    }

    /// Takes a member out; a request that it waits with is answered with `error`.
    pub(super) fn remove(&mut self, id: &str, error: GroupError, step: &mut Step<'_>) {
        let Some(mut member) = self.members.remove(id) else { return };
        member.refuse("", error, step);
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Sees to it that the leader is one who has joined; false if nobody has.
    fn choose_leader(&mut self) -> bool {
        let present = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if present.is_some_and(|leader| leader.awaits_join()) {
            return true;
        }
        match self.members.iter().find(|(_, member)| member.awaits_join()) {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// The protocol that most members prefer among those that all support; none without members.
    pub(super) fn vote(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let candidates: Vec<&str> =
            first.protocols.iter().map(|offered| offered.name.as_str()).filter(|name| self.all_support(name)).collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|offered| candidates.contains(&offered.name.as_str()));
            if let Some(choice) = choice {
                *votes.entry(&choice.name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned())
    }

    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.supports(protocol))
    }

    pub(super) fn all_joined(&self) -> bool {
        self.given.is_empty() && self.members.values().all(|member| member.awaits_join())
    }

    /// How long members may take to join again: as long as the most patient one says.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// What the leader is told of the members.
    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(&self.protocol).cloned().unwrap_or_default(),
        });
        members.collect()
    }
}
