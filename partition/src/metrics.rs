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
        Self::register_as(metrics, "partition")
    }

    /// Those of the internal partitions that a coordinator owns, under names of their own: one process may be a broker
    /// and a coordinator.
    pub fn register_internal(metrics: &Metrics) -> Self {
        Self::register_as(metrics, "internal_partition")
    }

    fn register_as(metrics: &Metrics, service: &str) -> Self {
        let counter = |name: &str, help: &str| metrics.register_counter(&format!("bmq_{service}_{name}"), help);
        let gauge = |name: &str, help: &str| metrics.register_gauge(&format!("bmq_{service}_{name}"), help);
        let histogram = |name: &str, help: &str| metrics.register_histogram(&format!("bmq_{service}_{name}"), help);
        Self {
            appended_batches: counter("appended_batches", "Batches given an offset"),
            appended_bytes: counter("appended_bytes", "Bytes handed to writers"),
            refused_batches: counter("refused_batches", "Batches refused"),
            syncs: counter("syncs_count", "Times that a file's durable end moved"),
            synced_bytes: counter("synced_bytes", "Bytes that became durable"),
            rolls: counter("rolls_count", "Files begun, for any reason"),
            broken_files: counter("broken_files", "Files given up after a failure"),
            alarms: counter("alarms_count", "Times that a person must look"),
            recovery: histogram("recovery_seconds", "From the claim to serving"),
            serving: gauge("serving_count", "Partitions that take appends"),
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
