//! `bmq bench`: measurements, each beside the limit that the machine sets.

use std::time::Duration;

use anyhow::Context;
use bmq_bench::bare_store::{self, BareLoad};
use bmq_bench::produce::{self, ProduceLoad};
use bmq_bench::report::ProduceReport;
use bmq_bench::sync_counters::SyncCounters;
use bmq_client::ProducerConfig;
use bmq_common::{ByteSize, HumanDuration};
use clap::{Args, Subcommand};

use super::produce::{AckArgument, CompressionArgument};
use crate::exit::UsageError;
use crate::output::{Answer, OutputArguments, table};
use crate::process::store::StoreSettings;
use crate::server::connect;

/// Measure how fast it is
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    Produce(Produce),
}

/// Write records as fast as they are taken, or at a given rate, and show MB/s, records/s and latencies
///
/// With --metrics and --compare-store, the bare store then writes groups of the size that the servers' syncs had, to as
/// many files as there were partitions: the limit, on the same machine in the same minute. Its files are removed
/// afterwards.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  bmq bench produce --partitions 16 --record-size 1KiB --duration 30s
  bmq bench produce --rate 20000 --record-size 100
  bmq bench produce --metrics 127.0.0.1:9641 --compare-store file:///tmp/bmq-bare")]
pub struct Produce {
    /// Bytes of each record's value
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    record_size: ByteSize,
    /// How many partitions to write to, in turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: u32,
    /// When a record counts as written
    #[arg(long, value_enum, default_value_t = AckArgument::Stored, value_name = "WHEN")]
    ack: AckArgument,
    /// How batches travel and are stored
    #[arg(long, value_enum, default_value_t = CompressionArgument::None, value_name = "CODEC")]
    compression: CompressionArgument,
    /// Send this many records a second, each timed from when it was due; as many as are taken otherwise
    #[arg(long, value_name = "RECORDS/S")]
    rate: Option<f64>,
    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    duration: HumanDuration,
    /// How long to run before that
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    warm_up: HumanDuration,
    /// How many producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// Bytes that each producer may have without an answer
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    buffer: ByteSize,
    /// How long a batch waits for more records; batches grow by themselves while earlier ones are on their way
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    linger: HumanDuration,
    /// The topic to write to; made if it is not there
    #[arg(long, value_name = "NAME", default_value = "bench")]
    topic: String,
    /// Operators' ports of all processes that run brokers, `host:port`, separated by commas
    #[arg(long, value_name = "ADDRS", value_delimiter = ',')]
    metrics: Vec<String>,
    /// The store to compare with: hdfs://host:port/root or file:///folder, not one that is in use
    #[arg(long, value_name = "URL", requires = "metrics")]
    compare_store: Option<String>,
    #[command(flatten)]
    output: OutputArguments,
}

impl Produce {
    fn load(&self) -> anyhow::Result<ProduceLoad> {
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(UsageError("--rate must be above zero".to_owned()).into());
        }
        let too_large = |_| UsageError("that size does not fit in memory".to_owned());
        Ok(ProduceLoad {
            topic: self.topic.clone(),
            partitions: self.partitions,
            record_bytes: usize::try_from(self.record_size.bytes()).map_err(too_large)?,
            rate: self.rate,
            duration: self.duration.get(),
            producers: self.producers,
            config: ProducerConfig {
                ack: self.ack.into(),
                compression: self.compression.into(),
                buffer_bytes: usize::try_from(self.buffer.bytes()).map_err(too_large)?,
                linger: self.linger.get(),
                ..ProducerConfig::default()
            },
        })
    }
}

pub async fn run(server: &str, command: Command) -> anyhow::Result<()> {
    let Command::Produce(arguments) = command;
    let load = arguments.load()?;
    let client = connect(server).await?;
    produce::prepare_topic(&client.admin(), &load.topic, load.partitions).await?;
    if !arguments.warm_up.get().is_zero() {
        let warm_up = ProduceLoad { duration: arguments.warm_up.get(), ..load.clone() };
        produce::run(&client, &warm_up).await.context("the warm-up failed")?;
    }
    let before = SyncCounters::read(&arguments.metrics).await?;
    let outcome = produce::run(&client, &load).await?;
    let after = SyncCounters::read(&arguments.metrics).await?;
    let mut report = ProduceReport::new(&load, &outcome);
    report.sync_bytes = after.mean_bytes_since(&before);
    if let Some(url) = &arguments.compare_store {
        compare(&mut report, url, load.duration).await?;
    }
    arguments.output.print(&report)
}

async fn compare(report: &mut ProduceReport, url: &str, duration: Duration) -> anyhow::Result<()> {
    let settings = StoreSettings::at(url);
    settings.validate().map_err(UsageError)?;
    let mean_bytes = report.sync_bytes.context("there was no sync to compare with")?;
    let load = BareLoad { files: report.partitions, group_bytes: (mean_bytes.round() as usize).max(1), duration };
    let store = settings.open().await?;
    let outcome = bare_store::run(store.segments.clone(), load).await;
    store.settle().await;
    report.compare(load, &outcome.context("the bare store failed")?);
    Ok(())
}

impl Answer for ProduceReport {
    fn table(&self) -> String {
        let rate = self.rate.map_or_else(|| "as fast as taken".to_owned(), |rate| format!("{rate:.0} records/s"));
        let syncs = self.sync_bytes.map_or_else(String::new, |bytes| format!(", syncs of {bytes:.0} bytes"));
        let ProduceReport { records, record_bytes, partitions, ack, seconds, .. } = self;
        let head = format!(
            "{records} records of {record_bytes} bytes to {partitions} partitions in {seconds:.1} s, \
             {ack} ack, {rate}{syncs}"
        );
        let header = ["", "MB/S", "RECORDS/S", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS"];
        format!("{head}\n\n{}", table(&header, self.rows().into_iter().map(Vec::from)))
    }
}
