//! The controller's decisions: `step(event, now) → actions`. Pure.
//!
//! Invariants:
//! * nothing is decided without a term, nor before a list that was begun after the term was taken is complete;
//! * at most one write of intents is in flight, and the next plan starts from what it wrote;
//! * the plan follows the level, not the edge: a write that failed is planned anew from what is then known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::Monotonic;
use bmq_proto::meta::{NodeKind, SessionRecord, WatchEvent};
use bmq_proto::{NodeId, Term, TopicId, TopicPartition};

use crate::deletion::{Deletions, Due, PurgeOutcome};
use crate::liveness::Liveness;
use crate::planner::{self, IntentChange, Nodes};
use crate::view::{Records, Touched, View};

/// The most intents of one write, so that a transaction stays small.
const MAX_CHANGES_PER_WRITE: usize = 100;

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The watch told something.
    Watched(Vec<WatchEvent>),
    /// This controller now holds the term. Decisions begin with the next complete list.
    TermTaken(Term),
    /// It does not hold one any more.
    TermLost,
    /// A write of intents ended; without success it may have been applied or not.
    IntentsWritten { write: WriteId, success: bool },
    /// A broker was asked to delete a topic's data.
    DataDeleted { topic: TopicId, success: bool },
    /// Records of a topic were to be removed.
    Purged { topic: TopicId, outcome: PurgeOutcome },
    /// Time has passed.
    Tick,
}

/// Names one write of intents, so that the late end of an earlier one is told from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteId(u64);

/// What shall be done; each ends in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the watch anew, for a list that is younger than the term.
    ListAgain,
    WriteIntents {
        term: Term,
        write: WriteId,
        changes: Vec<IntentChange>,
    },
    DeleteData {
        topic: TopicId,
        broker: SessionRecord,
    },
    Purge {
        term: Term,
        topic: TopicId,
    },
    /// The term may be free: try to take it now.
    TryForTerm,
}

/// The figures that operators see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub usable_brokers: usize,
    pub held_brokers: usize,
    pub usable_coordinators: usize,
    pub held_coordinators: usize,
    pub unplaced_partitions: usize,
    pub deleting_topics: usize,
}

/// Everything the controller knows.
#[derive(Debug)]
pub struct State {
    retry_delay: Duration,
    view: View,
    brokers: Liveness,
    coordinators: Liveness,
    role: Role,
    deletions: Deletions,
    last_write: WriteId,
    unplaced: usize,
}

/// What this controller is in the cluster: only the active one decides.
#[derive(Debug)]
enum Role {
    Standby,
    /// The term is held, the list is awaited.
    Listing(Term),
    Active(Active),
}

#[derive(Debug)]
struct Active {
    term: Term,
    write: Write,
    /// Written with success, not seen yet. What the watch tells of these partitions meanwhile is older.
    unseen: BTreeMap<TopicPartition, Option<NodeId>>,
}

#[derive(Debug)]
enum Write {
    /// What was planned is written.
    Settled,
    /// Something changed: plan now.
    Due,
    /// The last write failed: plan at this time.
    DueAt(Monotonic),
    /// Being written, less what the watch has told already.
    InFlight { write: WriteId, changes: BTreeMap<TopicPartition, Option<NodeId>> },
}

impl State {
    pub fn new(session_time: Duration, retry_delay: Duration) -> Self {
        State {
            retry_delay,
            view: View::default(),
            brokers: Liveness::new(session_time),
            coordinators: Liveness::new(session_time),
            role: Role::Standby,
            deletions: Deletions::new(retry_delay),
            last_write: WriteId::default(),
            unplaced: 0,
        }
    }

    pub fn step(&mut self, event: Event, now: Monotonic) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Watched(events) => self.take_in(events, now, &mut actions),
            Event::TermTaken(term) => {
                self.role = Role::Listing(term);
                self.deletions.forget_steps();
                actions.push(Action::ListAgain);
            }
            Event::TermLost => self.role = Role::Standby,
            Event::IntentsWritten { write, success } => self.finish_write(write, success, now),
            Event::DataDeleted { topic, success } => self.deletions.finish_data(topic, success, now),
            Event::Purged { topic, outcome } => self.deletions.finish_purge(topic, outcome, now),
            Event::Tick => {}
        }
        let fewer_brokers = self.brokers.pass_time(now);
        let fewer_coordinators = self.coordinators.pass_time(now);
        if fewer_brokers || fewer_coordinators {
            self.plan_anew();
        }
        self.decide(now, &mut actions);
        actions
    }

    /// When to step with [`Event::Tick`] if nothing else happens before.
    pub fn next_wake(&self, now: Monotonic) -> Option<Monotonic> {
        let Role::Active(active) = &self.role else {
            return None;
        };
        let write = if let Write::DueAt(at) = active.write { Some(at) } else { None };
        let releases = [self.brokers.next_release(), self.coordinators.next_release()];
        releases.into_iter().chain([write, self.deletions.next_try(now)]).flatten().min()
    }

    pub fn figures(&self) -> Figures {
        Figures {
            usable_brokers: self.brokers.usable().len(),
            held_brokers: self.brokers.held().len(),
            usable_coordinators: self.coordinators.usable().len(),
            held_coordinators: self.coordinators.held().len(),
            unplaced_partitions: self.unplaced,
            deleting_topics: self.deletions.len(),
        }
    }

    fn take_in(&mut self, events: Vec<WatchEvent>, now: Monotonic, actions: &mut Vec<Action>) {
        let (mut topics, mut nodes, mut listed, mut controller_gone) = (false, false, false, false);
        for event in events {
            match self.view.apply(event) {
                Touched::Nothing | Touched::Owners => {}
                Touched::Topics => topics = true,
                Touched::Brokers | Touched::Coordinators => nodes = true,
                Touched::Intent(partition) => self.see_intent(partition),
                Touched::ControllerGone => controller_gone = true,
                Touched::Everything => {
                    listed = true;
                    self.begin_active();
                }
            }
        }
        if nodes || listed {
            self.observe_nodes(now);
        }
        let records = self.view.records();
        if topics || listed {
            self.deletions.keep_only(records.topics.values());
        }
        if topics || nodes {
            self.plan_anew();
        }
        if controller_gone && matches!(self.role, Role::Standby) {
            actions.push(Action::TryForTerm);
        }
    }

    fn observe_nodes(&mut self, now: Monotonic) {
        let records = self.view.records();
        let named = |kind| {
            let of_kind = move |partition: &TopicPartition| records.owner_kind(partition.topic) == kind;
            records.intents.iter().filter(move |(partition, _)| of_kind(partition)).map(|(_, node)| *node)
        };
        let brokers: BTreeSet<_> = records.brokers.keys().copied().collect();
        self.brokers.observe(brokers, named(NodeKind::Broker), now);
        let coordinators: BTreeSet<_> = records.coordinators.keys().copied().collect();
        self.coordinators.observe(coordinators, named(NodeKind::Coordinator), now);
    }

    /// A list is complete: whatever was known before is replaced.
    fn begin_active(&mut self) {
        match &mut self.role {
            Role::Standby => {}
            Role::Listing(term) => {
                self.role = Role::Active(Active { term: *term, write: Write::Due, unseen: BTreeMap::new() });
            }
            Role::Active(active) => {
                active.unseen.clear();
                self.plan_anew();
            }
        }
    }

    /// The watch told of an intent, which the view now shows.
    fn see_intent(&mut self, partition: TopicPartition) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        let seen = self.view.records().intents.get(&partition).copied();
        if let Write::InFlight { changes, .. } = &mut active.write
            && changes.get(&partition) == Some(&seen)
        {
            changes.remove(&partition);
        }
        match active.unseen.get(&partition) {
            Some(written) if *written == seen => drop(active.unseen.remove(&partition)),
            Some(written) => self.view.set_intent(partition, *written),
            None => self.plan_anew(),
        }
    }

    /// Has the next decision begin with a plan, unless one is due or will be anyway.
    fn plan_anew(&mut self) {
        if let Role::Active(Active { write: write @ Write::Settled, .. }) = &mut self.role {
            *write = Write::Due;
        }
    }

    fn finish_write(&mut self, ended: WriteId, success: bool, now: Monotonic) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        let changes = match &mut active.write {
            Write::InFlight { write, changes } if *write == ended => std::mem::take(changes),
            // Begun before the present list: that shows what became of it, or the watch will.
            _ => return,
        };
        if !success {
            active.write = Write::DueAt(now + self.retry_delay);
            return;
        }
        active.write = Write::Due;
        changes.iter().for_each(|(partition, node)| self.view.set_intent(*partition, *node));
        active.unseen.extend(changes);
    }

    fn decide(&mut self, now: Monotonic, actions: &mut Vec<Action>) {
        let Role::Active(active) = &mut self.role else {
            return;
        };
        let records = self.view.records();
        let is_due = match active.write {
            Write::Due => true,
            Write::DueAt(at) => at <= now,
            Write::Settled | Write::InFlight { .. } => false,
        };
        if is_due {
            let brokers = Nodes { usable: self.brokers.usable(), held: self.brokers.held() };
            let coordinators = Nodes { usable: self.coordinators.usable(), held: self.coordinators.held() };
            let plan = planner::plan(&records.topics, &records.intents, brokers, coordinators);
            self.unplaced = plan.unplaced;
            self.last_write.0 += 1;
            active.begin_write(self.last_write, plan.changes, actions);
        }
        let unseen = &active.unseen;
        let is_settled = |topic| unseen.range(Records::range_of(topic)).next().is_none();
        for due in self.deletions.begin_due(records, is_settled, now) {
            actions.push(match due {
                Due::DeleteData { topic, broker } => Action::DeleteData { topic, broker },
                Due::Purge { topic } => Action::Purge { term: active.term, topic },
            });
        }
    }
}

impl Active {
    fn begin_write(&mut self, write: WriteId, mut changes: Vec<IntentChange>, actions: &mut Vec<Action>) {
        if changes.is_empty() {
            self.write = Write::Settled;
            return;
        }
        changes.truncate(MAX_CHANGES_PER_WRITE);
        self.write = Write::InFlight { write, changes: changes.iter().copied().collect() };
        actions.push(Action::WriteIntents { term: self.term, write, changes });
    }
}

#[cfg(test)]
mod tests;
