//! What a controller counts.

use bmq_common::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::state::Figures;

/// One function per observation.
#[derive(Clone, Debug)]
pub struct ControllerMetrics {
    held_term: Gauge,
    usable_brokers: Gauge,
    held_brokers: Gauge,
    usable_coordinators: Gauge,
    held_coordinators: Gauge,
    unplaced_partitions: Gauge,
    deleting_topics: Gauge,
    written_intents: Counter,
    failed_steps: Counter,
}

impl ControllerMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.register_gauge(&format!("bmq_controller_{name}"), help);
        let counter = |name: &str, help: &str| metrics.register_counter(&format!("bmq_controller_{name}"), help);
        ControllerMetrics {
            held_term: gauge("held_term", "The term this controller holds, 0 on standby"),
            usable_brokers: gauge("usable_brokers", "Brokers that have a session"),
            held_brokers: gauge("held_brokers", "Brokers that are gone and may yet return to what they have"),
            usable_coordinators: gauge("usable_coordinators", "Coordinators that have a session"),
            held_coordinators: gauge("held_coordinators", "Coordinators that are gone and may yet return"),
            unplaced_partitions: gauge("unplaced_partitions", "Partitions for which there is no node"),
            deleting_topics: gauge("deleting_topics", "Topics under deletion"),
            written_intents: counter("written_intents", "Intents set or removed"),
            failed_steps: counter("failed_steps", "Steps that failed and are tried again"),
        }
    }

    pub fn term_changed(&self, term: Option<bmq_proto::Term>) {
        self.held_term.set(term.map_or(0, |term| i64::try_from(term.0).unwrap_or(i64::MAX)));
    }

    pub fn decided(&self, figures: Figures) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.usable_brokers, figures.usable_brokers);
        set(&self.held_brokers, figures.held_brokers);
        set(&self.usable_coordinators, figures.usable_coordinators);
        set(&self.held_coordinators, figures.held_coordinators);
        set(&self.unplaced_partitions, figures.unplaced_partitions);
        set(&self.deleting_topics, figures.deleting_topics);
    }

    pub fn intents_written(&self, count: usize) {
        self.written_intents.inc_by(count as u64);
    }

    pub fn step_failed(&self) {
        self.failed_steps.inc();
    }
}
