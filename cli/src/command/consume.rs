//! `bmq consume`: records, one a line.

use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use bmq_client::{Client, Consumer, ConsumerRecord, StartAt, Subscription};
use bmq_common::wait_for_signal;
use clap::{Args, ValueEnum};
use futures::{FutureExt, StreamExt};
use serde::Serialize;

use crate::exit::{Interrupted, OutputError, UsageError};
use crate::point_in_time::PointInTime;
use crate::server::connect;

/// Written to standard output at once; less when nothing more is there yet.
const WRITE_BYTES: usize = 256 << 10;

/// Show the records of a topic, in order within each partition
///
/// Goes on with new records as they come, until Ctrl-C, unless told where to stop.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  bmq consume orders --from earliest --until-end
  bmq consume orders --partition 2 --from 1000 --max 10 -o json
  bmq consume orders --from latest
  bmq consume orders --from 2026-01-31T18:00:00Z --until-end
  bmq consume orders --from 15m-ago")]
pub struct Arguments {
    /// The topic's name
    topic: String,
    /// Read this partition only; all of them otherwise
    #[arg(long, value_name = "P")]
    partition: Option<u32>,
    /// Where to begin: earliest, latest, a time (2026-01-31T18:00:00Z, 15m-ago), or an offset (with --partition, if the
    /// topic has several)
    #[arg(long, value_name = "WHERE", default_value = "earliest")]
    from: From,
    /// Stop once everything that is there now has been shown
    #[arg(long)]
    until_end: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// How to show a record
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// [`StartAt`] as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(StartAt);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(From(StartAt::Earliest)),
            "latest" => Ok(From(StartAt::Latest)),
            other => match (other.parse(), other.parse()) {
                (Ok(offset), _) => Ok(From(StartAt::Offset(offset))),
                (_, Ok(PointInTime(timestamp_ms))) => Ok(From(StartAt::Timestamp(timestamp_ms))),
                _ => Err("write earliest, latest, an offset, or a time (2026-01-31T18:00:00Z, 15m-ago)".to_owned()),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The value's bytes as they are, and a newline
    Text,
    /// A JSON object a line, with partition, offset, timestamp, key, value and headers
    Json,
}

pub async fn run(server: &str, arguments: Arguments) -> anyhow::Result<()> {
    let client = connect(server).await?;
    let subscriptions = subscriptions(&client, &arguments).await?;
    let consumer = client.consume(subscriptions).await;
    let mut consumer = consumer.with_context(|| format!("cannot read topic {}", arguments.topic))?;
    if arguments.until_end {
        consumer = consumer.until_end().await.context("cannot tell where the topic ends")?;
    }
    let mut printer = Printer::new(arguments.format);
    tokio::select! {
        printed = print_all(consumer, arguments.max, &mut printer) => printed,
        signal = wait_for_signal() => {
            signal.context("cannot wait for signals")?;
            printer.write_out()?;
            bail!(Interrupted)
        }
    }
}

async fn subscriptions(client: &Client, arguments: &Arguments) -> anyhow::Result<Vec<Subscription>> {
    let Arguments { topic, from, .. } = arguments;
    let described = client.admin().describe_topic(topic).await.with_context(|| format!("cannot read topic {topic}"))?;
    let count = described.topic.partitions;
    let partitions = arguments.partition.map_or(0..count, |partition| partition..partition.saturating_add(1));
    if matches!(from.0, StartAt::Offset(_)) && partitions.len() > 1 {
        bail!(UsageError(format!("topic {topic} has {count} partitions, say --partition with an offset")));
    }
    Ok(partitions.map(|partition| Subscription { topic: topic.clone(), partition, start: from.0 }).collect())
}

/// Prints until the stream ends or `max` records were shown. What is shown was written out whenever this waits.
async fn print_all(mut consumer: Consumer, max: Option<u64>, printer: &mut Printer<io::Stdout>) -> anyhow::Result<()> {
    let mut left = max.unwrap_or(u64::MAX);
    while left > 0 {
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.write_out()?;
                consumer.next().await
            }
        };
        let Some(record) = next else {
            break;
        };
        match record {
            Ok(record) => printer.show(&record)?,
            Err(error) => {
                printer.write_out()?;
                return Err(error).context("cannot read on");
            }
        }
        left -= 1;
    }
    printer.write_out()
}

/// Gathers lines and writes many at once.
struct Printer<W> {
    format: Format,
    out: W,
    gathered: Vec<u8>,
}

impl Printer<io::Stdout> {
    fn new(format: Format) -> Self {
        Printer { format, out: io::stdout(), gathered: Vec::with_capacity(2 * WRITE_BYTES) }
    }
}

impl<W: Write> Printer<W> {
    fn show(&mut self, record: &ConsumerRecord) -> anyhow::Result<()> {
        match self.format {
            Format::Text => self.gathered.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            Format::Json => serde_json::to_writer(&mut self.gathered, &ShownRecord::of(record))?,
        }
        self.gathered.push(b'\n');
        if self.gathered.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> anyhow::Result<()> {
        let written = self.out.write_all(&self.gathered).and_then(|()| self.out.flush());
        self.gathered.clear();
        Ok(written.map_err(OutputError)?)
    }
}

/// A record as JSON: text where it is text, hexadecimal digits where it is not.
#[derive(Debug, Serialize)]
struct ShownRecord<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    key: Option<ShownBytes<'a>>,
    value: Option<ShownBytes<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<ShownHeader<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownHeader<'a> {
    key: ShownBytes<'a>,
    value: Option<ShownBytes<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum ShownBytes<'a> {
    Text(&'a str),
    Binary { hex: String },
}

impl<'a> ShownRecord<'a> {
    fn of(record: &'a ConsumerRecord) -> Self {
        let header = |header: &'a bmq_client::Header| ShownHeader {
            key: ShownBytes::of(&header.key),
            value: header.value.as_deref().map(ShownBytes::of),
        };
        ShownRecord {
            topic: &record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref().map(ShownBytes::of),
            value: record.value.as_deref().map(ShownBytes::of),
            headers: record.headers.iter().map(header).collect(),
        }
    }
}

impl<'a> ShownBytes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => ShownBytes::Text(text),
            Err(_) => ShownBytes::Binary { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() },
        }
    }
}

#[cfg(test)]
mod tests {
    use bmq_client::Header;
    use bytes::Bytes;

    use super::*;

    fn record(value: Option<&'static [u8]>) -> ConsumerRecord {
        ConsumerRecord {
            topic: "orders".into(),
            partition: 1,
            offset: 7,
            timestamp_ms: 5,
            key: None,
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    fn check(format: Format, records: &[ConsumerRecord], expect: &str) {
        let mut printer = Printer { format, out: Vec::new(), gathered: Vec::new() };
        records.iter().for_each(|record| printer.show(record).unwrap());
        assert!(printer.out.is_empty(), "written before there was much");
        printer.write_out().unwrap();
        assert_eq!(String::from_utf8(printer.out).unwrap(), expect);
    }

    #[test]
    fn text_is_the_value_and_a_newline() {
        check(Format::Text, &[record(Some(b"a")), record(Some(b"")), record(None)], "a\n\n\n");
    }

    #[test]
    fn json_keeps_what_is_not_text() {
        let mut full = record(Some(b"\xff\x00"));
        full.key = Some(Bytes::from_static(b"k\""));
        full.headers.push(Header { key: Bytes::from_static(b"h"), value: None });
        let head = r#"{"topic":"orders","partition":1,"offset":7,"timestamp_ms":5,"#;
        let plain = format!("{head}{}\n", r#""key":null,"value":"a"}"#);
        let odd = format!("{head}{}\n", r#""key":"k\"","value":{"hex":"ff00"},"headers":[{"key":"h","value":null}]}"#);
        check(Format::Json, &[record(Some(b"a")), full], &(plain + &odd));
    }

    #[test]
    fn much_is_written_before_the_end() {
        let mut printer = Printer { format: Format::Text, out: Vec::new(), gathered: Vec::new() };
        let big = ConsumerRecord { value: Some(Bytes::from(vec![b'x'; WRITE_BYTES])), ..record(None) };
        printer.show(&big).unwrap();
        assert_eq!(printer.out.len(), WRITE_BYTES + 1);
    }

    #[test]
    fn starts_are_typed() {
        assert_eq!("earliest".parse(), Ok(From(StartAt::Earliest)));
        assert_eq!("latest".parse(), Ok(From(StartAt::Latest)));
        assert_eq!("17".parse(), Ok(From(StartAt::Offset(17))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(From(StartAt::Timestamp(1000))));
        assert!("-1".parse::<From>().is_err() && "end".parse::<From>().is_err());
    }
}
