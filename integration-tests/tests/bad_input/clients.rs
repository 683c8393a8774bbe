//! Clients that are many, or do not do their part.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_client::{Client, Compression, ProducerConfig, Record};
use bmq_integration_tests::one_partition::batch_of;
use bmq_proto::v1::{self, fetch_request, produce_batch, produce_request};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::{TOPIC, Target};

const IDLE: usize = 1_000;
/// Readers that ask for everything at once, and what each may hold of it.
const READERS: u64 = 20;
const MIB_FOR_A_READER: u64 = 40;
const STORED_BYTES: usize = 100 << 20;
const VALUE_BYTES: usize = 100 << 10;

#[test]
fn a_thousand_idle_connections_hinder_nobody() -> Result<()> {
    let target = Target::start()?;
    let before = target.standalone.resident_bytes()?;
    let mut idle = Vec::new();
    for number in 0..IDLE {
        let mut stream = TcpStream::connect(&target.standalone.server).with_context(|| format!("number {number}"))?;
        // Half of them are HTTP/2 clients that say no more than that.
        if number % 2 == 0 {
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        }
        idle.push(stream);
    }
    for number in 0..5 {
        let name = format!("beside-{number}");
        target.standalone.bmq(&["topic", "create", &name])?;
        target.standalone.bmq(&["topic", "delete", &name])?;
    }
    let each = (target.standalone.resident_bytes()?.saturating_sub(before)) / IDLE as u64;
    println!("{each} bytes for each of {} connections", idle.len());
    target.assert_well(300)
}

/// Writes so much that no buffer on the way holds it.
async fn store_much(target: &Target) -> Result<()> {
    let client = Client::connect(&target.standalone.server).await?;
    let config = ProducerConfig { compression: Compression::None, ..ProducerConfig::default() };
    let producer = client.producer(config)?;
    for _ in 0..STORED_BYTES / VALUE_BYTES {
        drop(producer.send(TOPIC, Record::value(vec![b'.'; VALUE_BYTES]).to_partition(0)).await?);
    }
    Ok(producer.close().await?)
}

#[tokio::test]
async fn readers_that_do_not_read_hold_bounded_memory() -> Result<()> {
    let target = Target::start()?;
    store_much(&target).await?;
    let before = target.standalone.resident_bytes()?;
    let mut held = Vec::new();
    for _ in 0..READERS {
        // Each on a connection of its own, with credit for everything.
        let mut client = target.messaging()?;
        let (frames, receiver) = mpsc::channel(1);
        let earliest = Some(v1::Position { at: Some(v1::position::At::Earliest(v1::Edge {})) });
        let positions = vec![v1::PartitionPosition { topic: TOPIC.to_owned(), partition: 0, position: earliest }];
        let open = v1::FetchOpen { positions, credit_bytes: 1 << 40, ..Default::default() };
        frames.send(v1::FetchRequest { frame: Some(fetch_request::Frame::Open(open)) }).await?;
        let answers = client.fetch(ReceiverStream::new(receiver)).await?.into_inner();
        held.push((frames, answers));
    }
    // Whoever reads gets all of it meanwhile.
    let consumed = target.standalone.bmq(&["consume", TOPIC, "--partition", "0", "--until-end"])?;
    ensure!(consumed.len() == STORED_BYTES / VALUE_BYTES * (VALUE_BYTES + 1), "{} bytes", consumed.len());
    let each = target.standalone.peak_resident_bytes()?.saturating_sub(before) >> 20;
    println!("{} MiB before, {} MiB for each reader", before >> 20, each / READERS);
    ensure!(each / READERS <= MIB_FOR_A_READER, "{} MiB for each reader", each / READERS);
    target.assert_well(1_000)
}

#[tokio::test]
async fn a_writer_that_reads_no_answers_is_stopped_at_its_credit() -> Result<()> {
    let target = Target::start()?;
    let (frames, receiver) = mpsc::channel(1);
    let open = v1::ProduceOpen { ack: v1::Ack::Stored.into(), idempotent: false };
    frames.send(v1::ProduceRequest { frame: Some(produce_request::Frame::Open(open)) }).await?;
    let mut answers = target.messaging()?.produce(ReceiverStream::new(receiver)).await?.into_inner();
    let batch = batch_of(&".".repeat(VALUE_BYTES));
    let send = async {
        for sequence in 0..(4 * STORED_BYTES / VALUE_BYTES) as u64 {
            let payload = Some(produce_batch::Payload::Batch(batch.clone()));
            let batch = v1::ProduceBatch { sequence, topic: TOPIC.to_owned(), partition: 0, payload };
            let frame = v1::ProduceRequest { frame: Some(produce_request::Frame::Batch(batch)) };
            if frames.send(frame).await.is_err() {
                return sequence;
            }
        }
        u64::MAX
    };
    // It stops reading from a client that goes beyond its credit, or ends the stream.
    let sent = tokio::time::timeout(Duration::from_secs(5), send).await;
    println!("sent before the stream ended: {sent:?}");
    ensure!(sent != Ok(u64::MAX), "the server took everything without a word read");
    // The reason is there for whoever reads after all.
    let mut refusal = None;
    while refusal.is_none() {
        match tokio::time::timeout(Duration::from_secs(10), answers.message()).await.context("no reason is told")? {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(status) => refusal = Some(status),
        }
    }
    println!("told: {refusal:?}");
    let refusal = refusal.context("the stream ended without a reason")?;
    ensure!(refusal.message().contains("credit"), "{refusal:?}");
    target.assert_well(400)
}
