//! `kill -9` in the middle of a load: all that the client was told is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_client::{Client, Delivery, ProducerConfig, Record};
use bmq_integration_tests::payload::PayloadId;
use bmq_integration_tests::read_back;
use bmq_integration_tests::standalone::Standalone;

const TOPIC: &str = "events";
const PARTITIONS: u32 = 3;
/// Acknowledged before the kill comes, at least; many more are under way then.
const ACKED_BEFORE: usize = 20_000;
const UNDER_WAY: usize = 2_000;

fn id(number: u64) -> PayloadId {
    PayloadId { producer: 0, partition: (number % u64::from(PARTITIONS)) as u32, sequence: number }
}

#[tokio::test]
async fn everything_acknowledged_outlasts_a_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut known = Vec::new();
    for round in 0..3 {
        let standalone = Standalone::start(&data, &[])?;
        if round == 0 {
            standalone.bmq(&["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string()])?;
        }
        load_and_kill(standalone, &mut known, round).await?;
    }
    let standalone = Standalone::start(&data, &[])?;
    let records = read_back::by_consumer(&standalone.server, TOPIC, PARTITIONS).await?;
    let found: std::collections::HashMap<_, _> =
        records.iter().map(|record| ((record.partition, record.offset), &record.payload)).collect();
    for (number, partition, offset) in &known {
        let payload = found.get(&(*partition, *offset)).with_context(|| format!("record {number} is lost"))?;
        ensure!(***payload == id(*number).payload(), "record {number} is not where it was acknowledged");
    }
    println!("{} acknowledged in three rounds, none lost, {} read", known.len(), records.len());
    Ok(())
}

/// Loads until enough is acknowledged, kills the process while more is under way, and notes every answer.
async fn load_and_kill(standalone: Standalone, known: &mut Vec<(u64, u32, u64)>, round: u64) -> Result<()> {
    let client = Client::connect(&standalone.server).await?;
    let timeout = Duration::from_secs(2);
    let producer = client.producer(ProducerConfig { delivery_timeout: timeout, ..ProducerConfig::default() })?;
    let mut standalone = Some(standalone);
    let mut under_way: std::collections::VecDeque<(u64, Delivery)> = Default::default();
    let (mut next, mut acked, mut failed) = (round << 32, 0, 0);
    while standalone.is_some() || !under_way.is_empty() {
        while standalone.is_some() && under_way.len() < UNDER_WAY {
            let id = id(next);
            let record = Record::value(id.payload()).to_partition(id.partition);
            under_way.push_back((next, producer.send(TOPIC, record).await?));
            next += 1;
        }
        let (number, delivery) = under_way.pop_front().context("something is under way")?;
        match delivery.await {
            Ok(metadata) => {
                known.push((number, metadata.partition, metadata.offset));
                acked += 1;
            }
            Err(_) => failed += 1,
        }
        if acked >= ACKED_BEFORE
            && let Some(standalone) = standalone.take()
        {
            standalone.kill()?;
        }
    }
    println!("round {round}: {acked} acknowledged, {failed} under way at the kill");
    ensure!(failed > 0, "nothing was under way at the kill");
    Ok(())
}
