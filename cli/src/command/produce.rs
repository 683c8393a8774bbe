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
use bmq_client::{Ack, Client, Compression, Delivery, Error, Producer, ProducerConfig, Record, RecordMetadata};
use bmq_common::wait_for_signal;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::FutureExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::unconstrained;

use crate::exit::{Interrupted, UsageError};
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
            CompressionArgument::Lz4 => Compression::Lz4,
            CompressionArgument::Zstd => Compression::Zstd,
        }
    }
}

pub async fn run(server: &str, arguments: Arguments) -> anyhow::Result<()> {
    let template = Template::of(&arguments)?;
    let (input, length) = open(&arguments)?;
    let client = Client::connect(server).await?;
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
    outstanding: VecDeque<Delivery>,
    written: u64,
    lines: u64,
    bytes: u64,
}

impl Run {
    fn new(producer: Producer, topic: String, progress: ProgressBar) -> Self {
        let (outstanding, begun) = (VecDeque::new(), Instant::now());
        Run { producer, topic, progress, begun, outstanding, written: 0, lines: 0, bytes: 0 }
    }

    /// Sends everything; stops at the first record that was not written.
    async fn send_all(&mut self, mut input: Lines, template: &Template) -> anyhow::Result<()> {
        while let Some(block) = input.next_block().await? {
            for line in lines::split(&block) {
                self.lines += 1;
                self.bytes += line.len() as u64;
                let record = template.record(line, self.lines)?;
                let delivery = self.producer.send(&self.topic, record).await;
                self.outstanding.push_back(delivery.with_context(|| format!("cannot write line {}", self.lines))?);
            }
            self.collect_answers()?;
            self.progress.inc(block.len() as u64);
        }
        Ok(())
    }

    /// Takes in the answers that are there already.
    fn collect_answers(&mut self) -> anyhow::Result<()> {
        // Unconstrained, since the runtime would otherwise call an answer that is there "pending" after some hundred.
        while let Some(delivery) = self.outstanding.front_mut()
            && let Some(answer) = unconstrained(delivery).now_or_never()
        {
            self.outstanding.pop_front();
            self.count(answer)?;
        }
        Ok(())
    }

    fn count(&mut self, answer: Result<RecordMetadata, Error>) -> anyhow::Result<()> {
        answer.with_context(|| format!("record {} was not written", self.written + 1))?;
        self.written += 1;
        Ok(())
    }

    /// Waits for what is under way, and tells how it went, also after a failure.
    async fn finish(mut self) -> anyhow::Result<()> {
        let mut outcome = self.producer.flush().await.context("cannot finish");
        while let Some(delivery) = self.outstanding.pop_front() {
            let answer = delivery.await;
            outcome = outcome.and_then(|()| self.count(answer));
        }
        self.progress.finish_and_clear();
        eprintln!("{}", summary(self.written, self.bytes, self.begun.elapsed()));
        outcome
    }
}

/// Counts and rates, in one line.
fn summary(records: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let mb = bytes as f64 / 1e6;
    let unit = if records == 1 { "record" } else { "records" };
    format!(
        "{records} {unit}, {mb:.1} MB in {seconds:.2} s: {:.0} records/s, {:.1} MB/s",
        records as f64 / seconds,
        mb / seconds
    )
}

#[cfg(test)]
mod tests {
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
        let text = summary(2_000, 1_000_000, Duration::from_secs(2));
        assert_eq!(text, "2000 records, 1.0 MB in 2.00 s: 1000 records/s, 0.5 MB/s");
    }
}
