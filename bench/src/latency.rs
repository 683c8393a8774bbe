//! Latencies, counted in a histogram of bounded error, and the figures shown of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Three significant digits, from a microsecond to ten minutes.
const DIGITS: u8 = 3;
const MAX_MICROS: u64 = 600 * 1_000_000;

/// Latencies counted one by one.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What is shown of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyFigures {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_MICROS, DIGITS).expect("the bounds are constants and fit");
        Latencies { histogram }
    }
}

impl Latencies {
    /// Anything beyond ten minutes counts as ten minutes.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
    }

    pub fn add(&mut self, other: &Latencies) {
        self.histogram.add(&other.histogram).expect("both have the same bounds");
    }

    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub fn figures(&self) -> LatencyFigures {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        LatencyFigures { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_histograms_error() {
        let (mut first, mut second) = (Latencies::default(), Latencies::default());
        (1..=500).for_each(|ms| first.record(Duration::from_millis(ms)));
        (501..=1_000).for_each(|ms| second.record(Duration::from_millis(ms)));
        first.add(&second);
        let near = |found: f64, expect: f64| assert!((found / expect - 1.0).abs() < 0.002, "{found} {expect}");
        let figures = first.figures();
        near(figures.p50_ms, 500.0);
        near(figures.p99_ms, 990.0);
        near(figures.p999_ms, 999.0);
        near(figures.max_ms, 1_000.0);
        first.record(Duration::MAX);
        near(first.figures().max_ms, 600_000.0);
        assert_eq!(first.count(), 1_001);
    }
}
