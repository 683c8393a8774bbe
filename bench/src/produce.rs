//! Load through the SDK: records of one size, sent to the partitions in turn, each timed from when it was due to its
//! acknowledgement.
//!
//! Without a rate a record is due when the one before it was taken: the load is what the server takes (a *closed
//! loop*, bounded by the producer's buffer). With a rate, records are due at fixed times whatever the server does (an
//! *open loop*), so the time that a slow server makes a record wait before it can even be sent is counted.

use std::time::Duration;

use anyhow::{Context, ensure};
use bmq_client::{Admin, Client, ErrorCode, Producer, ProducerConfig, Record};
use bmq_common::Random;
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::latency::Latencies;

/// What records are cut from: as large as keeps them different, and as hard to compress as it gets.
const POOL_BYTES: usize = 4 << 20;

/// How far records of an open loop may be gathered before they are sent, when each alone is due too soon to sleep for.
const TICK: Duration = Duration::from_millis(1);

/// What to send.
#[derive(Clone, Debug)]
pub struct ProduceLoad {
    pub topic: String,
    pub partitions: u32,
    pub record_bytes: usize,
    /// Records a second in all; as many as go without it.
    pub rate: Option<f64>,
    pub duration: Duration,
    /// Producers, each with a connection of its own.
    pub producers: u32,
    pub config: ProducerConfig,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ProduceOutcome {
    pub records: u64,
    pub bytes: u64,
    /// From the first record to the last acknowledgement.
    pub elapsed: Duration,
    pub latencies: Latencies,
}

/// Makes the topic if it is not there; one with another number of partitions is refused.
pub async fn prepare_topic(admin: &Admin, topic: &str, partitions: u32) -> anyhow::Result<()> {
    match admin.create_topic(topic, partitions, Default::default()).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code == ErrorCode::TopicExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot create topic {topic}")),
    }
    let found = admin.describe_topic(topic).await.with_context(|| format!("cannot use topic {topic}"))?;
    let count = found.topic.partitions;
    ensure!(count == partitions, "topic {topic} has {count} partitions, not {partitions}: name another one");
    Ok(())
}

/// Sends for the load's duration and waits for the answers. The first record that fails ends the run.
pub async fn run(client: &Client, load: &ProduceLoad) -> anyhow::Result<ProduceOutcome> {
    let begun = Instant::now();
    let runs = (0..load.producers).map(|number| {
        let producer = client.producer(load.config.clone());
        let load = load.clone();
        async move {
            let run = tokio::spawn(run_producer(producer?, load, number, begun));
            run.await.context("a producer panicked")?
        }
    });
    let mut outcome = ProduceOutcome { records: 0, bytes: 0, elapsed: Duration::ZERO, latencies: Latencies::default() };
    for latencies in try_join_all(runs).await? {
        outcome.latencies.add(&latencies);
    }
    outcome.elapsed = begun.elapsed();
    outcome.records = outcome.latencies.count();
    outcome.bytes = outcome.records * load.record_bytes as u64;
    Ok(outcome)
}

/// A record that was sent: when it was due, and what will tell of it.
type Sent = (Instant, bmq_client::Delivery);

async fn run_producer(producer: Producer, load: ProduceLoad, number: u32, begun: Instant) -> anyhow::Result<Latencies> {
    // One timer for each partition: within one the answers come in order, so each is seen as it comes. What waits
    // here is bounded by the producer's buffer.
    let (queues, timers): (Vec<_>, Vec<_>) = (0..load.partitions)
        .map(|_| {
            let (queue, sent) = mpsc::unbounded_channel();
            (queue, tokio::spawn(time_answers(sent)))
        })
        .unzip();
    let sent = send_until_end(&producer, &load, number, begun, &queues).await;
    drop(queues);
    let flushed = producer.flush().await;
    let mut latencies = Latencies::default();
    for timed in try_join_all(timers).await.context("a timer panicked")? {
        latencies.add(&timed?);
    }
    sent?;
    flushed?;
    Ok(latencies)
}

async fn time_answers(mut sent: mpsc::UnboundedReceiver<Sent>) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    while let Some((due, delivery)) = sent.recv().await {
        delivery.await.context("a record was not written")?;
        latencies.record(due.elapsed());
    }
    Ok(latencies)
}

async fn send_until_end(
    producer: &Producer,
    load: &ProduceLoad,
    number: u32,
    begun: Instant,
    queues: &[mpsc::UnboundedSender<Sent>],
) -> anyhow::Result<()> {
    let mut values = Values::new(load.record_bytes, number);
    let mut schedule = Schedule::new(load, number, begun);
    // Producers begin at different partitions, so that they do not all fill the same one.
    let mut turn = number;
    while let Some(due) = schedule.next().await {
        let partition = turn % load.partitions;
        turn = turn.wrapping_add(1);
        let record = Record::value(values.next()).to_partition(partition);
        let delivery = producer.send(&load.topic, record).await.context("cannot send")?;
        // The timer goes away only after a record has failed: its error tells more.
        if queues[partition as usize].send((due, delivery)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// When records are due.
struct Schedule {
    begun: Instant,
    end: Instant,
    /// Between two records of this producer; none in a closed loop.
    interval: Option<Duration>,
    /// The first record's place, so that producers take turns.
    offset: Duration,
    sent: u32,
    /// When this last woke up. What should have been sent while it slept was late by its own fault.
    awake: Instant,
}

impl Schedule {
    fn new(load: &ProduceLoad, number: u32, begun: Instant) -> Self {
        let interval = load.rate.map(|rate| Duration::from_secs_f64(f64::from(load.producers) / rate));
        let offset = interval.unwrap_or_default() * number / load.producers.max(1);
        Schedule { begun, end: begun + load.duration, interval, offset, sent: 0, awake: begun }
    }

    /// Waits until the next record is due and returns when that was; none after the end. At the end what is overdue is
    /// left out, so that a load that is too much does not go on for ever.
    async fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let Some(interval) = self.interval else {
            return (now < self.end).then_some(now);
        };
        let due = self.begun + self.offset + interval.mul_f64(f64::from(self.sent));
        if due.max(now) >= self.end {
            return None;
        }
        self.sent = self.sent.saturating_add(1);
        if due > now {
            sleep((due - now).max(TICK)).await;
            self.awake = Instant::now();
        }
        Some(due.max(self.awake))
    }
}

/// Values that differ, cut from one pool without copying.
struct Values {
    pool: Bytes,
    record_bytes: usize,
    at: usize,
}

impl Values {
    fn new(record_bytes: usize, seed: u32) -> Self {
        let mut pool = vec![0; POOL_BYTES.max(2 * record_bytes)];
        Random::from_seed(u64::from(seed)).fill(&mut pool);
        Values { pool: pool.into(), record_bytes, at: 0 }
    }

    fn next(&mut self) -> Bytes {
        if self.at + self.record_bytes > self.pool.len() {
            // Not a divisor of anything, so that the same values do not come round.
            self.at = (self.at + 61) % 997 % (self.record_bytes + 1);
        }
        let value = self.pool.slice(self.at..self.at + self.record_bytes);
        self.at += self.record_bytes;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: Option<f64>) -> ProduceLoad {
        ProduceLoad {
            topic: "bench".to_owned(),
            partitions: 4,
            record_bytes: 100,
            rate,
            duration: Duration::from_millis(50),
            producers: 2,
            config: ProducerConfig::default(),
        }
    }

    #[test]
    fn values_have_their_size_and_never_run_out() {
        for record_bytes in [0, 1, 100, POOL_BYTES, POOL_BYTES + 1] {
            let mut values = Values::new(record_bytes, 1);
            assert!((0..3 * POOL_BYTES / (record_bytes + 1)).all(|_| values.next().len() == record_bytes));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_keeps_its_times() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&load(Some(1_000.0)), 1, begun);
        let mut dues = Vec::new();
        while let Some(due) = schedule.next().await {
            dues.push(due - begun);
        }
        let expect: Vec<_> = (0..25).map(|number| Duration::from_millis(1 + 2 * number)).collect();
        assert_eq!(dues, expect);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_server_delays_was_due_all_the_same() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&load(Some(1_000.0)), 0, begun);
        assert_eq!(schedule.next().await, Some(begun));
        sleep(Duration::from_millis(21)).await;
        let overdue = schedule.next().await.unwrap();
        assert_eq!(overdue - begun, Duration::from_millis(2));
        sleep(Duration::from_millis(50)).await;
        assert_eq!(schedule.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_is_always_due_until_the_end() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(&load(None), 0, begun);
        assert_eq!(schedule.next().await, Some(begun));
        sleep(Duration::from_millis(49)).await;
        assert_eq!(schedule.next().await, Some(Instant::now()));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(schedule.next().await, None);
    }
}
