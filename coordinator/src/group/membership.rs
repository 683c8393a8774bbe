//! Who is in a group, by the protocol that they speak.

use std::collections::BTreeSet;

use bmq_common::clock::Monotonic;
use bmq_proto::coordinator::{CommitOffsetsRequest, FetchOffsetsRequest, GroupListing};
use bmq_proto::internal::group_record;

use super::classic::{CONSUMER, ClassicGroup};
use super::error::GroupError;
use super::offsets::expire::RetentionFrom;
use super::step::Step;
use crate::consumer_group::ConsumerGroup;
use crate::topics::Topics;

/// Who is in a group. One that never had a member is an empty classic one.
#[derive(Debug)]
pub(crate) enum Membership {
    Classic(ClassicGroup),
    /// KIP-848's.
    Consumer(ConsumerGroup),
}

impl Default for Membership {
    fn default() -> Self {
        Self::Classic(ClassicGroup::default())
    }
}

/// The topics whose offsets members use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsedTopics {
    /// What they subscribe to cannot be read.
    All,
    Named(BTreeSet<String>),
}

impl UsedTopics {
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(topics) => topics.contains(topic),
        }
    }
}

impl Membership {
    pub fn members(&self) -> usize {
        match self {
            Self::Classic(classic) => classic.members.len(),
            Self::Consumer(consumer) => consumer.members(),
        }
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Classic(classic) => classic.is_empty(),
            Self::Consumer(consumer) => consumer.is_empty(),
        }
    }

    /// Whether there are no members, nor any on the way.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Classic(classic) => classic.is_idle(),
            Self::Consumer(consumer) => consumer.is_empty(),
        }
    }

    /// When something is due without a request.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        match self {
            Self::Classic(classic) => classic.next_deadline(),
            Self::Consumer(consumer) => consumer.next_deadline(),
        }
    }

    pub fn tick(&mut self, group: &str, step: &mut Step<'_>) {
        match self {
            Self::Classic(classic) => classic.tick(group, step),
            Self::Consumer(consumer) => consumer.tick(group, step),
        }
    }

    /// Every stored record was applied: members get their time to show that they are alive.
    pub fn finish_loading(&mut self, group: &str, step: &mut Step<'_>) {
        match self {
            Self::Classic(classic) => classic.finish_loading(group, step),
            Self::Consumer(consumer) => consumer.finish_loading(step),
        }
    }

    /// What makes this membership when applied, in order, to an empty group.
    pub fn records(&self) -> Vec<group_record::Kind> {
        match self {
            Self::Classic(classic) => vec![classic.record()],
            Self::Consumer(consumer) => consumer.records(),
        }
    }

    pub fn listing(&self, group: &str) -> GroupListing {
        match self {
            Self::Classic(classic) => classic.listing(group),
            Self::Consumer(consumer) => GroupListing {
                group: group.to_owned(),
                r#type: "consumer".to_owned(),
                state: consumer.state().to_owned(),
                protocol_type: CONSUMER.to_owned(),
            },
        }
    }

    pub fn check_commit(&self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        match self {
            Self::Classic(classic) => classic.check_commit(request),
            Self::Consumer(consumer) => consumer.check_commit(&request.member, request.generation_or_member_epoch),
        }
    }

    /// The classic protocol lets everybody read.
    pub fn check_fetch(&self, request: &FetchOffsetsRequest) -> Result<(), GroupError> {
        match self {
            Self::Classic(_) => Ok(()),
            Self::Consumer(consumer) => consumer.check_fetch(request.member.as_deref(), request.member_epoch),
        }
    }

    /// Whether it can be told which offsets are not in use.
    pub fn check_delete_offsets(&self) -> Result<(), GroupError> {
        match self {
            Self::Classic(classic) if !classic.is_empty() && classic.protocol_type != CONSUMER => {
                Err(GroupError::NonEmptyGroup)
            }
            _ => Ok(()),
        }
    }

    pub fn used_topics(&self, topics: &Topics) -> UsedTopics {
        match self {
            Self::Classic(classic) => classic.used_topics(),
            Self::Consumer(consumer) => UsedTopics::Named(consumer.subscribed_topics(topics)),
        }
    }

    /// From when on the retention of offsets that are not in use counts.
    pub fn retention_from(&self) -> RetentionFrom {
        match self {
            Self::Classic(classic) if classic.protocol_type.is_empty() => RetentionFrom::Commit,
            Self::Classic(classic) if classic.is_empty() => RetentionFrom::Empty(classic.state_since),
            Self::Classic(classic) if classic.is_stable() && classic.protocol_type == CONSUMER => RetentionFrom::Commit,
            Self::Classic(_) => RetentionFrom::Never,
            Self::Consumer(_) => RetentionFrom::Commit,
        }
    }
}
