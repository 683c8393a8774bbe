//! What a metadata service counts.

use bmq_common::Metrics;
use bmq_proto::{Happened, ServiceError};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Counts from the start on; operators see it once it is registered. Clones share their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetaMetrics {
    commands: Family<CommandLabels, Counter>,
    conflicts: Counter,
    watch_subscribers: Gauge,
    open_sessions: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    kind: &'static str,
    outcome: &'static str,
}

impl MetaMetrics {
    pub(crate) fn register(&self, metrics: &Metrics) {
        metrics.register("bmq_meta_partition_commands", "Commands about partitions", self.commands.clone());
        let conflicts = "Transactions that found their records changed, and were tried again";
        metrics.register("bmq_meta_transaction_conflicts", conflicts, self.conflicts.clone());
        metrics.register("bmq_meta_watch_subscribers", "Watches open at this process", self.watch_subscribers.clone());
        let sessions = "Sessions open in the cluster, as this process has seen last";
        metrics.register("bmq_meta_open_sessions", sessions, self.open_sessions.clone());
    }

    pub(crate) fn command_answered<T>(&self, kind: &'static str, answer: &Result<T, ServiceError>) {
        let outcome = match answer {
            Ok(_) => "applied",
            Err(ServiceError { happened: Happened::NotApplied, .. }) => "refused",
            Err(ServiceError { happened: Happened::Unknown, .. }) => "unknown",
        };
        self.commands.get_or_create(&CommandLabels { kind, outcome }).inc();
    }

    pub(crate) fn conflict_found(&self) {
        self.conflicts.inc();
    }

    pub(crate) fn sessions_seen(&self, count: usize) {
        self.open_sessions.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts one subscriber for as long as the answer lives.
    pub(crate) fn count_subscriber(&self) -> Subscriber {
        self.watch_subscribers.inc();
        Subscriber(self.watch_subscribers.clone())
    }
}

/// Counted while it lives.
pub(crate) struct Subscriber(Gauge);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.dec();
    }
}
