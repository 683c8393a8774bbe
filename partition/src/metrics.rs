//! What partitions count, summed over all partitions of a node.

use bmq_common::metrics::{Counter, Gauge, Histogram, Metrics};

use crate::machine::RollCause;

/// One set per node, shared by its partitions.
#[derive(Debug, Clone)]
pub struct PartitionMetrics {
    appended_batches: Counter,
    appended_bytes: Counter,
    refused_batches: Counter,
    syncs: Counter,
    synced_bytes: Counter,
    rolls: Counter,
    broken_files: Counter,
    alarms: Counter,
    recovery: Histogram,
    serving: Gauge,
}

impl PartitionMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            appended_batches: metrics.register_counter("bmq_partition_appended_batches", "Batches given an offset"),
            appended_bytes: metrics.register_counter("bmq_partition_appended_bytes", "Bytes handed to writers"),
            refused_batches: metrics.register_counter("bmq_partition_refused_batches", "Batches refused"),
            syncs: metrics.register_counter("bmq_partition_syncs_count", "Times that a file's durable end moved"),
            synced_bytes: metrics.register_counter("bmq_partition_synced_bytes", "Bytes that became durable"),
            rolls: metrics.register_counter("bmq_partition_rolls_count", "Files begun, for any reason"),
            broken_files: metrics.register_counter("bmq_partition_broken_files", "Files given up after a failure"),
            alarms: metrics.register_counter("bmq_partition_alarms_count", "Times that a person must look"),
            recovery: metrics.register_histogram("bmq_partition_recovery_seconds", "From the claim to serving"),
            serving: metrics.register_gauge("bmq_partition_serving_count", "Partitions that take appends"),
        }
    }

    pub fn answered(&self, accepted: bool) {
        if accepted {
            self.appended_batches.inc();
        } else {
            self.refused_batches.inc();
        }
    }

    pub fn written(&self, bytes: u64) {
        self.appended_bytes.inc_by(bytes);
    }

    pub fn synced(&self, bytes: u64) {
        self.syncs.inc();
        self.synced_bytes.inc_by(bytes);
    }

    pub fn roll_begun(&self, cause: &RollCause) {
        self.rolls.inc();
        if matches!(cause, RollCause::Broken(_)) {
            self.broken_files.inc();
        }
    }

    pub fn alarm_raised(&self) {
        self.alarms.inc();
    }

    pub fn serving_begun(&self, recovery: std::time::Duration) {
        self.recovery.observe(recovery.as_secs_f64());
        self.serving.inc();
    }

    pub fn serving_ended(&self) {
        self.serving.dec();
    }
}
