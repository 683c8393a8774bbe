//! What a coordinator counts, summed over its shards.

use std::time::Duration;

use bmq_common::metrics::{Counter, Gauge, Histogram, Metrics};

use crate::shard::{Holdings, Request};

/// One function per observation.
#[derive(Debug, Clone)]
pub struct CoordinatorMetrics {
    shards: Gauge,
    groups: Gauge,
    members: Gauge,
    offsets: Gauge,
    requests: Counter,
    commits: Counter,
    records: Counter,
    head_reads: Counter,
    snapshots: Counter,
    load: Histogram,
}

impl CoordinatorMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.register_gauge(&format!("bmq_coordinator_{name}"), help);
        let counter = |name: &str, help: &str| metrics.register_counter(&format!("bmq_coordinator_{name}"), help);
        Self {
            shards: gauge("shards_count", "Shards that serve"),
            groups: gauge("groups_count", "Groups of these shards"),
            members: gauge("members_count", "Members of these groups"),
            offsets: gauge("offsets_count", "Offsets that these groups have committed"),
            requests: counter("requests_count", "Requests taken by a shard"),
            commits: counter("commits_count", "Requests to commit offsets"),
            records: counter("records_count", "Records stored"),
            head_reads: counter("head_reads_count", "Reads of a shard's head, each of which lets many answers leave"),
            snapshots: counter("snapshots_count", "Snapshots of a shard's state that became whole"),
            load: metrics.register_histogram(
                "bmq_coordinator_load_seconds",
                "From the recovery of a shard's partition to its state",
            ),
        }
    }

    pub fn asked(&self, request: &Request) {
        self.requests.inc();
        if matches!(request, Request::CommitOffsets(_)) {
            self.commits.inc();
        }
    }

    pub fn appended(&self, records: usize) {
        self.records.inc_by(records as u64);
    }

    pub fn head_read(&self) {
        self.head_reads.inc();
    }

    pub fn snapshot_written(&self) {
        self.snapshots.inc();
    }

    pub fn loaded(&self, took: Duration) {
        self.load.observe(took.as_secs_f64());
    }

    /// A shard begins to serve; its part of the sums ends with the value.
    pub fn shard(&self) -> ShardGauges {
        self.shards.inc();
        ShardGauges { metrics: self.clone(), holdings: Holdings::default() }
    }
}

/// One shard's part of the sums.
#[derive(Debug)]
pub struct ShardGauges {
    metrics: CoordinatorMetrics,
    holdings: Holdings,
}

impl ShardGauges {
    pub fn set(&mut self, holdings: Holdings) {
        let before = std::mem::replace(&mut self.holdings, holdings);
        let change = |gauge: &Gauge, before: usize, now: usize| {
            gauge.inc_by(now as i64 - before as i64);
        };
        change(&self.metrics.groups, before.groups, holdings.groups);
        change(&self.metrics.members, before.members, holdings.members);
        change(&self.metrics.offsets, before.offsets, holdings.offsets);
    }
}

impl Drop for ShardGauges {
    fn drop(&mut self) {
        self.set(Holdings::default());
        self.metrics.shards.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_takes_its_part_of_the_sums_with_it() {
        let metrics = CoordinatorMetrics::register(&Metrics::new());
        let mut first = metrics.shard();
        let mut second = metrics.shard();
        first.set(Holdings { groups: 3, members: 5, offsets: 7 });
        second.set(Holdings { groups: 1, members: 1, offsets: 1 });
        first.set(Holdings { groups: 2, members: 0, offsets: 9 });
        assert_eq!((metrics.groups.get(), metrics.members.get(), metrics.offsets.get()), (3, 1, 10));
        drop(first);
        assert_eq!((metrics.shards.get(), metrics.groups.get(), metrics.offsets.get()), (1, 1, 1));
    }
}
