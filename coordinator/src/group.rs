//! All groups of one shard: a pure machine without IO, clock or randomness.
//!
//! ```text
//!   Groups ─┬─ Group "orders" ─┬─ Membership: Classic | Consumer
//!           │                  └─ OffsetTable
//!           └─ wake-ups: when which group wants to be looked at
//! ```
//! Invariants:
//! * state changes at once and its record is appended in the same step, before any answer that shows it: since answers
//!   leave in order behind the appends before them (see [`crate::shard`]), nobody is shown what is not stored;
//! * applying the records of all appends, in order, makes the same groups, less what only lives with the process:
//!   who waits, who has been given a member id but has not used it, and a rebalance that is not complete;
//! * each token is answered exactly once; those who wait are members that hold their token;
//! * whoever has a deadline has a wake-up that is not later.

pub(crate) mod classic;
pub mod config;
mod consumer;
mod dispatch;
pub mod error;
#[cfg(test)]
mod invariants;
mod limits;
mod membership;
pub(crate) mod offsets;
pub(crate) mod step;
mod sweep;
mod wakeups;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bmq_common::clock::Monotonic;
use bmq_proto::TopicId;
use bmq_proto::internal::GroupRecord;
use bmq_proto::internal::group_record::Kind;
use uuid::Uuid;

use crate::consumer_group::ConsumerGroup;
use crate::shard::{Context, Effect, Holdings, ReplyToken, Request, ShardState};
use classic::ClassicGroup;
use config::GroupsConfig;
pub(crate) use membership::Membership;
use offsets::OffsetTable;
use step::{SCHEMA, Step};
use wakeups::Wakeups;

/// All groups of one shard.
#[derive(Debug)]
pub struct Groups {
    pub(crate) config: Arc<GroupsConfig>,
    pub(crate) groups: BTreeMap<String, Group>,
    wakeups: Wakeups,
    /// When offsets and groups are next looked through for what has expired; none while loading.
    next_sweep: Option<Monotonic>,
    fresh: FreshIds,
}

/// One group: who is in it, and how far it has got. Neither needs the other: members may never commit, and a simple
/// consumer commits without being a member.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub membership: Membership,
    pub offsets: OffsetTable,
}

/// Ids that are never used twice, grown from a random one.
#[derive(Debug)]
struct FreshIds {
    seed: u128,
    used: u64,
}

impl FreshIds {
    fn next(&mut self) -> Uuid {
        self.used += 1;
        Uuid::from_u128(self.seed.wrapping_add(self.used.into()))
    }
}

impl Groups {
    /// Without groups. `seed` must be random: members' ids are derived from it, so no two machines may share it.
    pub fn new(config: GroupsConfig, seed: Uuid) -> Self {
        Self {
            config: Arc::new(config),
            groups: BTreeMap::new(),
            wakeups: Wakeups::default(),
            next_sweep: None,
            fresh: FreshIds { seed: seed.as_u128(), used: 0 },
        }
    }

    fn step<'a>(&mut self, context: Context<'a>) -> Step<'a> {
        Step::new(&self.config, context, self.fresh.next())
    }

    /// Sees to it that the group is looked at when it next wants to be.
    pub(crate) fn arm(&mut self, group: &str) {
        let deadline = self.groups.get(group).and_then(|group| group.membership.next_deadline());
        self.wakeups.set(group, deadline);
    }
}

impl Group {
    /// Takes a stored record of this group.
    fn apply(&mut self, kind: Kind) -> Result<(), String> {
        match (kind, &mut self.membership) {
            (Kind::Classic(record), membership) => *membership = Membership::Classic(ClassicGroup::restore(record)?),
            (Kind::Committed(record), _) => self.offsets.restore(record)?,
            (Kind::Forgotten(names), _) => {
                names.partitions.iter().for_each(|name| self.offsets.remove(&name.topic, name.partition));
            }
            (Kind::Deleted(_), _) => *self = Self::default(),
            (kind, Membership::Consumer(consumer)) => consumer.apply(kind)?,
            (kind @ Kind::Consumer(_), membership) => {
                let mut consumer = ConsumerGroup::default();
                consumer.apply(kind)?;
                *membership = Membership::Consumer(consumer);
            }
            (_, Membership::Classic(_)) => return Err("a member of a consumer group that there is not".to_owned()),
        }
        Ok(())
    }
}

impl ShardState for Groups {
    type Record = GroupRecord;

    fn apply(&mut self, record: GroupRecord) -> Result<(), String> {
        let GroupRecord { schema, group, kind } = record;
        if schema != SCHEMA {
            return Err(format!("a record of group `{group}` has schema {schema}, known is {SCHEMA}"));
        }
        match kind.ok_or_else(|| format!("a record of group `{group}` says nothing that is known"))? {
            Kind::Deleted(_) => {
                self.groups.remove(&group);
                Ok(())
            }
            kind => self.groups.entry(group).or_default().apply(kind),
        }
    }

    fn finish_loading(&mut self, context: Context<'_>) -> Vec<Effect<GroupRecord>> {
        let mut step = self.step(context);
        for (id, group) in &mut self.groups {
            group.membership.finish_loading(id, &mut step);
            self.wakeups.set(id, group.membership.next_deadline());
        }
        self.next_sweep = Some(step.now + self.config.offsets_retention_check_interval);
        step.effects
    }

    fn handle(&mut self, request: Request, token: ReplyToken, context: Context<'_>) -> Vec<Effect<GroupRecord>> {
        let mut step = self.step(context);
        self.dispatch(request, token, &mut step);
        step.effects
    }

    fn tick(&mut self, context: Context<'_>) -> Vec<Effect<GroupRecord>> {
        let mut step = self.step(context);
        for id in self.wakeups.take_due(step.now) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.membership.tick(&id, &mut step);
                group.downgrade(&id, &mut step);
            }
            self.arm(&id);
        }
        if self.next_sweep.is_some_and(|at| at <= step.now) {
            self.sweep(&mut step);
        }
        step.effects
    }

    fn next_deadline(&self) -> Option<Monotonic> {
        [self.wakeups.first(), self.next_sweep].into_iter().flatten().min()
    }

    fn topics_changed(&mut self, gone: &BTreeSet<TopicId>, context: Context<'_>) -> Vec<Effect<GroupRecord>> {
        let mut step = self.step(context);
        for group in self.groups.values_mut() {
            if let Membership::Consumer(consumer) = &mut group.membership {
                consumer.topics_changed();
            }
        }
        self.forget_topics(gone, &mut step);
        step.effects
    }

    fn topics_in_use(&self) -> BTreeSet<TopicId> {
        self.groups.values().flat_map(|group| group.offsets.topics()).collect()
    }

    fn snapshot(&self) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        for (id, group) in &self.groups {
            let offsets = group.offsets.records();
            records.extend(group.membership.records().into_iter().chain(offsets).map(|kind| step::record(id, kind)));
        }
        records
    }

    fn holdings(&self) -> Holdings {
        Holdings {
            groups: self.groups.len(),
            members: self.groups.values().map(|group| group.membership.members()).sum(),
            offsets: self.groups.values().map(|group| group.offsets.len()).sum(),
        }
    }
}
