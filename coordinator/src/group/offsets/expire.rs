//! Which offsets have outlived their use.

use std::time::Duration;

use bmq_common::clock::WallMillis;
use bmq_proto::coordinator::{TopicPartitionName, TopicPartitionNames};
use bmq_proto::internal::group_record;

use super::{Commit, OffsetTable};

/// Offsets that one record takes away.
const MOST_IN_A_RECORD: usize = 1000;

/// From when on the retention of a group's offsets counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetentionFrom {
    /// It does not: members are there, or about to be.
    Never,
    /// Each offset's commit.
    Commit,
    /// When the group became empty.
    Empty(WallMillis),
}

impl OffsetTable {
    /// Removes what `is_gone` says; returns the records of that.
    pub fn forget(&mut self, is_gone: impl Fn(&str, &Commit) -> bool) -> Vec<group_record::Kind> {
        let gone: Vec<TopicPartitionName> = self
            .iter()
            .filter(|(topic, _, commit)| is_gone(topic, commit))
            .map(|(topic, partition, commit)| TopicPartitionName {
                topic: topic.to_owned(),
                partition,
                topic_id: commit.topic_id_bytes(),
            })
            .collect();
        gone.iter().for_each(|name| self.remove(&name.topic, name.partition));
        let records = gone.chunks(MOST_IN_A_RECORD);
        records.map(|part| group_record::Kind::Forgotten(TopicPartitionNames { partitions: part.to_vec() })).collect()
    }
}

impl Commit {
    /// Whether its time is over. A time of its own, which only old clients ask for, counts whatever the group does.
    pub fn has_expired(&self, from: RetentionFrom, retention: Duration, now: WallMillis) -> bool {
        let from = match (from, self.expires) {
            (RetentionFrom::Never, _) => return false,
            (_, Some(at)) => return at <= now,
            (RetentionFrom::Commit, None) => self.at,
            // A simple consumer or a tool may have committed later.
            (RetentionFrom::Empty(since), None) => since.max(self.at),
        };
        u128::try_from(i128::from(now.0) - i128::from(from.0)).is_ok_and(|age| age >= retention.as_millis())
    }
}
