//! `bmq produce`: a line, a record.
//!
//! ```text
//!   file or stdin ─▶ a thread that cuts blocks of whole lines ─▶ records ─▶ producer ─▶ deliveries, counted in order
//! ```
//! Lines are slices of the block they were read in: nothing is copied or allocated for a line but by the producer.

mod lines;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bmq_client::{Ack, Compression, Delivery, Error, Producer, ProducerConfig, Record, RecordMetadata};
use bmq_common::wait_for_signal;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::FutureExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::unconstrained;

use crate::exit::{Interrupted, UsageError};
use crate::server::connect;
use lines::Lines;

/// Write records to a topic, a line each, from a file or standard input
///
/// The bytes of a line are the record's value as they are; the newline belongs to no record. A last line without a
/// newline counts. Lines of one partition keep their order; without a key a partition gets a batch of lines, then
/// another one does.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  echo 'a first record' | bmq produce orders
  bmq produce orders --file events.txt --compression lz4
  printf 'alice|40\\nbob|2\\n' | bmq produce orders --key-separator '|'")]
pub struct Arguments {
    /// The topic's name
    topic: String,
    /// Read this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// When a record counts as written: durable in storage, or only in the broker's memory, where it can be lost
    #[arg(long, value_enum, default_value_t = AckArgument::Stored, value_name = "WHEN")]
    ack: AckArgument,
    /// How batches travel and are stored
    #[arg(long, value_enum, default_value_t = CompressionArgument::None, value_name = "CODEC")]
    compression: CompressionArgument,
    /// Write to this partition only
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// What stands between key and value in each line; the key decides the partition
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
}

/// [`Ack`] as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AckArgument {
    Stored,
    Memory,
}

/// [`Compression`] as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArgument {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<AckArgument> for Ack {
    fn from(ack: AckArgument) -> Ack {
        match ack {
            AckArgument::Stored => Ack::Stored,
            AckArgument::Memory => Ack::Memory,
        }
    }
}

impl From<CompressionArgument> for Compression {
    fn from(compression: CompressionArgument) -> Compression {
        match compression {
            CompressionArgument::None => Compression::None,
            CompressionArgument::Gzip => Compression::Gzip,
            CompressionArgument::Snappy => Compression::Snappy,
            CompressionArgument::Lz4 => Compression::Lz4,
            CompressionArgument::Zstd => Compression::Zstd,
        }
    }
}

pub async fn run(server: &str, arguments: Arguments) -> anyhow::Result<()> {
    let template = Template::of(&arguments)?;
    let (input, length) = open(&arguments)?;
    let client = connect(server).await?;
    let config = ProducerConfig {
        ack: arguments.ack.into(),
        compression: arguments.compression.into(),
        ..ProducerConfig::default()
    };
    let producer = client.producer(config)?;
    let mut run = Run::new(producer, arguments.topic, progress(length));
    let sent = tokio::select! {
        sent = run.send_all(Lines::of(input), &template) => sent,
        signal = wait_for_signal() => signal.context("cannot wait for signals").and(Err(Interrupted.into())),
    };
    let finished = tokio::select! {
        finished = run.finish() => finished,
        // The second one: not even what is under way is waited for.
        _ = wait_for_signal() => Err(Interrupted.into()),
    };
    sent.and(finished)
}

/// The input, and how long it is if that is known.
fn open(arguments: &Arguments) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
    let Some(path) = &arguments.file else {
        if io::stdin().is_terminal() {
            eprintln!("Type records, a line each; end with Ctrl-D.");
        }
        return Ok((Box::new(io::stdin()), None));
    };
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = opened.with_context(|| format!("cannot read {}", path.display()))?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

fn progress(length: Option<u64>) -> ProgressBar {
    let (length, template) = match length {
        Some(_) => (length, "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"),
        None => (None, "{spinner} {bytes}, {bytes_per_sec}"),
    };
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant and fits"))
}

/// How a line becomes a record.
struct Template {
    partition: Option<u32>,
    separator: Option<String>,
}

impl Template {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        if arguments.key_separator.as_deref() == Some("") {
            bail!(UsageError("--key-separator must not be empty".to_owned()));
        }
        Ok(Template { partition: arguments.partition, separator: arguments.key_separator.clone() })
    }

    fn record(&self, line: Bytes, number: u64) -> anyhow::Result<Record> {
        let record = Record { partition: self.partition, ..Record::default() };
        let Some(separator) = self.separator.as_deref().map(str::as_bytes) else {
            return Ok(Record { value: Some(line), ..record });
        };
        let Some(at) = line.windows(separator.len()).position(|window| window == separator) else {
            bail!(UsageError(format!("line {number} holds no key separator")));
        };
        let (key, value) = (line.slice(..at), line.slice(at + separator.len()..));
        Ok(Record { key: Some(key), value: Some(value), ..record })
    }
}

/// One run: what was sent, and what has come of it.
struct Run {
    producer: Producer,
    topic: String,
    progress: ProgressBar,
    begun: Instant,
    /// In the order sent. Bounded by the producer's buffer: beyond it `send` waits.
    outstanding: VecDeque<Sent>,
    lines: u64,
    tally: Tally,
}

/// A line without an answer.
struct Sent {
    line: u64,
    bytes: u64,
    delivery: Delivery,
}

/// What has come of the lines so far.
#[derive(Default)]
struct Tally {
    /// Acknowledged.
    records: u64,
    /// Of the acknowledged ones.
    bytes: u64,
    /// Not acknowledged; one whose answer was lost may be written all the same.
    failed: u64,
}

impl Run {
    fn new(producer: Producer, topic: String, progress: ProgressBar) -> Self {
        let (outstanding, begun) = (VecDeque::new(), Instant::now());
        Run { producer, topic, progress, begun, outstanding, lines: 0, tally: Tally::default() }
    }

    /// Sends everything; stops at the first record that was not written.
    async fn send_all(&mut self, mut input: Lines, template: &Template) -> anyhow::Result<()> {
        while let Some(block) = input.next_block().await? {
            for line in lines::split(&block) {
                self.lines += 1;
                self.send(line, template).await?;
            }
            self.collect_answers()?;
            self.progress.inc(block.len() as u64);
        }
        Ok(())
    }

    async fn send(&mut self, line: Bytes, template: &Template) -> anyhow::Result<()> {
        let (number, bytes) = (self.lines, line.len() as u64);
        let record = template.record(line, number)?;
        match self.producer.send(&self.topic, record).await {
            Ok(delivery) => self.outstanding.push_back(Sent { line: number, bytes, delivery }),
            Err(error) => self.tally.count(number, bytes, Err(error))?,
        }
        Ok(())
    }

    /// Takes in the answers that are there already.
    fn collect_answers(&mut self) -> anyhow::Result<()> {
        // Unconstrained, since the runtime would otherwise call an answer that is there "pending" after some hundred.
        while let Some(sent) = self.outstanding.front_mut()
            && let Some(answer) = unconstrained(&mut sent.delivery).now_or_never()
        {
            let (line, bytes) = (sent.line, sent.bytes);
            self.outstanding.pop_front();
            self.tally.count(line, bytes, answer)?;
        }
        Ok(())
    }

    /// Waits for what is under way, and tells how it went, also after a failure.
    async fn finish(mut self) -> anyhow::Result<()> {
        let mut outcome = self.producer.flush().await.context("cannot finish");
        while let Some(sent) = self.outstanding.pop_front() {
            let counted = self.tally.count(sent.line, sent.bytes, sent.delivery.await);
            // The first failure is the one to tell of; the others are counted.
            outcome = outcome.and(counted);
        }
        self.progress.finish_and_clear();
        eprintln!("{}", self.tally.summary(self.begun.elapsed()));
        outcome
    }
}

impl Tally {
    fn count(&mut self, line: u64, bytes: u64, answer: Result<RecordMetadata, Error>) -> anyhow::Result<()> {
        match answer {
            Ok(_) => (self.records, self.bytes) = (self.records + 1, self.bytes + bytes),
            Err(_) => self.failed += 1,
        }
        answer.map(drop).with_context(|| format!("line {line} was not written"))
    }

    /// Counts and rates of what was acknowledged, and how much was not, in one line.
    fn summary(&self, elapsed: Duration) -> String {
        let Tally { records, bytes, failed } = *self;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let mb = bytes as f64 / 1e6;
        let unit = if records == 1 { "record" } else { "records" };
        let failures = if failed == 0 { String::new() } else { format!("; {failed} failed") };
        format!(
            "{records} {unit}, {mb:.1} MB in {seconds:.2} s: {:.0} records/s, {:.1} MB/s{failures}",
            records as f64 / seconds,
            mb / seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use bmq_proto::{ErrorCode, ServiceError};

    use super::*;

    #[test]
    fn lines_become_records() {
        let template =
            |separator: Option<&str>| Template { partition: Some(1), separator: separator.map(str::to_owned) };
        let plain = template(None).record(Bytes::from_static(b"a|b"), 1).unwrap();
        assert_eq!(plain, Record::value("a|b").to_partition(1));
        let keyed = template(Some("||")).record(Bytes::from_static(b"k||v||w"), 1).unwrap();
        assert_eq!(keyed, Record::value("v||w").with_key("k").to_partition(1));
        let error = template(Some("|")).record(Bytes::from_static(b"kv"), 7).unwrap_err();
        assert_eq!(error.to_string(), "line 7 holds no key separator");
    }

    #[test]
    fn the_summary_counts_what_was_written() {
        let mut tally = Tally::default();
        for line in 1..=2_000 {
            tally.count(line, 500, Ok(RecordMetadata { partition: 0, offset: line, deduplicated: false })).unwrap();
        }
        let summary = |tally: &Tally| tally.summary(Duration::from_secs(2));
        assert_eq!(summary(&tally), "2000 records, 1.0 MB in 2.00 s: 1000 records/s, 0.5 MB/s");
        let late: Error = ServiceError::unknown(ErrorCode::Timeout, "too late").into();
        let error = tally.count(2_001, 500, Err(late)).unwrap_err();
        assert_eq!(error.to_string(), "line 2001 was not written");
        assert_eq!(summary(&tally), "2000 records, 1.0 MB in 2.00 s: 1000 records/s, 0.5 MB/s; 1 failed");
    }
}
