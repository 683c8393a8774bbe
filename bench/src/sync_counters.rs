//! How large the syncs of a run were, from the counters that a broker shows at `/metrics`.

use anyhow::{Context, ensure};

use crate::http_get::http_get;

/// Bytes made durable, and the syncs that did it, of all partitions of a process.
const SYNCED_BYTES: &str = "bmq_partition_synced_bytes_total";
const SYNCS: &str = "bmq_partition_syncs_count_total";

/// The counters at one moment, summed over processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncCounters {
    pub bytes: f64,
    pub syncs: f64,
}

impl SyncCounters {
    /// Reads the counters of the processes whose operators' ports (`host:port`) are given.
    pub async fn read(addresses: &[String]) -> anyhow::Result<Self> {
        let mut sum = SyncCounters::default();
        for address in addresses {
            let page = http_get(address, "/metrics").await;
            let page = page.with_context(|| format!("could not read the metrics at {address}"))?;
            ensure!(page.status == 200, "the metrics at {address} answer with status {}", page.status);
            let counters =
                Self::parse(&page.body).with_context(|| format!("the metrics at {address} lack a counter"))?;
            sum.bytes += counters.bytes;
            sum.syncs += counters.syncs;
        }
        Ok(sum)
    }

    /// Mean bytes of a sync between `before` and this moment; none if there was no sync.
    pub fn mean_bytes_since(&self, before: &SyncCounters) -> Option<f64> {
        let syncs = self.syncs - before.syncs;
        (syncs > 0.0).then(|| (self.bytes - before.bytes) / syncs)
    }

    fn parse(page: &str) -> anyhow::Result<Self> {
        Ok(SyncCounters { bytes: sum_of(page, SYNCED_BYTES)?, syncs: sum_of(page, SYNCS)? })
    }
}

/// Sums a counter over its label sets.
fn sum_of(page: &str, name: &str) -> anyhow::Result<f64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole_name = rest.starts_with([' ', '{']);
        is_whole_name.then(|| rest.rsplit(' ').next().unwrap_or_default())
    });
    let values: Vec<f64> = samples.map(str::parse).collect::<Result<_, _>>().with_context(|| name.to_owned())?;
    ensure!(!values.is_empty(), "there is no {name}: is it a broker's address?");
    Ok(values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_labels_and_leaves_longer_names_alone() {
        let page = "# HELP bmq_partition_syncs_count Syncs.\n\
            bmq_partition_synced_bytes_total{topic=\"a b\"} 1000\n\
            bmq_partition_synced_bytes_total{topic=\"c\"} 500\n\
            bmq_partition_syncs_count_total 3\n\
            bmq_partition_syncs_count_total_more 7\n";
        let counters = SyncCounters::parse(page).unwrap();
        assert_eq!(counters, SyncCounters { bytes: 1500.0, syncs: 3.0 });
        assert_eq!(counters.mean_bytes_since(&SyncCounters::default()), Some(500.0));
        assert_eq!(counters.mean_bytes_since(&counters), None);
        assert!(SyncCounters::parse("bmq_partition_syncs_count_total 1\n").is_err());
    }
}
