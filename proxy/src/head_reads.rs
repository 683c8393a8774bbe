//! Linearizable reads of partition heads, shared: however many wait, one read serves all that arrived before it began.
//!
//! Invariant: a caller gets only a read that began after the caller did.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_proto::meta::{MetaService, PartitionHead};
use bmq_proto::{ErrorCode, ServiceError, TopicPartition};
use parking_lot::Mutex;

use crate::directory::Directory;
use crate::metrics::ProxyMetrics;

type ReadResult = Result<Arc<PartitionHead>, ServiceError>;

/// See the head of the file.
pub struct HeadReads {
    meta: Arc<dyn MetaService>,
    directory: Arc<Directory>,
    deadline: Duration,
    metrics: ProxyMetrics,
    /// Partitions whose head somebody waits for.
    turns: Mutex<HashMap<TopicPartition, Arc<Turn>>>,
}

#[derive(Default)]
struct Turn {
    /// How many reads were begun.
    begun: AtomicU64,
    /// Held during a read; holds the result of the newest that ended, and its number from 1.
    newest: tokio::sync::Mutex<Option<(u64, ReadResult)>>,
}

impl HeadReads {
    pub fn new(
        meta: Arc<dyn MetaService>,
        directory: Arc<Directory>,
        deadline: Duration,
        metrics: ProxyMetrics,
    ) -> Self {
        Self { meta, directory, deadline, metrics, turns: Mutex::default() }
    }

    /// The head as a read begun after this call shows it. The directory learns it too.
    pub async fn read(&self, partition: TopicPartition) -> ReadResult {
        let turn = Arc::clone(self.turns.lock().entry(partition).or_default());
        let waiting = Waiting { reads: self, partition, turn };
        waiting.read().await
    }

    async fn read_now(&self, partition: TopicPartition) -> ReadResult {
        self.metrics.head_read();
        let head = match with_deadline("the metadata service", self.deadline, self.meta.head(partition)).await {
            Ok(result) => result?,
            Err(late) => return Err(ServiceError::not_applied(ErrorCode::Unavailable, late.to_string())),
        };
        self.directory.observe_head(partition, &head);
        Ok(Arc::new(head))
    }
}

/// A caller; the last to leave removes the partition's turn.
struct Waiting<'a> {
    reads: &'a HeadReads,
    partition: TopicPartition,
    turn: Arc<Turn>,
}

impl Waiting<'_> {
    async fn read(&self) -> ReadResult {
        // Any read with this number or a higher one begins after now.
        let wanted = self.turn.begun.load(Ordering::Acquire) + 1;
        let mut newest = self.turn.newest.lock().await;
        if let Some((number, result)) = &*newest
            && *number >= wanted
        {
            return result.clone();
        }
        // Only the holder of the lock begins a read. One that is cancelled here leaves its number unused.
        let number = self.turn.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let result = self.reads.read_now(self.partition).await;
        *newest = Some((number, result.clone()));
        result
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut turns = self.reads.turns.lock();
        // One reference is the map's, one is ours; others are taken only under this lock.
        if Arc::strong_count(&self.turn) == 2 {
            turns.remove(&self.partition);
        }
    }
}
