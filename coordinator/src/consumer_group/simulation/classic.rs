//! A consumer process of the classic protocol, eager or cooperative.
//!
//! An eager one gives up everything before it joins. A cooperative one keeps what it has, gives up what its assignment
//! does not have, and then joins again to say so.

use bmq_proto::TopicPartition;
use bmq_proto::coordinator::{GroupHeartbeatRequest, GroupProtocol, JoinGroupRequest, SyncGroupRequest};

use super::super::classic_members::held_of;
use super::super::embedded::{Assignment, Subscription};
use super::super::harness::GROUP;
use crate::assignor::Partitions;
use crate::group::error::GroupError;
use crate::shard::{Request, Response};
use crate::topics::Topics;

#[derive(Debug, Clone)]
pub(super) struct ClassicMember {
    pub id: String,
    pub topics: Vec<&'static str>,
    pub eager: bool,
    pub owned: Partitions,
    told: Partitions,
    generation: i32,
    next: Next,
}

/// What it sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Join,
    Sync,
    Heartbeat,
}

impl ClassicMember {
    pub fn new(topics: Vec<&'static str>, eager: bool) -> Self {
        let nothing = Partitions::new();
        Self {
            id: String::new(),
            topics,
            eager,
            owned: nothing.clone(),
            told: nothing,
            generation: -1,
            next: Next::Join,
        }
    }

    pub fn request(&mut self, topics: &Topics) -> Request {
        let (group, member) = (GROUP.to_owned(), self.id.clone());
        match self.next {
            Next::Join => {
                if self.eager {
                    self.owned.clear();
                }
                // What it has not taken yet it does not take any more: it does not say that it owns it.
                self.told.clone_from(&self.owned);
                let metadata = Subscription::write(&self.topics, &by_name(&self.owned, topics));
                Request::JoinGroup(JoinGroupRequest {
                    group,
                    member,
                    protocol_type: "consumer".to_owned(),
                    protocols: vec![GroupProtocol { name: "p".to_owned(), metadata }],
                    session_timeout_ms: 10_000,
                    rebalance_timeout_ms: 20_000,
                    ..Default::default()
                })
            }
            Next::Sync => Request::SyncGroup(SyncGroupRequest {
                group,
                member,
                generation: self.generation,
                ..Default::default()
            }),
            Next::Heartbeat => Request::GroupHeartbeat(GroupHeartbeatRequest {
                group,
                member,
                generation: self.generation,
                instance: None,
            }),
        }
    }

    pub fn take(&mut self, response: Response, topics: &Topics) {
        let error = match &response {
            Response::JoinGroup(response) => response.error,
            Response::SyncGroup(response) => response.error,
            Response::GroupHeartbeat(response) => response.error,
            other => panic!("{self:?} is answered {other:?}"),
        };
        if error == GroupError::RebalanceInProgress.code() {
            self.next = Next::Join;
        } else if [GroupError::UnknownMemberId, GroupError::IllegalGeneration].map(GroupError::code).contains(&error) {
            self.start_over();
        } else {
            assert_eq!(error, 0, "{self:?} is refused: {response:?}");
            self.go_on(response, topics);
        }
    }

    fn go_on(&mut self, response: Response, topics: &Topics) {
        match response {
            Response::JoinGroup(joined) => {
                assert!(joined.generation >= self.generation, "{self:?} is told an older generation");
                (self.id, self.generation, self.next) = (joined.member, joined.generation, Next::Sync);
            }
            Response::SyncGroup(synced) => {
                let read = Assignment::read(&synced.assignment).expect("an assignment is well formed");
                self.told = held_of(&read.partitions, topics);
                self.next = Next::Heartbeat;
            }
            _ => {}
        }
    }

    /// Gives up everything at once, and joins anew.
    pub fn start_over(&mut self) {
        *self = Self::new(std::mem::take(&mut self.topics), self.eager);
    }

    /// What it asked may have been done, but it did not hear: it asks again.
    pub fn miss_answer(&mut self) {
        if self.id.is_empty() {
            self.start_over();
        }
    }

    /// Gives up what it shall no longer have, and takes what it shall have only then.
    pub fn reconcile(&mut self) {
        if self.next != Next::Heartbeat {
            return;
        }
        if self.owned.is_subset(&self.told) {
            self.owned.clone_from(&self.told);
        } else {
            self.owned = self.owned.intersection(&self.told).copied().collect();
            self.next = Next::Join;
        }
    }
}

fn by_name<'a>(partitions: &Partitions, topics: &'a Topics) -> Vec<(&'a str, u32)> {
    let name = |partition: &TopicPartition| topics.with_id(partition.topic).map(|topic| topic.name.as_str());
    partitions.iter().filter_map(|partition| Some((name(partition)?, partition.partition.0))).collect()
}
