//! The local store on a disk that loses power at random moments: what was durable is there, and damage keeps to the
//! floor. Each seed is one run of a machine with a loss of power in it, one that loses power while it recovers, one
//! that recovers, and a last one that finds the same again.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::collections::BTreeSet;
use std::sync::Arc;

use bmq_common::Random;
use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bmq_storage::disk::PowerLossDisk;
use bmq_storage::local::Mutant;
use bmq_storage::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use bmq_storage::{
    FenceOutcome, FolderPath, LocalStore, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterState,
};
use bytes::Bytes;

const SEEDS: u64 = 1_500;
/// A broken rule must be caught within this many.
const MUTANT_SEEDS: u64 = 150;

/// A file whose creation was answered with Ok, and what else was promised of it.
struct Promised {
    path: SegmentPath,
    writer: Arc<dyn SegmentWriter>,
    appended: BytePosition,
    /// The end that closing or recovering answered.
    end: Option<BytePosition>,
    closed: bool,
    index: Option<Bytes>,
    index_attempt: Option<Bytes>,
}

impl Promised {
    fn durable(&self) -> BytePosition {
        self.writer.progress().borrow().durable
    }
}

/// How often what the test is about came about.
#[derive(Debug, Default)]
struct Seen {
    files: u64,
    lost_names: u64,
    torn_or_cut: u64,
    unreported_kept: u64,
    floors_above_zero: u64,
    closed: u64,
    indexes: u64,
}

fn segment(number: u64) -> SegmentPath {
    let topic = TopicId([2 + (number % 3) as u8; 16]);
    let partition = TopicPartition { topic, partition: PartitionId((number % 2) as u32) };
    FolderPath::new(ClusterId([1; 16]), partition).segment(FileId { epoch: Epoch(4), nonce: number })
}

/// What stands at each position of a file after its header; differs between files.
fn pattern_byte(path: SegmentPath, position: u64) -> u8 {
    ((position + path.file.nonce).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
}

fn pattern(path: SegmentPath, start: BytePosition, length: u64) -> Bytes {
    (start.0..start.0 + length).map(|position| pattern_byte(path, position)).collect()
}

/// One machine's life up to its loss of power.
struct Life<'a> {
    store: &'a LocalStore,
    random: Random,
    longest_append: u64,
    files: Vec<Promised>,
    attempts: u64,
}

impl Life<'_> {
    /// Works until the power is lost or the steps are done.
    async fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.step().await.is_err() {
                return;
            }
        }
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        if self.files.is_empty() || self.random.chance(1, 12) {
            return self.create().await;
        }
        let at = self.random.below(self.files.len() as u64) as usize;
        match self.random.below(24) {
            0 => self.close(at).await,
            1 => self.recover(at).await,
            2 | 3 => self.write_index(at).await,
            4..10 => self.wait(at).await,
            _ => self.append(at),
        }
    }

    async fn create(&mut self) -> Result<(), StoreError> {
        let path = segment(self.attempts);
        self.attempts += 1;
        let writer = self.store.create(path, SegmentHeader::of(path).encode()).await?;
        let appended = BytePosition(SEGMENT_HEADER_LEN as u64);
        self.files.push(Promised {
            path,
            writer,
            appended,
            end: None,
            closed: false,
            index: None,
            index_attempt: None,
        });
        Ok(())
    }

    fn append(&mut self, at: usize) -> Result<(), StoreError> {
        let file = &mut self.files[at];
        if file.end.is_some() {
            return Ok(());
        }
        let length = 1 + self.random.below(self.longest_append);
        let first = self.random.below(length);
        let middle = file.appended.plus(first);
        let parts = vec![pattern(file.path, file.appended, first), pattern(file.path, middle, length - first)];
        file.appended = file.writer.append(parts)?;
        Ok(())
    }

    async fn wait(&mut self, at: usize) -> Result<(), StoreError> {
        let (writer, appended) = (&self.files[at].writer, self.files[at].appended);
        let mut progress = writer.progress();
        let seen = progress.wait_for(|now| now.durable >= appended || now.state != WriterState::Healthy).await;
        seen.expect("the writer is held");
        Ok(())
    }

    async fn close(&mut self, at: usize) -> Result<(), StoreError> {
        let file = &mut self.files[at];
        if file.end.is_none() {
            file.end = Some(file.writer.close().await?);
            file.closed = true;
        }
        Ok(())
    }

    async fn recover(&mut self, at: usize) -> Result<(), StoreError> {
        let file = &mut self.files[at];
        let end = self.store.recover(file.path).await?;
        assert_eq!(file.end.unwrap_or(end), end, "the end of {} moved", file.path);
        file.end = Some(end);
        Ok(())
    }

    async fn write_index(&mut self, at: usize) -> Result<(), StoreError> {
        let file = &mut self.files[at];
        let content: Bytes = vec![self.random.below(256) as u8; 1 + self.random.below(9_000) as usize].into();
        file.index_attempt = Some(content.clone());
        self.store.write_index(file.path, content.clone()).await?;
        file.index = Some(content);
        Ok(())
    }
}

async fn open(disk: &PowerLossDisk, mutant: Option<Mutant>) -> Result<LocalStore, StoreError> {
    let store = LocalStore::open_on(disk.boot(), "/data").await?;
    Ok(match mutant {
        Some(mutant) => store.with_mutant(mutant),
        None => store,
    })
}

/// Runs one seed; answers the first broken promise.
async fn run(seed: u64, mutant: Option<Mutant>, seen: &mut Seen) -> Result<(), String> {
    let disk = PowerLossDisk::new(seed);
    let random = Random::from_seed(!seed);
    let store = open(&disk, mutant).await.expect("an empty disk has room for a folder");
    disk.lose_power_after(1 + random.below(400));
    // Some lives write files of several groups, so that a floor lies above zero.
    let (longest_append, steps) = if seed.is_multiple_of(30) { (1_500_000, 60) } else { (9_000, 150) };
    let mut life = Life { store: &store, random, longest_append, files: Vec::new(), attempts: 0 };
    life.live(steps).await;
    let (files, attempts) = (life.files, life.attempts);
    disk.lose_power();
    drop(store);

    let store = open(&disk, mutant).await.map_err(|error| format!("the folder is gone: {error}"))?;
    let mut listed = BTreeSet::new();
    for number in 0..attempts.min(6) {
        let found = store.list(segment(number).folder).await.map_err(|error| error.to_string())?;
        listed.extend(found.into_iter().map(|found| found.file));
    }
    seen.lost_names += attempts - listed.len() as u64;
    if let Some(missing) = files.iter().find(|file| !listed.contains(&file.path.file)) {
        return Err(format!("{} is not listed", missing.path));
    }
    let answered = recover_under_loss(&disk, &store, &files).await;
    drop(store);

    let store = open(&disk, mutant).await.map_err(|error| format!("the folder is gone: {error}"))?;
    let mut kept = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let content = check(&store, file, seen).await.map_err(|broken| format!("{}: {broken}", file.path))?;
        if answered.get(at).is_some_and(|end| end.0 != content.len() as u64) {
            return Err(format!("{}: the end that an interrupted recovery had answered moved", file.path));
        }
        kept.push(content);
    }
    disk.lose_power();
    drop(store);

    let store = open(&disk, mutant).await.map_err(|error| format!("the folder is gone: {error}"))?;
    for (file, kept) in files.iter().zip(&kept) {
        let again = read_recovered(&store, file.path).await.map_err(|error| format!("{}: {error}", file.path))?;
        if again != *kept {
            return Err(format!("{}: a second loss of power changed what recovery had found", file.path));
        }
    }
    Ok(())
}

/// Recovers the files in order until the power is lost once more; answers the ends it got to know.
async fn recover_under_loss(disk: &PowerLossDisk, store: &LocalStore, files: &[Promised]) -> Vec<BytePosition> {
    disk.lose_power_after(files.iter().map(|file| file.appended.0).sum::<u64>() % (10 * files.len() as u64 + 1));
    let mut answered = Vec::new();
    for file in files {
        match store.recover(file.path).await {
            Ok(end) => answered.push(end),
            Err(_) => break,
        }
    }
    disk.lose_power();
    answered
}

async fn read_recovered(store: &LocalStore, path: SegmentPath) -> Result<Bytes, StoreError> {
    let end = store.recover(path).await?;
    store.read(path, BytePosition::ZERO, end).await
}

/// Holds one recovered file to what was promised of it; returns its content.
async fn check(store: &LocalStore, file: &Promised, seen: &mut Seen) -> Result<Bytes, String> {
    let outcome = store.fence(file.path).await.map_err(|error| error.to_string())?;
    let content = read_recovered(store, file.path).await.map_err(|error| error.to_string())?;
    let (length, durable) = (content.len() as u64, file.durable().0);
    if length < durable {
        return Err(format!("{length} bytes are left, {durable} were durable"));
    }
    let first_wrong = first_wrong(file.path, &content);
    if first_wrong < durable {
        return Err(format!("byte {first_wrong} is wrong, {durable} were durable"));
    }
    let must_be_right = match outcome {
        FenceOutcome::Open { floor } => floor.0,
        FenceOutcome::Closed { length } => length.0,
    };
    if first_wrong < must_be_right {
        return Err(format!("byte {first_wrong} is wrong, below {outcome:?}"));
    }
    if file.end.is_some_and(|end| end.0 != length) {
        return Err(format!("{length} bytes are left, the end was fixed at {:?}", file.end));
    }
    // Whoever fixed the end before the loss could read all of it, and may have built on that.
    if file.end.is_some() && first_wrong < length {
        return Err(format!("byte {first_wrong} is wrong, all were there when the end was fixed"));
    }
    check_index(store, file).await?;
    seen.files += 1;
    seen.torn_or_cut += u64::from(first_wrong < file.appended.0);
    seen.unreported_kept += u64::from(first_wrong > durable);
    seen.floors_above_zero += u64::from(matches!(outcome, FenceOutcome::Open { floor } if floor.0 > 0));
    seen.closed += u64::from(file.closed);
    seen.indexes += u64::from(file.index.is_some());
    Ok(content)
}

/// The first position that does not hold what was written; the length if there is none.
fn first_wrong(path: SegmentPath, content: &[u8]) -> u64 {
    let header = SegmentHeader::of(path).encode();
    let right = |at: usize, byte: u8| match header.get(at) {
        Some(expected) => *expected == byte,
        None => pattern_byte(path, at as u64) == byte,
    };
    let wrong = content.iter().enumerate().find(|(at, byte)| !right(*at, **byte));
    wrong.map_or(content.len(), |(at, _)| at) as u64
}

async fn check_index(store: &LocalStore, file: &Promised) -> Result<(), String> {
    match store.read_index(file.path).await {
        Ok(found) if Some(&found) == file.index.as_ref() || Some(&found) == file.index_attempt.as_ref() => Ok(()),
        Ok(_) => Err("the index is neither the one written nor the one being written".to_owned()),
        Err(StoreError::NotFound { .. }) if file.index.is_none() => Ok(()),
        Err(error) => Err(format!("the index was written, and then: {error}")),
    }
}

#[tokio::test]
async fn what_was_durable_outlasts_losses_of_power() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        if let Err(broken) = run(seed, None, &mut seen).await {
            panic!("seed {seed}: {broken}");
        }
    }
    println!("{SEEDS} seeds: {seen:?}");
    let Seen { files, lost_names, torn_or_cut, unreported_kept, floors_above_zero, closed, indexes } = seen;
    let counts = [files, lost_names, torn_or_cut, unreported_kept, floors_above_zero, closed, indexes];
    assert!(!counts.contains(&0), "something never came about");
}

async fn assert_caught(mutant: Mutant) {
    for seed in 0..MUTANT_SEEDS {
        if let Err(broken) = run(seed, Some(mutant), &mut Seen::default()).await {
            println!("{mutant:?} is caught by seed {seed}: {broken}");
            return;
        }
    }
    panic!("{mutant:?} is not caught by {MUTANT_SEEDS} seeds");
}

#[tokio::test]
async fn not_syncing_groups_is_noticed() {
    assert_caught(Mutant::SkipSync).await;
}

#[tokio::test]
async fn not_syncing_folders_is_noticed() {
    assert_caught(Mutant::SkipFolderSync).await;
}

/// Fixes the end of a file behind bytes that its writer has not synced yet, and loses power.
async fn end_kept(seed: u64, mutant: Option<Mutant>) -> bool {
    let disk = PowerLossDisk::new(seed);
    let store = open(&disk, mutant).await.unwrap();
    let path = segment(0);
    let writer = store.create(path, SegmentHeader::of(path).encode()).await.unwrap();
    let held = disk.hold_next_sync();
    let end = writer.append(vec![pattern(path, BytePosition(SEGMENT_HEADER_LEN as u64), 50_000)]).unwrap();
    held.wait_until_held();
    assert_eq!(store.recover(path).await.unwrap(), end);
    disk.lose_power();
    drop(store);

    let store = open(&disk, mutant).await.unwrap();
    let content = read_recovered(&store, path).await;
    content.is_ok_and(|content| content.len() as u64 == end.0 && first_wrong(path, &content) == end.0)
}

#[tokio::test]
async fn an_end_once_told_outlasts_a_loss_of_power() {
    for seed in 0..100 {
        assert!(end_kept(seed, None).await, "seed {seed}");
    }
}

#[tokio::test]
async fn fencing_without_syncing_is_noticed() {
    let mut kept = 0;
    for seed in 0..100 {
        kept += u32::from(end_kept(seed, Some(Mutant::FenceWithoutSync)).await);
    }
    assert!(kept < 100, "the test above cannot fail");
}
