//! Looking through all groups for what is no longer needed.

use std::collections::BTreeSet;
use std::time::Duration;

use bmq_proto::TopicId;
use bmq_proto::internal::{GroupDeletedRecord, GroupRecord, group_record};

use super::offsets::expire::RetentionFrom;
use super::step::{Step, record};
use super::{Group, Groups};

/// Records that one sweep makes at most, so that it neither takes long nor fills the queue.
const MOST_RECORDS: usize = 1000;
/// How soon a sweep that had to stop goes on.
const PAUSE: Duration = Duration::from_millis(100);

impl Groups {
    /// Removes expired offsets, and groups without members and offsets.
    pub(super) fn sweep(&mut self, step: &mut Step<'_>) {
        let mut records = Vec::new();
        let mut deleted = Vec::new();
        for (id, group) in &mut self.groups {
            records.extend(group.expire(step).into_iter().map(|kind| record(id, kind)));
            if group.is_needless() {
                records.push(record(id, group_record::Kind::Deleted(GroupDeletedRecord {})));
                deleted.push(id.clone());
            }
            if records.len() >= MOST_RECORDS {
                break;
            }
        }
        for id in &deleted {
            self.drop_group(id);
        }
        let again = if records.len() >= MOST_RECORDS { PAUSE } else { self.config.offsets_retention_check_interval };
        self.next_sweep = Some(step.now + again);
        append_each(records, step);
    }

    /// Forgets offsets of topics that were deleted.
    pub(super) fn forget_topics(&mut self, gone: &BTreeSet<TopicId>, step: &mut Step<'_>) {
        let mut records = Vec::new();
        for (id, group) in &mut self.groups {
            let forgotten =
                group.offsets.forget(|_, commit| commit.topic_id.is_some_and(|topic| gone.contains(&topic)));
            records.extend(forgotten.into_iter().map(|kind| record(id, kind)));
        }
        append_each(records, step);
    }

    /// Without the group from now on; its record says so too.
    pub(super) fn drop_group(&mut self, id: &str) {
        self.groups.remove(id);
        self.wakeups.set(id, None);
    }
}

/// These need not be stored together: each record is small enough for an append, all of them may not be.
fn append_each(records: Vec<GroupRecord>, step: &mut Step<'_>) {
    use prost::Message;
    let most = step.config.max_append_bytes;
    let mut part = Vec::new();
    let mut bytes = 0;
    for record in records {
        let length = record.encoded_len() + 64;
        if bytes + length > most {
            step.append_all(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += length;
        part.push(record);
    }
    step.append_all(part);
}

impl Group {
    /// Without it, nobody would miss anything.
    fn is_needless(&self) -> bool {
        self.offsets.is_empty() && self.membership.is_idle()
    }

    /// Removes offsets that have expired; returns their records.
    fn expire(&mut self, step: &Step<'_>) -> Vec<group_record::Kind> {
        let from = self.membership.retention_from();
        if self.offsets.is_empty() || from == RetentionFrom::Never {
            return Vec::new();
        }
        let used = self.membership.used_topics(step.topics);
        let retention = step.config.offsets_retention;
        self.offsets.forget(|topic, commit| commit.has_expired(from, retention, step.wall) && !used.contains(topic))
    }
}
