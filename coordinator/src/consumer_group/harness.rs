//! A shard's groups as tests drive them: requests in, answers out, records kept for a reload.

use std::collections::BTreeSet;
use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::coordinator::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, TopicNames, TopicPartitionList, TopicPartitions,
};
use bmq_proto::internal::GroupRecord;
use bmq_proto::meta::{TopicRecord, TopicState};
use bmq_proto::{PartitionId, TopicId, TopicPartition};
use uuid::Uuid;

use super::records::partitions_of;
use crate::assignor::Partitions;
use crate::group::Groups;
use crate::group::config::GroupsConfig;
use crate::shard::{Context, Effect, Now, ReplyToken, Request, Response, ShardState};
use crate::topics::Topics;

/// The group that all tests are about.
pub(super) const GROUP: &str = "orders";

/// What is left of a step when the coordinator dies in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crash {
    /// This many of the step's appends were stored.
    pub appends: usize,
}

/// The groups of one shard.
pub(super) struct Shard {
    pub config: GroupsConfig,
    pub groups: Groups,
    pub topics: Topics,
    pub now: Monotonic,
    stored: Vec<GroupRecord>,
    tokens: u64,
}

impl Shard {
    pub fn new(topics: &[(&str, u32)]) -> Self {
        Self::with_config(GroupsConfig::default(), topics)
    }

    pub fn with_config(config: GroupsConfig, topics: &[(&str, u32)]) -> Self {
        let groups = Groups::new(config.clone(), Uuid::from_u128(1));
        let mut shard =
            Self { config, groups, topics: topics_of(topics), now: Monotonic(1), stored: Vec::new(), tokens: 0 };
        shard.finish_loading();
        shard
    }

    /// Sends a request, and returns all answers that come of it, also those that others have waited for.
    pub fn send(&mut self, request: Request) -> (ReplyToken, Vec<(ReplyToken, Response)>) {
        let (token, effects) = self.handle(request);
        (token, self.perform(effects))
    }

    /// Sends a request that is answered at once.
    pub fn call(&mut self, request: Request) -> Response {
        let (token, mut answers) = self.send(request);
        let place = answers.iter().position(|(answered, _)| *answered == token).expect("it is answered at once");
        answers.swap_remove(place).1
    }

    pub fn heartbeat(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        match self.call(Request::ConsumerGroupHeartbeat(request)) {
            Response::ConsumerGroupHeartbeat(response) => response,
            other => panic!("a heartbeat is answered with {other:?}"),
        }
    }

    pub fn describe(&mut self) -> ConsumerGroupDescribeResponse {
        let request = ConsumerGroupDescribeRequest { group: GROUP.to_owned() };
        match self.call(Request::ConsumerGroupDescribe(request)) {
            Response::ConsumerGroupDescribe(response) => response,
            other => panic!("a describe is answered with {other:?}"),
        }
    }

    /// The coordinator dies while it handles this request, and another one takes over.
    pub fn crash_in(&mut self, request: Request, crash: Crash) {
        let (_, effects) = self.handle(request);
        let appends = effects.into_iter().filter(|effect| matches!(effect, Effect::Append(_)));
        let kept = appends.take(crash.appends).collect();
        self.perform(kept);
        self.restart();
    }

    /// Time passes; whatever is due happens.
    pub fn pass(&mut self, time: Duration) -> Vec<(ReplyToken, Response)> {
        let until = self.now + time;
        let mut answers = Vec::new();
        while let Some(due) = self.groups.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let effects = self.groups.tick(context(self.now, &self.topics));
            answers.extend(self.perform(effects));
        }
        self.now = until;
        answers
    }

    pub fn set_topics(&mut self, topics: &[(&str, u32)]) {
        self.replace_topics(topics_of(topics));
    }

    pub fn replace_topics(&mut self, topics: Topics) {
        self.topics = topics;
        let effects = self.groups.topics_changed(&BTreeSet::new(), context(self.now, &self.topics));
        self.perform(effects);
    }

    /// Another coordinator takes over, and knows what this one knew.
    pub fn reload(&mut self) {
        let before = self.groups.snapshot();
        self.restart();
        assert_eq!(self.groups.snapshot(), before, "a reload makes another state");
        // The same from a snapshot.
        self.stored = before;
        self.restart();
        assert_eq!(self.groups.snapshot(), self.stored, "a snapshot makes another state");
    }

    fn restart(&mut self) {
        self.tokens += 1000;
        self.groups = Groups::new(self.config.clone(), Uuid::from_u128(u128::from(self.tokens) << 64));
        for record in &self.stored {
            self.groups.apply(record.clone()).expect("what was stored makes sense");
        }
        self.finish_loading();
    }

    fn finish_loading(&mut self) {
        let effects = self.groups.finish_loading(context(self.now, &self.topics));
        self.perform(effects);
    }

    fn handle(&mut self, request: Request) -> (ReplyToken, Vec<Effect<GroupRecord>>) {
        self.tokens += 1;
        let token = ReplyToken(self.tokens);
        (token, self.groups.handle(request, token, context(self.now, &self.topics)))
    }

    fn perform(&mut self, effects: Vec<Effect<GroupRecord>>) -> Vec<(ReplyToken, Response)> {
        let mut answers: Vec<(ReplyToken, Response)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append(records) => self.stored.extend(records),
                Effect::Reply { token, response } => {
                    assert!(answers.iter().all(|(answered, _)| *answered != token), "{token:?} is answered twice");
                    answers.push((token, response));
                }
            }
        }
        answers
    }
}

fn context(now: Monotonic, topics: &Topics) -> Context<'_> {
    let wall = i64::try_from(now.0 / 1_000_000).expect("tests are short");
    Context { now: Now { monotonic: now, wall: WallMillis(wall) }, topics }
}

pub(super) fn topics_of(topics: &[(&str, u32)]) -> Topics {
    topics_with_ids(topics.iter().map(|(name, partitions)| (topic_id(name), *name, *partitions)))
}

pub(super) fn topics_with_ids<'a>(topics: impl Iterator<Item = (TopicId, &'a str, u32)>) -> Topics {
    let record = |(id, name, partitions): (TopicId, &str, u32)| TopicRecord {
        id,
        name: name.to_owned(),
        partitions,
        config: Default::default(),
        state: TopicState::Active,
    };
    Topics::of(&topics.map(record).collect::<Vec<_>>())
}

/// A test topic's id is its name.
pub(super) fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    TopicId(id)
}

/// A member's first heartbeat.
pub(super) fn join(member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        rebalance_timeout_ms: Some(60_000),
        subscribed_topics: Some(names(topics)),
        owned: Some(TopicPartitionList::default()),
        ..Default::default()
    }
}

/// A heartbeat that says nothing anew.
pub(super) fn beat(member: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        member_epoch,
        ..Default::default()
    }
}

/// A heartbeat that says what the member owns.
pub(super) fn owning(member: &str, member_epoch: i32, owned: &[(&str, &[u32])]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest { owned: Some(list(owned)), ..beat(member, member_epoch) }
}

pub(super) fn names(topics: &[&str]) -> TopicNames {
    TopicNames { names: topics.iter().map(|name| (*name).to_owned()).collect() }
}

pub(super) fn list(partitions: &[(&str, &[u32])]) -> TopicPartitionList {
    let topics = partitions.iter().map(|(name, numbers)| TopicPartitions {
        topic_id: topic_id(name).0.to_vec().into(),
        partitions: numbers.to_vec(),
        topic: String::new(),
    });
    TopicPartitionList { topics: topics.collect() }
}

/// The partitions of a list that is there.
pub(super) fn set(list: &Option<TopicPartitionList>) -> Partitions {
    partitions_of(Some(list.as_ref().expect("the partitions are given"))).expect("they make sense")
}

pub(super) fn partitions(topic: &str, numbers: impl IntoIterator<Item = u32>) -> Partitions {
    let topic = topic_id(topic);
    numbers.into_iter().map(|number| TopicPartition { topic, partition: PartitionId(number) }).collect()
}
