//! The end of deleted topics, one step after another. Pure.
//!
//! Order, for each topic: nobody shall own its partitions (the planner sees to that) → nobody does own them → a broker
//! deletes the data → the records go, the topic's own last. Each step may be repeated; a controller that takes over
//! begins with the first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::Monotonic;
use bmq_proto::TopicId;
use bmq_proto::meta::{SessionRecord, TopicRecord, TopicState};

use crate::view::Records;

/// The most steps in flight at once, so that many deletions do not crowd out everything else.
const MAX_IN_FLIGHT: usize = 4;

/// A step to take now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    DeleteData { topic: TopicId, broker: SessionRecord },
    Purge { topic: TopicId },
}

/// What came of removing some of a topic's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeOutcome {
    NothingLeft,
    MoreLeft,
    Failed,
}

/// The topics under deletion.
#[derive(Debug)]
pub struct Deletions {
    retry_delay: Duration,
    topics: BTreeMap<TopicId, Deletion>,
}

#[derive(Clone, Copy, Debug)]
struct Deletion {
    stage: Stage,
    step: Step,
    /// How often the data was asked to be deleted in vain: each try asks another broker.
    failures: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its data is there, and perhaps its owners are.
    Data,
    /// Its data is gone.
    Records,
    /// Its records are gone; the watch will tell.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    InFlight,
    /// Not before this time.
    From(Monotonic),
}

impl Deletions {
    pub fn new(retry_delay: Duration) -> Self {
        Deletions { retry_delay, topics: BTreeMap::new() }
    }

    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Takes in the topics there are now.
    pub fn keep_only<'a>(&mut self, topics: impl Iterator<Item = &'a TopicRecord>) {
        let deleting = topics.filter(|topic| topic.state == TopicState::Deleting).map(|topic| topic.id);
        let deleting: BTreeSet<_> = deleting.collect();
        self.topics.retain(|topic, _| deleting.contains(topic));
        for topic in deleting {
            self.topics.entry(topic).or_insert(Deletion::NEW);
        }
    }

    /// Begins again with every topic, as a new term must.
    pub fn forget_steps(&mut self) {
        self.topics.values_mut().for_each(|deletion| *deletion = Deletion::NEW);
    }

    /// When, after `now`, a step that failed may be tried again.
    pub fn next_try(&self, now: Monotonic) -> Option<Monotonic> {
        let waiting = self.topics.values().filter_map(|deletion| match deletion.step {
            Step::From(at) if at > now => Some(at),
            Step::From(_) | Step::InFlight => None,
        });
        waiting.min()
    }

    /// Begins and returns the steps that can be taken now. `is_settled` tells whether the watch has caught up with what
    /// was written about a topic's intents: only then does it also show every claim that was made before.
    pub fn begin_due(&mut self, records: &Records, is_settled: impl Fn(TopicId) -> bool, now: Monotonic) -> Vec<Due> {
        let in_flight = self.topics.values().filter(|deletion| deletion.step == Step::InFlight).count();
        let mut due = Vec::new();
        for (topic, deletion) in &mut self.topics {
            if in_flight + due.len() >= MAX_IN_FLIGHT {
                break;
            }
            if deletion.is_waiting(now) || !is_settled(*topic) || is_owned(records, *topic) {
                continue;
            }
            if let Some(step) = deletion.begin_step(*topic, records) {
                due.push(step);
            }
        }
        due
    }

    pub fn finish_data(&mut self, topic: TopicId, success: bool, now: Monotonic) {
        let retry = Step::From(now + self.retry_delay);
        let Some(deletion) = self.topics.get_mut(&topic) else {
            return;
        };
        if success {
            (deletion.stage, deletion.step) = (Stage::Records, Step::From(Monotonic::ZERO));
        } else {
            (deletion.failures, deletion.step) = (deletion.failures + 1, retry);
        }
    }

    pub fn finish_purge(&mut self, topic: TopicId, outcome: PurgeOutcome, now: Monotonic) {
        let retry = Step::From(now + self.retry_delay);
        let Some(deletion) = self.topics.get_mut(&topic) else {
            return;
        };
        match outcome {
            PurgeOutcome::NothingLeft => {
                (deletion.stage, deletion.step) = (Stage::Nothing, Step::From(Monotonic::ZERO));
            }
            PurgeOutcome::MoreLeft => deletion.step = Step::From(Monotonic::ZERO),
            PurgeOutcome::Failed => deletion.step = retry,
        }
    }
}

impl Deletion {
    const NEW: Deletion = Deletion { stage: Stage::Data, step: Step::From(Monotonic::ZERO), failures: 0 };

    fn is_waiting(&self, now: Monotonic) -> bool {
        match self.step {
            Step::InFlight => true,
            Step::From(at) => now < at || self.stage == Stage::Nothing,
        }
    }

    fn begin_step(&mut self, topic: TopicId, records: &Records) -> Option<Due> {
        let step = match self.stage {
            Stage::Data => {
                let turn = self.failures % records.brokers.len().max(1);
                let broker = records.brokers.values().nth(turn)?.clone();
                Due::DeleteData { topic, broker }
            }
            Stage::Records => Due::Purge { topic },
            Stage::Nothing => return None,
        };
        self.step = Step::InFlight;
        Some(step)
    }
}

/// Whether a partition of the topic has an owner that is still there, or may get one.
fn is_owned(records: &Records, topic: TopicId) -> bool {
    let range = Records::range_of(topic);
    let mut owners = records.owners.range(range.clone());
    records.intents.range(range).next().is_some()
        || owners.any(|(partition, owner)| records.is_alive(*partition, owner))
}
