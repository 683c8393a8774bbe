//! Server-side assignors: who of a group's members shall have which partitions.
//!
//! Pure and deterministic: the same members, subscriptions and topics give the same assignment. Each partition of a
//! subscribed topic goes to exactly one of the topic's subscribers.

mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bmq_proto::{TopicId, TopicPartition};

/// Names a member for as long as it lives; shared by everything that refers to it.
pub type MemberId = Arc<str>;

/// A set of partitions, of any topics.
pub type Partitions = BTreeSet<TopicPartition>;

/// A way to assign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Assignor {
    /// Even over all topics together, and sticky: what members have stays with them where it can.
    Uniform,
    /// A range of each topic per member, the same for topics of the same size: they are co-partitioned.
    Range,
}

/// What an assignor knows of a member.
#[derive(Debug, Clone)]
pub struct Subscriber<'a> {
    pub instance: Option<&'a str>,
    /// Topics that exist. Members with equal subscriptions may share one set.
    pub topics: Arc<BTreeSet<TopicId>>,
    /// The member's part of the last assignment.
    pub previous: &'a Partitions,
}

impl Assignor {
    /// The assignor of Kafka's name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// Assigns all partitions of the topics that somebody subscribes to; `sizes` has each topic's number of partitions.
    /// Every member is in the result.
    pub fn assign(
        self,
        members: &BTreeMap<MemberId, Subscriber<'_>>,
        sizes: &BTreeMap<TopicId, u32>,
    ) -> BTreeMap<MemberId, Partitions> {
        match self {
            Self::Uniform => uniform::assign(members, sizes),
            Self::Range => range::assign(members, sizes),
        }
    }
}
