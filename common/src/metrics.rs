//! The metrics of a process: one registry, filled by each service's `metrics.rs`, read by `/metrics`.
//!
//! Names follow `bmq_<service>_<noun>_<unit>`; a counter's `_total` is added when it is printed.
//! Invariant: a name is registered once, since a scrape with a name twice is refused as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// Upper bounds in seconds: from a local sync to a call that nearly missed its deadline.
const SECONDS: [f64; 16] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Clones share one registry.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registered: Arc<Mutex<Registered>>,
}

#[derive(Debug, Default)]
struct Registered {
    names: BTreeSet<String>,
    registry: Registry,
}

impl Metrics {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts up; `name` is without `_total`.
    pub fn register_counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    pub fn register_gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// A histogram of seconds, from 100 µs to 10 s; `name` ends with `_seconds`.
    pub fn register_histogram(&self, name: &str, help: &str) -> Histogram {
        assert!(name.ends_with("_seconds"), "metric {name} has buckets in seconds");
        self.register(name, help, Histogram::new(SECONDS))
    }

    /// A histogram of something else than seconds.
    pub fn register_histogram_with_bounds(&self, name: &str, help: &str, upper_bounds: &[f64]) -> Histogram {
        self.register(name, help, Histogram::new(upper_bounds.iter().copied()))
    }

    /// Any metric, such as a family with labels, whose clones share their values.
    ///
    /// Panics on a name that is malformed or taken: both are mistakes in the program.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        assert!(is_well_formed(name), "metric name {name} is not bmq_<service>_<noun>_<unit>");
        let mut registered = self.registered.lock();
        assert!(registered.names.insert(name.to_owned()), "metric {name} is registered twice");
        // The registry ends the help with a full stop of its own.
        let help = help.trim_end_matches('.');
        registered.registry.register(name, help, metric.clone());
        metric
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registered.lock().registry).expect("a String takes all that is written to it");
        text
    }
}

fn is_well_formed(name: &str) -> bool {
    let word = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !word.is_empty() && word.bytes().all(plain)
    };
    let words: Vec<&str> = name.split('_').collect();
    words.len() >= 4 && words[0] == "bmq" && words.iter().all(|w| word(w)) && words.last() != Some(&"total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_was_observed() {
        let metrics = Metrics::new();
        metrics.register_counter("bmq_test_calls_count", "Calls.").inc_by(3);
        metrics.register_gauge("bmq_test_open_files", "Files open").set(-2);
        metrics.register_histogram("bmq_test_sync_seconds", "Syncs").observe(0.002);
        metrics.register_histogram_with_bounds("bmq_test_batch_bytes", "Batches", &[10.0]).observe(11.0);
        let text = metrics.encode();
        let check = |line: &str| assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
        check("# HELP bmq_test_calls_count Calls.");
        check("bmq_test_calls_count_total 3");
        check("bmq_test_open_files -2");
        check("bmq_test_sync_seconds_bucket{le=\"0.001\"} 0");
        check("bmq_test_sync_seconds_bucket{le=\"0.0025\"} 1");
        check("bmq_test_batch_bytes_bucket{le=\"+Inf\"} 1");
        check("# EOF");
    }

    #[test]
    fn names_are_checked() {
        let check = |name: &str, expect: bool| assert_eq!(is_well_formed(name), expect, "{name}");
        check("bmq_broker_appended_bytes", true);
        check("bmq_broker_appended_bytes_total", false);
        check("bmq_broker_bytes", false);
        check("kafka_broker_appended_bytes", false);
        check("bmq_broker__bytes", false);
        check("bmq_broker_Appended_bytes", false);
    }

    #[test]
    #[should_panic(expected = "registered twice")]
    fn a_name_is_registered_once() {
        let metrics = Metrics::new();
        metrics.register_gauge("bmq_test_open_files", "Files open");
        metrics.clone().register_gauge("bmq_test_open_files", "Files open");
    }
}
