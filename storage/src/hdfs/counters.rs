//! What an HDFS store counts of itself, to be read by its owner at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn increment(&self) {
        self.add(1);
    }
}

/// Counts since the store was connected.
#[derive(Debug, Default)]
pub struct HdfsCounters {
    /// Files whose creation the NameNode confirmed in time.
    pub creates: Count,
    /// Creations refused, failed, or given up at the deadline.
    pub create_failures: Count,
    /// Groups of appends written and synced, each with one sync.
    pub syncs: Count,
    /// The bytes in them.
    pub synced_bytes: Count,
    /// How long they took together, in nanoseconds.
    pub sync_nanos: Count,
    /// Writers that broke because another owner fenced their file.
    pub broken_by_fence: Count,
    /// Writers that broke because a deadline passed.
    pub broken_by_deadline: Count,
    /// Writers that broke because of any other error.
    pub broken_by_error: Count,
    /// Writers that were dropped while healthy.
    pub abandoned: Count,
    /// Files closed by their writer.
    pub closes: Count,
    /// Abandoned and broken files that were then closed by lease recovery, or found gone.
    pub recovered: Count,
    /// Files that were left to the NameNode because they did not close, or because too many waited.
    pub given_up: Count,
    /// Reads that failed on a reader known from before and were tried on a new one.
    pub reads_reopened: Count,
}

impl HdfsCounters {
    pub(super) fn count_sync(&self, bytes: u64, took: Duration) {
        self.syncs.increment();
        self.synced_bytes.add(bytes);
        self.sync_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}
