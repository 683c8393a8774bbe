//! The load: producers that send to every partition at a steady pace, as far as answers come, and a consumer that follows
//! it all. Whatever either is told goes into the journal.
//!
//! One task sends one producer's records of one partition, so that the order of sending is known. What is outstanding
//! is bounded for each of them, so that a partition without answers neither grows nor holds up the others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_client::{Client, Consumer, Delivery, Error, Producer, ProducerConfig, Record, StartAt, Subscription};
use bmq_common::{Clock, Shutdown, SystemClock};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::ack_journal::{Entry, JournalWriter};
use crate::payload::PayloadId;

/// Records of one producer and partition that may be without an answer.
const WINDOW: usize = 64;

/// Entries on their way to the journal.
const QUEUED_ENTRIES: usize = 4096;

/// How long a record may go without an answer. Shorter than a test's patience, longer than any takeover.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// What to do, as the load's process is told in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPlan {
    /// Proxies; producers are spread over them.
    pub servers: Vec<String>,
    pub topic: String,
    pub partitions: u32,
    pub idempotent_producers: u32,
    pub other_producers: u32,
    /// Between two records of one producer to one partition.
    pub pause_ms: u64,
    pub journal: PathBuf,
}

/// Runs until `stop` begins, and then until every record has its answer.
pub async fn run(plan: LoadPlan, stop: Shutdown) -> Result<()> {
    ensure!(!plan.servers.is_empty(), "no server is named");
    let (entries, queue) = mpsc::channel(QUEUED_ENTRIES);
    let journal = JournalWriter::create(&plan.journal)?;
    let writing = tokio::spawn(write_journal(journal, queue));
    entries.send(began(&plan)).await.context("the journal ended")?;

    let following = tokio::spawn(follow(plan.clone(), entries.clone()));
    let mut sending = JoinSet::new();
    for producer in 0..plan.idempotent_producers + plan.other_producers {
        let server = &plan.servers[producer as usize % plan.servers.len()];
        let client = Client::connect(server).await.with_context(|| format!("connecting to {server}"))?;
        let idempotent = producer < plan.idempotent_producers;
        let config = ProducerConfig { idempotent, delivery_timeout: DELIVERY_TIMEOUT, ..ProducerConfig::default() };
        let handle = client.producer(config)?;
        for partition in 0..plan.partitions {
            let next = PayloadId { producer, partition, sequence: 0 };
            let (topic, pause) = (plan.topic.as_str().into(), Duration::from_millis(plan.pause_ms));
            let sender = Sender { handle: handle.clone(), topic, next, pause, entries: entries.clone() };
            sending.spawn(sender.run(stop.clone()));
        }
    }
    while let Some(ended) = sending.join_next().await {
        ended??;
    }
    following.abort();
    drop(entries);
    // The follower's own handle goes with its task.
    let _ = following.await;
    writing.await?
}

fn began(plan: &LoadPlan) -> Entry {
    let LoadPlan { topic, partitions, idempotent_producers, .. } = plan.clone();
    Entry::Began { topic, partitions, idempotent_producers }
}

/// Writes what comes, and shows it to readers whenever nothing more waits.
async fn write_journal(mut journal: JournalWriter, mut queue: mpsc::Receiver<Entry>) -> Result<()> {
    while let Some(entry) = queue.recv().await {
        journal.append(&entry)?;
        if queue.is_empty() {
            journal.flush()?;
        }
    }
    journal.flush()
}

/// Sends one producer's records of one partition.
struct Sender {
    handle: Producer,
    topic: Arc<str>,
    next: PayloadId,
    pause: Duration,
    entries: mpsc::Sender<Entry>,
}

impl Sender {
    async fn run(mut self, stop: Shutdown) -> Result<()> {
        let mut outstanding = FuturesUnordered::new();
        let mut pace = tokio::time::interval(self.pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let sends = !stop.is_begun();
            if !sends && outstanding.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = stop.begun(), if sends => {}
                Some(entry) = outstanding.next() => self.note(entry).await?,
                _ = pace.tick(), if sends && outstanding.len() < WINDOW => match self.send().await {
                    Ok(answer) => outstanding.push(answer),
                    Err(entry) => self.note(entry).await?,
                },
            }
        }
    }

    /// Sends the next record, and returns what will become of it.
    async fn send(&mut self) -> Result<impl Future<Output = Entry> + use<>, Entry> {
        let id = self.next;
        self.next.sequence += 1;
        let sent_at = now_ms();
        let record = Record::value(id.payload()).to_partition(id.partition);
        match self.handle.send(&self.topic, record).await {
            Ok(delivery) => Ok(answer_to(id, sent_at, delivery)),
            Err(error) => Err(failure(id, sent_at, &error)),
        }
    }

    async fn note(&self, entry: Entry) -> Result<()> {
        self.entries.send(entry).await.context("the journal ended")
    }
}

async fn answer_to(id: PayloadId, sent_at: i64, delivery: Delivery) -> Entry {
    match delivery.await {
        Ok(written) => {
            let (offset, deduplicated) = (written.offset, written.deduplicated);
            Entry::Acked { id, offset, deduplicated, sent_at, acked_at: now_ms() }
        }
        Err(error) => failure(id, sent_at, &error),
    }
}

fn failure(id: PayloadId, sent_at: i64, error: &Error) -> Entry {
    let (failed_at, text) = (now_ms(), format!("{:?}: {error}", error.code));
    if error.may_have_been_applied {
        Entry::Unknown { id, sent_at, failed_at, error: text }
    } else {
        Entry::Refused { id, sent_at, failed_at, error: text }
    }
}

fn now_ms() -> i64 {
    SystemClock.wall().0
}

/// Reads everything while it comes, and begins anew where it was after a failure.
async fn follow(plan: LoadPlan, entries: mpsc::Sender<Entry>) -> Result<()> {
    let mut next = vec![0; plan.partitions as usize];
    loop {
        let failed = follow_until_failure(&plan, &mut next, &entries).await;
        let Err(error) = failed;
        entries.send(Entry::Interrupted { at: now_ms(), error: error.to_string() }).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Never ends well.
async fn follow_until_failure(
    plan: &LoadPlan,
    next: &mut [u64],
    entries: &mpsc::Sender<Entry>,
) -> Result<std::convert::Infallible> {
    let mut consumer = subscribe(plan, next).await?;
    loop {
        let record = consumer.next().await.context("the consumer ended")??;
        let id = record.value.as_deref().and_then(PayloadId::parse);
        next[record.partition as usize] = record.offset + 1;
        entries.send(Entry::Seen { partition: record.partition, offset: record.offset, id }).await?;
    }
}

async fn subscribe(plan: &LoadPlan, next: &[u64]) -> Result<Consumer> {
    let server = plan.servers.last().context("no server is named")?;
    let client = Client::connect(server).await?;
    let subscription = |(partition, offset): (usize, &u64)| {
        let partition = u32::try_from(partition).expect("there are few partitions");
        Subscription::from((plan.topic.as_str(), partition, StartAt::Offset(*offset)))
    };
    Ok(client.consume(next.iter().enumerate().map(subscription).collect()).await?)
}
