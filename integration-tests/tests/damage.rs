//! Cleanly stopped data with one bit flipped in every byte in turn.
//!
//! An index, with the producers in it, and a checkpoint can be made again: nobody notices. Of a segment, the batch that
//! a flipped bit lies in is told as damaged, by file and position, and all others are readable.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_client::{Client, ErrorCode, StartAt, Subscription};
use bmq_integration_tests::idempotent::Producer;
use bmq_integration_tests::in_process::InProcess;
use bmq_integration_tests::read_back;
use bmq_meta::store::{MetaStore, Transaction};
use bmq_meta::{MemoryStore, keys};
use bmq_partition::PartitionConfig;
use bmq_proto::meta::{CreateTopic, MetaService, TopicConfig};
use bmq_proto::record_batch::split_batches;
use bmq_proto::rpc::channel;
use bmq_proto::rpc::status::detail_from_public_status;
use bmq_proto::v1;
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_storage::segment::SEGMENT_HEADER_LEN;
use bmq_storage::{FolderPath, LocalStore};
use bytes::Bytes;
use futures::StreamExt;
use tempfile::TempDir;
use tonic::transport::Channel;

const TOPIC: &str = "events";
const PATIENCE: Duration = Duration::from_secs(10);

/// Data of one partition, on which services are started and stopped.
struct Data {
    records: Arc<MemoryStore>,
    folder: TempDir,
    producer: Producer,
}

impl Data {
    /// Writes segments of so many batches, each between a start and a clean stop.
    async fn write(segments: &[u64]) -> Result<Self> {
        let (records, folder) = (Arc::new(MemoryStore::new()), tempfile::tempdir()?);
        let stack = start(&records, folder.path()).await?;
        let topic = CreateTopic { name: TOPIC.to_owned(), partitions: 1, config: TopicConfig::new() };
        let topic = stack.meta.create_topic(topic).await?;
        let partition = topic.partition_ids().next().context("the topic has a partition")?;
        let producer = Producer::new(partition, Default::default());
        stack.stop().await?;
        let mut data = Self { records, folder, producer };
        for batches in segments {
            data.write_segment(*batches).await?;
        }
        Ok(data)
    }

    async fn write_segment(&mut self, batches: u64) -> Result<()> {
        let stack = self.start().await?;
        let mut stream = stack.broker.append_stream().await?;
        for records in 1..=batches {
            self.producer.send(&stream, records).await?;
            let answers = stream.answers.next().await.context("the stream goes on")?;
            ensure!(self.producer.take(&answers[0])? && self.producer.unanswered() == 0, "{:?}", answers[0]);
        }
        drop(stream);
        stack.stop().await
    }

    /// Starts the services, and returns when the partition serves.
    async fn start(&mut self) -> Result<InProcess> {
        let stack = start(&self.records, self.folder.path()).await?;
        let bounds = stack.serving(self.producer.partition(), PATIENCE).await?;
        self.producer.begin_epoch(bounds.epoch);
        Ok(stack)
    }

    /// The files of a segment, by its number.
    async fn files_of(&mut self, number: usize) -> Result<SegmentFiles> {
        let stack = self.start().await?;
        let partition = self.producer.partition();
        let cluster = stack.meta.cluster().await?.cluster;
        let segments = stack.meta.partition(partition).await?.segments;
        stack.stop().await?;
        let segment = FolderPath::new(cluster, partition).segment(segments[number].file);
        let root = self.folder.path();
        let (data, index) = (root.join(segment.data_path()), root.join(segment.index_path()));
        Ok(SegmentFiles { name: segment.data_path(), data, index })
    }

    /// Starts on what is there, and finds everything: the records, and the producer's newest batches.
    async fn assert_whole(&mut self, what: &str) -> Result<()> {
        let stack = self.start().await.with_context(|| what.to_owned())?;
        let records = read_back::by_consumer(&stack.server, TOPIC, 1).await.with_context(|| what.to_owned())?;
        ensure!(records.len() as u64 == self.producer.sent_records(), "{what}: {} records are read", records.len());
        for (sequence, record) in (0..).zip(&records) {
            let is_right = record.offset == sequence && record.payload == self.producer.payload(sequence);
            ensure!(is_right, "{what}: another record is read at offset {sequence}");
        }
        let mut stream = stack.broker.append_stream().await?;
        let known = self.producer.resend(&mut stream).await.with_context(|| what.to_owned())?;
        ensure!(known == 2, "{what}: of the newest two batches {known} are known");
        drop(stream);
        stack.stop().await
    }
}

/// Where a segment's files are.
struct SegmentFiles {
    /// As errors name the data file.
    name: String,
    data: PathBuf,
    index: PathBuf,
}

async fn start(records: &Arc<MemoryStore>, folder: &Path) -> Result<InProcess> {
    let store = Arc::new(LocalStore::open(folder).await?);
    // A checkpoint after each batch.
    let config = PartitionConfig { checkpoint_bytes: bmq_common::ByteSize(1), ..PartitionConfig::default() };
    InProcess::start(records.clone(), store, config).await
}

/// The content with one bit of a byte flipped, another bit in each byte.
fn flipped(content: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = content.to_vec();
    flipped[at] ^= 1 << (at % 8);
    flipped
}

#[tokio::test]
async fn a_damaged_index_is_made_again() -> Result<()> {
    let mut data = Data::write(&[3, 2]).await?;
    let index = data.files_of(1).await?.index;
    let content = std::fs::read(&index)?;
    for at in 0..content.len() {
        std::fs::write(&index, flipped(&content, at))?;
        data.assert_whole(&format!("byte {at} of the newest index")).await?;
        ensure!(std::fs::read(&index)? == content, "byte {at} was not mended");
    }
    println!("{} bytes of the newest index", content.len());
    Ok(())
}

#[tokio::test]
async fn a_damaged_index_of_an_older_segment_hides_nothing() -> Result<()> {
    let mut data = Data::write(&[3, 2]).await?;
    let index = data.files_of(0).await?.index;
    let content = std::fs::read(&index)?;
    for at in 0..content.len() {
        std::fs::write(&index, flipped(&content, at))?;
        data.assert_whole(&format!("byte {at} of the older index")).await?;
    }
    println!("{} bytes of the older index", content.len());
    Ok(())
}

#[tokio::test]
async fn a_damaged_checkpoint_hides_nothing() -> Result<()> {
    let mut data = Data::write(&[3, 2]).await?;
    let key = keys::checkpoint(data.producer.partition());
    let content = data.records.get(&key).await?.context("there is a checkpoint")?.value;
    for at in 0..content.len() {
        let put = Transaction::default().put(&key, flipped(&content, at));
        let _ = data.records.transact(put).await?;
        data.assert_whole(&format!("byte {at} of the checkpoint")).await?;
    }
    println!("{} bytes of the checkpoint", content.len());
    Ok(())
}

/// One batch of the segment under test.
#[derive(Debug, Clone)]
struct Batch {
    bytes: std::ops::Range<usize>,
    offsets: std::ops::Range<u64>,
}

fn batches_of(content: &[u8]) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    let mut position = SEGMENT_HEADER_LEN;
    for batch in split_batches(&Bytes::copy_from_slice(&content[SEGMENT_HEADER_LEN..])) {
        let (header, bytes) = batch?;
        let offsets = header.base_offset().0..header.next_offset().0;
        batches.push(Batch { bytes: position..position + bytes.len(), offsets });
        position += bytes.len();
    }
    Ok(batches)
}

/// What the proxy answers when it is asked for records from an offset on: their offsets, or the error's code and text.
async fn poll(client: &mut MessagingClient<Channel>, producer: &Producer, offset: u64) -> Result<Polled> {
    let position = v1::Position { at: Some(v1::position::At::Offset(offset)) };
    let request = v1::PollRequest { topic: TOPIC.to_owned(), position: Some(position), ..Default::default() };
    let answer = match client.poll(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            let detail = detail_from_public_status(&status);
            return Ok(Polled::Refused { code: detail.code, message: detail.message });
        }
    };
    for record in &answer.records {
        let payload = record.value.as_deref().unwrap_or_default();
        ensure!(payload == producer.payload(record.offset), "another record is read at offset {}", record.offset);
    }
    Ok(Polled::Offsets(answer.records.iter().map(|record| record.offset).collect()))
}

#[derive(Debug, PartialEq)]
enum Polled {
    Offsets(Vec<u64>),
    Refused { code: String, message: String },
}

#[tokio::test]
async fn a_damaged_batch_is_told_and_the_others_are_readable() -> Result<()> {
    let mut data = Data::write(&[3]).await?;
    let files = data.files_of(0).await?;
    let content = std::fs::read(&files.data)?;
    let batches = batches_of(&content)?;
    ensure!(batches.len() == 3, "{batches:?}");
    let stack = data.start().await?;
    let mut client = MessagingClient::new(channel(&stack.server)?);
    for at in 0..content.len() {
        std::fs::write(&files.data, flipped(&content, at))?;
        let damaged = batches.iter().find(|batch| batch.bytes.contains(&at));
        for batch in &batches {
            let polled = poll(&mut client, &data.producer, batch.offsets.start).await?;
            check_polled(&files.name, batch, damaged, &batches, &polled).with_context(|| format!("byte {at}"))?;
        }
    }
    println!("{} bytes of a segment", content.len());
    stack.stop().await
}

/// A damaged batch is refused by name; another one is read, with what follows it up to a damaged one.
fn check_polled(file: &str, batch: &Batch, damaged: Option<&Batch>, batches: &[Batch], polled: &Polled) -> Result<()> {
    let Some(damaged) = damaged.filter(|damaged| damaged.offsets.start >= batch.offsets.start) else {
        let end = batches.last().map_or(0, |last| last.offsets.end);
        ensure!(*polled == Polled::Offsets((batch.offsets.start..end).collect()), "{batch:?}: {polled:?}");
        return Ok(());
    };
    if damaged.offsets != batch.offsets {
        let readable = batch.offsets.start..damaged.offsets.start;
        ensure!(*polled == Polled::Offsets(readable.collect()), "{batch:?}: {polled:?}");
        return Ok(());
    }
    let Polled::Refused { code, message } = polled else { anyhow::bail!("{batch:?} is damaged: {polled:?}") };
    let place = format!("file {file} is damaged at byte {}:", damaged.bytes.start);
    ensure!(code == "DAMAGED" && message.contains(&place), "{code}: {message}");
    Ok(())
}

#[tokio::test]
async fn a_consumer_is_told_of_damage_and_goes_on_behind_it() -> Result<()> {
    let mut data = Data::write(&[3]).await?;
    let files = data.files_of(0).await?;
    let content = std::fs::read(&files.data)?;
    let second = batches_of(&content)?[1].clone();
    std::fs::write(&files.data, flipped(&content, second.bytes.start + 80))?;
    let stack = data.start().await?;
    let end = data.producer.sent_records();
    check_consumers(&stack, &files.name, &second.offsets, end).await?;

    // The index still knows the producer, and what is new is taken.
    let mut stream = stack.broker.append_stream().await?;
    let known = data.producer.resend(&mut stream).await?;
    ensure!(known == 2, "of the newest two batches {known} are known");
    data.producer.send(&stream, 1).await?;
    let answers = stream.answers.next().await.context("the stream goes on")?;
    ensure!(data.producer.take(&answers[0])? && data.producer.unanswered() == 0, "{:?}", answers[0]);
    drop(stream);
    stack.stop().await?;

    // Without its index, too.
    std::fs::remove_file(&files.index)?;
    let stack = data.start().await?;
    check_consumers(&stack, &files.name, &second.offsets, end + 1).await?;
    stack.stop().await
}

/// Consumers are given all records but the damaged ones, and are told of those.
async fn check_consumers(stack: &InProcess, file: &str, damaged: &std::ops::Range<u64>, end: u64) -> Result<()> {
    let client = Client::connect(&stack.server).await?;
    let consume = async |offset: u64| -> Result<Vec<Result<u64, bmq_client::Error>>> {
        let subscriptions = vec![Subscription::from((TOPIC, 0, StartAt::Offset(offset)))];
        let consumer = client.consume(subscriptions).await?.until_end().await?;
        let offsets = consumer.map(|record| record.map(|record| record.offset)).collect();
        tokio::time::timeout(PATIENCE, offsets).await.context("a consumer waits for ever")
    };
    let from_start = consume(0).await?;
    let (told, read) = from_start.split_last().context("something is read")?;
    ensure!(read == (0..damaged.start).map(Ok).collect::<Vec<_>>(), "{read:?}");
    let Err(error) = told else { anyhow::bail!("nothing is told of the damage: {from_start:?}") };
    ensure!(error.code == ErrorCode::Damaged && error.message.contains(file), "{error:?}");
    let behind = consume(damaged.end).await?;
    ensure!(behind == (damaged.end..end).map(Ok).collect::<Vec<_>>(), "{behind:?}");
    Ok(())
}

#[tokio::test]
async fn a_lost_segment_file_is_told() -> Result<()> {
    let mut data = Data::write(&[2, 1]).await?;
    let files = data.files_of(0).await?;
    std::fs::remove_file(&files.data)?;
    let stack = data.start().await?;
    let mut client = MessagingClient::new(channel(&stack.server)?);
    let polled = tokio::time::timeout(PATIENCE, poll(&mut client, &data.producer, 0)).await.context("no answer")??;
    let Polled::Refused { code, message } = &polled else { anyhow::bail!("{polled:?}") };
    ensure!(code == "DAMAGED" && message.contains("does not exist, although the metadata names it"), "{message}");
    let end = data.producer.sent_records();
    let polled = poll(&mut client, &data.producer, end - 1).await?;
    ensure!(polled == Polled::Offsets(vec![end - 1]), "{polled:?}");
    stack.stop().await
}
