//! What a run of `bmq bench produce` tells.

use std::time::Duration;

use serde::Serialize;

use crate::bare_store::{BareLoad, BareOutcome};
use crate::latency::LatencyFigures;
use crate::produce::{ProduceLoad, ProduceOutcome};

/// The figures of one run; MB are 10⁶ bytes of record values.
#[derive(Clone, Debug, Serialize)]
pub struct ProduceReport {
    pub partitions: u32,
    pub record_bytes: usize,
    pub ack: String,
    /// Records a second that were asked for; none in a closed loop.
    pub rate: Option<f64>,
    pub records: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub mb_per_second: f64,
    #[serde(flatten)]
    pub latency: LatencyFigures,
    /// Mean bytes of the syncs during the run, where the servers' metrics were read.
    pub sync_bytes: Option<f64>,
    /// The bare store, in the same run.
    pub bare: Option<BareReport>,
}

/// The bare store's figures, and how the run compares with them.
#[derive(Clone, Debug, Serialize)]
pub struct BareReport {
    pub files: u32,
    pub group_bytes: usize,
    pub seconds: f64,
    pub mb_per_second: f64,
    #[serde(flatten)]
    pub latency: LatencyFigures,
    /// Of the run's MB/s to the bare store's; none if the run was held to a rate.
    pub throughput_ratio: Option<f64>,
    /// Of the run's median latency to the bare store's; none in a closed loop, where records mostly wait for each other.
    pub p50_ratio: Option<f64>,
}

impl ProduceReport {
    pub fn new(load: &ProduceLoad, outcome: &ProduceOutcome) -> Self {
        let seconds = seconds(outcome.elapsed);
        ProduceReport {
            partitions: load.partitions,
            record_bytes: load.record_bytes,
            ack: format!("{:?}", load.config.ack).to_lowercase(),
            rate: load.rate,
            records: outcome.records,
            seconds,
            records_per_second: outcome.records as f64 / seconds,
            mb_per_second: outcome.bytes as f64 / 1e6 / seconds,
            latency: outcome.latencies.figures(),
            sync_bytes: None,
            bare: None,
        }
    }

    /// Adds the bare store's figures.
    pub fn compare(&mut self, load: BareLoad, outcome: &BareOutcome) {
        let (seconds, latency) = (seconds(outcome.elapsed), outcome.latencies.figures());
        let mb_per_second = outcome.bytes as f64 / 1e6 / seconds;
        self.bare = Some(BareReport {
            files: load.files,
            group_bytes: load.group_bytes,
            seconds,
            mb_per_second,
            latency,
            throughput_ratio: self.rate.is_none().then(|| self.mb_per_second / mb_per_second),
            p50_ratio: self.rate.map(|_| self.latency.p50_ms / latency.p50_ms),
        });
    }

    /// Rows for a table: who, MB/s, records/s, latencies.
    pub fn rows(&self) -> Vec<[String; 7]> {
        let row = |who: &str, mb: f64, records: Option<f64>, latency: LatencyFigures| {
            let records = records.map_or_else(|| "-".to_owned(), |records| format!("{records:.0}"));
            let LatencyFigures { p50_ms, p99_ms, p999_ms, max_ms } = latency;
            let [p50, p99, p999, max] = [p50_ms, p99_ms, p999_ms, max_ms].map(|ms| format!("{ms:.2}"));
            [who.to_owned(), format!("{mb:.2}"), records, p50, p99, p999, max]
        };
        let mut rows = vec![row("bmq", self.mb_per_second, Some(self.records_per_second), self.latency)];
        if let Some(bare) = &self.bare {
            rows.push(row("bare store", bare.mb_per_second, None, bare.latency));
            let dash = || "-".to_owned();
            let ratio = |ratio: Option<f64>| ratio.map_or_else(dash, |ratio| format!("{ratio:.2}x"));
            let [mb, p50] = [bare.throughput_ratio, bare.p50_ratio].map(ratio);
            rows.push(["ratio".to_owned(), mb, dash(), p50, dash(), dash(), dash()]);
        }
        rows
    }
}

/// Never zero, so that rates are finite.
fn seconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use bmq_client::ProducerConfig;

    use super::*;
    use crate::latency::Latencies;

    fn latencies(ms: u64) -> Latencies {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_millis(ms));
        latencies
    }

    #[test]
    fn figures_and_ratios() {
        let load = ProduceLoad {
            topic: "t".to_owned(),
            partitions: 2,
            record_bytes: 1_000,
            rate: None,
            duration: Duration::from_secs(2),
            producers: 1,
            config: ProducerConfig::default(),
        };
        let second = Duration::from_secs(1);
        let outcome = ProduceOutcome { records: 2_000, bytes: 2_000_000, elapsed: 2 * second, latencies: latencies(6) };
        let mut report = ProduceReport::new(&load, &outcome);
        assert_eq!((report.records_per_second, report.mb_per_second, report.ack.as_str()), (1_000.0, 1.0, "stored"));
        assert_eq!(report.rows().len(), 1);
        let bare = BareLoad { files: 2, group_bytes: 4_096, duration: second };
        report.compare(bare, &BareOutcome { bytes: 2_000_000, elapsed: second, latencies: latencies(4) });
        assert_eq!(report.rows()[2], ["ratio", "0.50x", "-", "-", "-", "-", "-"].map(str::to_owned));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["bare"]["throughput_ratio"], 0.5);
        report.rate = Some(1_000.0);
        report.compare(bare, &BareOutcome { bytes: 2_000_000, elapsed: second, latencies: latencies(4) });
        assert_eq!(report.rows()[2], ["ratio", "-", "-", "1.50x", "-", "-", "-"].map(str::to_owned));
        assert!(json["p50_ms"].as_f64().unwrap() > 5.9);
    }
}
