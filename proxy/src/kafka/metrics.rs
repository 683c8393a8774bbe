//! What the Kafka edge counts.

use std::time::Duration;

use bmq_common::Metrics;
use bmq_kafka::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Level;

/// The metrics of the Kafka edge.
#[derive(Clone, Debug)]
pub struct KafkaMetrics {
    connections: Gauge,
    received_bytes: Counter,
    sent_bytes: Counter,
    refused_requests: Counter,
    request_seconds: Family<ApiLabels, Histogram>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ApiLabels {
    /// The request's name in Kafka's protocol.
    api: String,
}

/// Upper bounds in seconds: from a request answered from memory to a long poll.
const SECONDS: [f64; 12] = [0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

impl KafkaMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register_counter(name, help);
        let request_seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        Self {
            connections: metrics.register_gauge("bmq_proxy_kafka_connections", "Connections of Kafka clients"),
            received_bytes: counter("bmq_proxy_kafka_received_bytes", "Bytes of requests of Kafka clients"),
            sent_bytes: counter("bmq_proxy_kafka_sent_bytes", "Bytes of answers to Kafka clients"),
            refused_requests: counter(
                "bmq_proxy_kafka_refused_requests",
                "Requests of Kafka clients that could not be read or are not supported",
            ),
            request_seconds: metrics.register(
                "bmq_proxy_kafka_request_seconds",
                "Time from a request's arrival to its answer, waits included",
                request_seconds,
            ),
        }
    }

    pub fn connection_open(&self) -> Level {
        Level::raise(&self.connections)
    }

    pub fn bytes_received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    pub fn bytes_sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub fn request_refused(&self) {
        self.refused_requests.inc();
    }

    pub fn request_answered(&self, api: ApiKey, after: Duration) {
        let labels = ApiLabels { api: format!("{api:?}") };
        self.request_seconds.get_or_create(&labels).observe(after.as_secs_f64());
    }
}
