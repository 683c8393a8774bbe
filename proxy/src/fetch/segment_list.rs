//! The segment records of partitions that somebody reads from storage, as they were read from the metadata.
//!
//! A record of a CLOSED segment stays true until its file is dropped, which shows when the file is read. What the
//! list says of anything else holds for the head version it was read at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_proto::meta::{MetaService, PartitionView, SegmentRecord};
use bmq_proto::{ErrorCode, Offset, ServiceError, TopicPartition};
use parking_lot::Mutex;

use crate::directory::Directory;

/// Records read at once.
const RECORDS: usize = 256;

/// Partitions whose records are kept.
const PARTITIONS: usize = 4096;

/// The records from one offset on.
#[derive(Debug)]
pub struct SegmentList {
    from: Offset,
    head_version: u64,
    segments: Vec<SegmentRecord>,
}

/// What a list knows of an offset.
#[derive(Debug, PartialEq)]
pub enum Lookup<'a> {
    Closed(&'a SegmentRecord),
    /// In a segment that was open or sealed at this head version.
    NotClosed {
        as_of: u64,
    },
    /// Below every segment that there was at this head version.
    BelowAll {
        as_of: u64,
    },
    /// The list does not reach there.
    Unknown,
}

impl SegmentList {
    /// The view that was read for the offsets from `from` on.
    pub fn new(from: Offset, view: PartitionView) -> Self {
        Self { from, head_version: view.head.version, segments: view.segments }
    }

    pub fn lookup(&self, offset: Offset) -> Lookup<'_> {
        let as_of = self.head_version;
        let after = self.segments.partition_point(|segment| segment.base_offset <= offset);
        let Some(segment) = after.checked_sub(1).map(|index| &self.segments[index]) else {
            let knows = offset >= self.from && !self.segments.is_empty();
            return if knows { Lookup::BelowAll { as_of } } else { Lookup::Unknown };
        };
        match segment.end() {
            Some(end) if end.offset <= offset => Lookup::Unknown,
            Some(_) if segment.is_closed() => Lookup::Closed(segment),
            _ => Lookup::NotClosed { as_of },
        }
    }
}

/// The lists kept.
pub struct SegmentLists {
    meta: Arc<dyn MetaService>,
    directory: Arc<Directory>,
    deadline: Duration,
    lists: Mutex<HashMap<TopicPartition, Arc<SegmentList>>>,
}

impl SegmentLists {
    pub fn new(meta: Arc<dyn MetaService>, directory: Arc<Directory>, deadline: Duration) -> Self {
        Self { meta, directory, deadline, lists: Mutex::default() }
    }

    pub fn get(&self, partition: TopicPartition) -> Option<Arc<SegmentList>> {
        self.lists.lock().get(&partition).cloned()
    }

    /// Reads some records from `from` on, and does not keep them.
    pub async fn read(&self, partition: TopicPartition, from: Offset) -> Result<PartitionView, ServiceError> {
        let read = self.meta.segments_from(partition, from, RECORDS);
        let view = match with_deadline("the metadata service", self.deadline, read).await {
            Ok(result) => result?,
            Err(late) => return Err(ServiceError::not_applied(ErrorCode::Unavailable, late.to_string())),
        };
        self.directory.observe_head(partition, &view.head);
        Ok(view)
    }

    /// Reads the records again, from `from` on.
    pub async fn load(&self, partition: TopicPartition, from: Offset) -> Result<(), ServiceError> {
        let view = self.read(partition, from).await?;
        let mut lists = self.lists.lock();
        if lists.len() >= PARTITIONS
            && !lists.contains_key(&partition)
            && let Some(any) = lists.keys().next().copied()
        {
            lists.remove(&any);
        }
        lists.insert(partition, Arc::new(SegmentList::new(from, view)));
        Ok(())
    }

    /// Forgets what turned out not to hold any more.
    pub fn forget(&self, partition: TopicPartition) {
        self.lists.lock().remove(&partition);
    }
}
