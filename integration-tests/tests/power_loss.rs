//! The whole stack of `bmq standalone` on disks that lose power: whatever was acknowledged as stored is read back at its
//! offset, and producers are still known.
//!
//! Each seed is a machine's life with a loss of power in the middle of its work; for some a second one, which loses
//! power while it recovers; and a last one, which reads everything back. Both disks, the segments' and the metadata's,
//! lose power at the same instant; for a third of the seeds the metadata's stops some operations earlier. What is left
//! of unsynced pages and names follows from the seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bmq_common::{ByteSize, HumanDuration, Random};
use bmq_integration_tests::idempotent::Producer;
use bmq_integration_tests::in_process::InProcess;
use bmq_integration_tests::read_back;
use bmq_meta::store::RedbStore;
use bmq_meta::store::power_loss::PowerLossDisk as MetadataDisk;
use bmq_partition::PartitionConfig;
use bmq_proto::TopicPartition;
use bmq_proto::meta::{CreateTopic, MetaService, TopicConfig};
use bmq_storage::LocalStore;
use bmq_storage::disk::PowerLossDisk;
use bmq_storage::local::Mutant;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

const SEEDS: u64 = 500;
/// A broken rule must be caught within this many.
const MUTANT_SEEDS: u64 = 30;
/// Seeds run side by side.
const THREADS: usize = 3;

const TOPIC: &str = "events";
const PARTITIONS: u32 = 3;
/// What a life writes at most.
const RECORDS: u64 = 1_500;
/// An answer takes so long only if there will be none.
const SILENCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// One machine: two disks, and whether they have power.
struct Machine {
    segments: PowerLossDisk,
    metadata: MetadataDisk,
    random: Random,
    lost: Arc<PowerLost>,
    mutant: Option<Mutant>,
}

#[derive(Default)]
struct PowerLost {
    is_lost: AtomicBool,
    notify: Notify,
}

impl Machine {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let (segments, metadata) = (PowerLossDisk::new(seed), MetadataDisk::new());
        let lost = Arc::new(PowerLost::default());
        segments.at_loss_of_power({
            let (metadata, lost, random) = (metadata.clone(), Arc::clone(&lost), Random::from_seed(seed ^ 0x5eed));
            move || {
                metadata.lose_power(&random);
                lost.is_lost.store(true, Ordering::SeqCst);
                lost.notify.notify_one();
            }
        });
        Self { segments, metadata, random: Random::from_seed(!seed), lost, mutant }
    }

    async fn start(&self, config: PartitionConfig) -> Result<InProcess> {
        let store = LocalStore::open_on(self.segments.boot(), "/data/segments").await?;
        let store = match self.mutant {
            Some(mutant) => store.with_mutant(mutant),
            None => store,
        };
        let disk = self.metadata.clone();
        let records = RedbStore::open_backend("meta.redb", move || disk.open()).await?;
        InProcess::start(Arc::new(records), Arc::new(store), config).await
    }

    /// Runs one life, and ends it with a loss of power.
    fn live<T>(&self, life: impl Future<Output = Result<T>>) -> Result<T> {
        self.lost.is_lost.store(false, Ordering::SeqCst);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(life);
        if !self.lost.is_lost.load(Ordering::SeqCst) {
            self.segments.lose_power();
        }
        // What still runs is cut off where it stands, as it is by a loss of power.
        runtime.shutdown_background();
        outcome
    }

    /// Small segments and many checkpoints, so that power is lost in the middle of everything.
    fn config(&self) -> PartitionConfig {
        let idle_after = HumanDuration::millis([3, 60_000][self.random.below(2) as usize]);
        PartitionConfig {
            segment_bytes: ByteSize::kib(4 + self.random.below(60)),
            checkpoint_bytes: ByteSize::kib(1 + self.random.below(15)),
            rolls_per_minute: 100_000,
            idle_after,
            ..PartitionConfig::default()
        }
    }
}

/// How often what the test is about came about.
#[derive(Debug, Default)]
struct Seen {
    acked: AtomicU64,
    unacked: AtomicU64,
    unacked_kept: AtomicU64,
    known_again: AtomicU64,
    segments: AtomicU64,
    losses_in_recovery: AtomicU64,
}

fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Runs one seed; an error is a broken promise.
fn run(seed: u64, mutant: Option<Mutant>, patience: Duration, seen: &Seen) -> Result<()> {
    let machine = Machine::new(seed, mutant);
    let mut producers = machine.live(work(&machine, seed))?;
    if seed.is_multiple_of(2) && machine.live(recover_halfway(&machine, &producers, patience)).is_ok() {
        count(&seen.losses_in_recovery, 1);
    }
    machine.live(check(&machine, &mut producers, patience, seen))
}

/// Writes until power is lost.
async fn work(machine: &Machine, seed: u64) -> Result<Vec<Producer>> {
    let stack = machine.start(machine.config()).await?;
    let topic = CreateTopic { name: TOPIC.to_owned(), partitions: PARTITIONS, config: TopicConfig::new() };
    let topic = stack.meta.create_topic(topic).await?;
    let mut producers = Vec::new();
    for partition in topic.partition_ids() {
        let bounds = stack.serving(partition, PATIENCE).await?;
        producers.push(Producer::new(partition, bounds.epoch));
    }
    let mut acks_left = u64::MAX;
    match seed % 3 {
        0 => machine.segments.lose_power_after(machine.random.below(900)),
        1 => machine.metadata.cut_after(machine.random.below(400)),
        _ => acks_left = machine.random.below(60),
    }
    let mut stream = stack.broker.append_stream().await?;
    loop {
        for producer in &mut producers {
            while producer.may_send() && producer.sent_records() < RECORDS {
                producer.send(&stream, 1 + machine.random.below(20)).await?;
            }
        }
        let answers = tokio::select! {
            answers = tokio::time::timeout(SILENCE, stream.answers.next()) => answers,
            () = machine.lost.notify.notified() => break,
        };
        let Ok(Some(answers)) = answers else { break };
        for answer in &answers {
            for producer in &mut producers {
                producer.take(answer)?;
            }
            acks_left = acks_left.saturating_sub(1);
        }
        if acks_left == 0 || producers.iter().all(|producer| !producer.may_send() && producer.unanswered() == 0) {
            break;
        }
    }
    Ok(producers)
}

/// Comes up again, and loses power on the way.
async fn recover_halfway(machine: &Machine, producers: &[Producer], patience: Duration) -> Result<()> {
    machine.segments.lose_power_after(machine.random.below(120));
    let recover = async {
        let stack = machine.start(machine.config()).await?;
        for producer in producers {
            stack.serving(producer.partition(), patience).await?;
        }
        bail!("it was fast enough")
    };
    tokio::select! {
        recovered = recover => match machine.lost.is_lost.load(Ordering::SeqCst) {
            true => Ok(()),
            false => recovered,
        },
        () = machine.lost.notify.notified() => Ok(()),
    }
}

/// Reads everything back, sends the newest batches again, and reads once more.
async fn check(machine: &Machine, producers: &mut [Producer], patience: Duration, seen: &Seen) -> Result<()> {
    let stack = machine.start(PartitionConfig::default()).await.context("it does not start again")?;
    for producer in producers.iter_mut() {
        let partition = producer.partition();
        let bounds = stack.serving(partition, patience).await?;
        let (acked, found) = (producer.acked_records(), bounds.high_watermark.0);
        ensure!(found >= acked, "{partition} has {found} records, {acked} were acknowledged");
        ensure!(found <= producer.sent_records(), "{partition} has {found} records, which is more than were sent");
        producer.begin_epoch(bounds.epoch);
        count(&seen.acked, acked);
        count(&seen.unacked_kept, found - acked);
        count(&seen.unacked, producer.sent_records() - acked);
        count(&seen.segments, stack.meta.partition(partition).await?.segments.len() as u64);
        let records = check_records(&stack, producer, found);
        tokio::time::timeout(patience, records).await.context("its records cannot be read")??;
    }
    let mut stream = stack.broker.append_stream().await?;
    for producer in producers.iter_mut() {
        count(&seen.known_again, producer.resend(&mut stream).await? as u64);
        check_records(&stack, producer, producer.sent_records()).await?;
    }
    Ok(())
}

/// A consumer finds exactly this many records, each at its offset.
async fn check_records(stack: &InProcess, producer: &Producer, count: u64) -> Result<()> {
    let TopicPartition { partition, .. } = producer.partition();
    let records = read_back::partition_by_consumer(&stack.server, TOPIC, partition.0).await?;
    ensure!(records.len() as u64 == count, "{} records are read of {count}", records.len());
    for (sequence, record) in (0..).zip(&records) {
        let is_right = record.offset == sequence && record.payload == producer.payload(sequence);
        ensure!(is_right, "partition {partition} holds another record at offset {sequence}");
    }
    Ok(())
}

/// Runs seeds side by side until one fails; says which, and why.
fn run_all(seeds: u64, mutant: Option<Mutant>, patience: Duration, seen: &Seen) -> Option<(u64, anyhow::Error)> {
    let next = AtomicU64::new(0);
    let failure = Mutex::new(None);
    let worker = || {
        while failure.lock().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(error) = run(seed, mutant, patience, seen) {
                failure.lock().get_or_insert((seed, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(worker);
        }
    });
    failure.into_inner()
}

#[test]
fn what_was_acknowledged_outlasts_losses_of_power() {
    let (seen, begun) = (Seen::default(), Instant::now());
    if let Some((seed, error)) = run_all(SEEDS, None, PATIENCE, &seen) {
        panic!("seed {seed}: {error:#}");
    }
    println!("seeds 0..{SEEDS} in {:.1?}: {seen:?}", begun.elapsed());
    let Seen { acked, unacked, unacked_kept, known_again, segments, losses_in_recovery } = seen;
    let counts = [acked, unacked, unacked_kept, known_again, segments, losses_in_recovery].map(AtomicU64::into_inner);
    assert!(!counts.contains(&0), "something never came about");
}

fn assert_caught(mutant: Mutant) {
    match run_all(MUTANT_SEEDS, Some(mutant), Duration::from_secs(2), &Seen::default()) {
        Some((seed, error)) => println!("{mutant:?} is caught by seed {seed}: {error:#}"),
        None => panic!("{mutant:?} is not caught by {MUTANT_SEEDS} seeds"),
    }
}

#[test]
fn not_syncing_files_is_noticed() {
    assert_caught(Mutant::SkipSync);
}

#[test]
fn not_syncing_folders_is_noticed() {
    assert_caught(Mutant::SkipFolderSync);
}
