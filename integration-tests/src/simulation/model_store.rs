//! A model of the store: of HDFS as it was seen to behave, or of a local disk.
//!
//! HDFS: a sync that ends in an error or in nothing is unknown; none succeeds after a fence; the first call to fence does
//! it, closing takes longer; `synced ≤ floor ≤ recovered length`; a file never synced may vanish at once.
//! Local disk: a group is one write and one sync, then the fence is looked for; the floor is the length less one group;
//! pages not synced are lost at a loss of power.

use std::collections::{BTreeMap, VecDeque};

use bmq_partition::machine::{Event, StoreFault};
use bmq_proto::record_batch::split_batches;
use bmq_proto::{BytePosition, FileId};
use bmq_storage::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use bmq_storage::{FenceOutcome, FolderPath, FoundFile, SegmentIndex, WriterProgress, WriterState};
use bytes::Bytes;

use super::env::{Env, MS, SECOND};
use super::happening::{CreateFate, FileKey, Happening, MachineId};
use super::model_file::{FileState, InFlight, ModelFile, SyncFate};
use super::store_view::{SeenFile, StoreView};

/// The most bytes of one write on the local disk.
const LOCAL_GROUP: usize = 2048;
/// The local disk's pages, small so that a group has several.
const PAGE: usize = 256;
/// After this a sync that hangs is given up.
const SYNC_DEADLINE: u64 = SECOND;

/// The broker's end of an open file.
#[derive(Debug)]
struct ModelWriter {
    waiting: VecDeque<Bytes>,
    /// Everything handed over so far ends here.
    sent: usize,
    busy: bool,
    broken: bool,
}

/// What somebody has to know of a file that was damaged on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    Open,
    Sealed,
}

/// What metadata knows of a file when its recovery ends: damage is done only below it, so that it can be noticed.
#[derive(Debug, Clone, Copy)]
pub enum Known {
    Nothing,
    /// `checkpoint` is 0 if there is none in this file.
    Open {
        floor: usize,
        checkpoint: usize,
    },
    SealedAt(usize),
}

pub struct ModelStore {
    pub local: bool,
    /// The mutant of the local model: the fence is looked for before the bytes are durable.
    pub fence_seen_before_sync: bool,
    pub down_until: u64,
    pub files: BTreeMap<FileKey, ModelFile>,
    writers: BTreeMap<(MachineId, FileKey), ModelWriter>,
    folders: Vec<FolderPath>,
}

impl ModelStore {
    pub fn new(local: bool, folders: Vec<FolderPath>) -> Self {
        Self {
            local,
            fence_seen_before_sync: false,
            down_until: 0,
            files: BTreeMap::new(),
            writers: BTreeMap::new(),
            folders,
        }
    }

    pub fn is_down(&self, env: &Env) -> bool {
        env.now < self.down_until
    }

    pub fn list(&self, partition: usize) -> Vec<FoundFile> {
        let of_partition = self.files.iter().filter(|(key, _)| key.partition == partition);
        of_partition.map(|(key, file)| FoundFile { file: key.file, length: file.length() as u64 }).collect()
    }

    // ---- Writing -------------------------------------------------------------------------------------------------

    pub fn create(
        &mut self,
        machine: MachineId,
        key: FileKey,
        fate: CreateFate,
        env: &mut Env,
    ) -> Result<(), StoreFault> {
        if fate == CreateFate::Fails {
            return Err(StoreFault::Failed("the pipeline was not set up".to_owned()));
        }
        let path = self.folders[key.partition].segment(key.file);
        let mut file = ModelFile::new(path);
        let header = SegmentHeader::of(path).encode();
        let mut writer = ModelWriter { waiting: VecDeque::new(), sent: 0, busy: false, broken: false };
        if self.local {
            file.bytes = header.to_vec();
            file.synced = SEGMENT_HEADER_LEN;
            writer.sent = SEGMENT_HEADER_LEN;
        } else {
            writer.waiting.push_back(header);
        }
        if self.files.insert(key, file).is_some() {
            env.violated(|| format!("file {} was created twice", key.file));
        }
        if fate == CreateFate::LeavesFile {
            return Err(StoreFault::Failed("the answer was lost".to_owned()));
        }
        self.writers.insert((machine, key), writer);
        self.start_sync(machine, key, env);
        Ok(())
    }

    pub fn write(&mut self, machine: MachineId, key: FileKey, parts: Vec<Bytes>, env: &mut Env) {
        let Some(writer) = self.writers.get_mut(&(machine, key)) else {
            return env.violated(|| format!("write to file {}, which has no writer", key.file));
        };
        if writer.broken {
            let event = broken(key.file, "it had failed before");
            return env.after(MS / 10, Happening::Event(machine, event));
        }
        writer.waiting.extend(parts);
        self.start_sync(machine, key, env);
    }

    /// Hands over what waits, if nothing is on its way.
    fn start_sync(&mut self, machine: MachineId, key: FileKey, env: &mut Env) {
        let Some(writer) = self.writers.get_mut(&(machine, key)) else { return };
        if writer.busy || writer.broken || writer.waiting.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        while let Some(part) = writer.waiting.front() {
            if self.local && !bytes.is_empty() && bytes.len() + part.len() > LOCAL_GROUP {
                break;
            }
            bytes.extend_from_slice(part);
            writer.waiting.pop_front();
        }
        writer.busy = true;
        writer.sent += bytes.len();
        let end = writer.sent;
        let first = end == bytes.len() || end == SEGMENT_HEADER_LEN + bytes.len();
        let fate = sync_fate(first, env);
        let slow = env.strikes(|faults| faults.sync_slow, "fault: sync slow");
        // On a slow local disk a whole takeover may fall between a sync's begin and the moment when its bytes land.
        let slowest = if self.local { 3000 * MS } else { 800 * MS };
        let sync = if slow { env.dice.between(20 * MS, slowest) } else { env.dice.between(MS, 8 * MS) };
        let soonest = if slow && self.local { sync / 2 } else { MS / 10 };
        let land = env.dice.between(soonest, sync);
        match self.files.get_mut(&key) {
            Some(file) => {
                let fenced_before = file.fenced;
                file.in_flight = Some(InFlight { bytes, end, fate, fenced_before, landed: false });
                env.after(land, Happening::Land { machine, key });
                env.after(sync, Happening::SyncEnds { machine, key });
            }
            None => env.after(sync, Happening::SyncAnswered { machine, key, answer: Err("the file was deleted") }),
        }
        if fate == SyncFate::Hangs {
            let answer = Err("the sync missed its deadline");
            env.after(SYNC_DEADLINE, Happening::SyncAnswered { machine, key, answer });
        }
    }

    pub fn land(&mut self, key: FileKey, env: &mut Env) {
        if let Some(file) = self.files.get_mut(&key) {
            file.land(&mut env.dice);
        }
    }

    pub fn end_sync(&mut self, machine: MachineId, key: FileKey, env: &mut Env) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let Some(group) = file.in_flight.take() else { return };
        let answer = if self.local {
            end_local_sync(file, &group, self.fence_seen_before_sync)
        } else if env.now < self.down_until {
            // Every sync asks the NameNode.
            Err("the NameNode does not answer")
        } else {
            end_hdfs_sync(file, &group, env)
        };
        if answer == Err(FENCED) {
            env.coverage.hit("store: sync refused by fence");
        }
        if group.fate != SyncFate::Hangs {
            let back = env.dice.between(MS / 10, MS);
            env.after(back, Happening::SyncAnswered { machine, key, answer });
        }
    }

    /// The writer hears how its sync ended.
    pub fn sync_answered(
        &mut self,
        machine: MachineId,
        key: FileKey,
        answer: Result<usize, &'static str>,
        env: &mut Env,
    ) -> Option<Event> {
        let writer = self.writers.get_mut(&(machine, key))?;
        writer.busy = false;
        let event = match answer {
            Ok(durable) => {
                let durable = BytePosition(durable as u64);
                let progress = WriterProgress { durable, state: WriterState::Healthy };
                Event::Progress { file: key.file, progress }
            }
            Err(reason) => {
                writer.broken = true;
                writer.waiting.clear();
                broken(key.file, reason)
            }
        };
        self.start_sync(machine, key, env);
        Some(event)
    }

    /// Some writer with nothing to do loses its pipeline or its lease.
    pub fn break_idle_writer(&mut self, env: &mut Env) {
        let idle = self.writers.iter_mut().find(|(_, writer)| !writer.busy && !writer.broken);
        if let Some(((machine, key), writer)) = idle {
            env.coverage.hit("store: idle writer breaks");
            writer.broken = true;
            env.after(MS / 10, Happening::Event(*machine, broken(key.file, "its pipeline broke")));
        }
    }

    /// The machine's process, or the machine itself, is gone.
    pub fn drop_writers(&mut self, machine: MachineId) {
        self.writers.retain(|(owner, _), _| *owner != machine);
    }

    // ---- Fencing and closing -------------------------------------------------------------------------------------

    pub fn fence(&mut self, key: FileKey, env: &mut Env) -> Result<FenceOutcome, StoreFault> {
        let local = self.local;
        let Some(file) = self.files.get_mut(&key) else { return Err(StoreFault::NotFound) };
        if file.state == FileState::Closed {
            env.coverage.hit("store: fence of a closed file");
            return Ok(FenceOutcome::Closed { length: BytePosition(file.length() as u64) });
        }
        env.coverage.hit(if file.fenced { "store: fence again" } else { "store: fence of an open file" });
        file.fenced = true;
        if local {
            let end = *file.end_mark.get_or_insert(file.bytes.len());
            file.synced = file.synced.max(end);
            let floor = BytePosition(end.saturating_sub(LOCAL_GROUP) as u64);
            return Ok(FenceOutcome::Open { floor });
        }
        if file.synced == 0 && file.state == FileState::Open && env.dice.chance(500) {
            env.coverage.hit("store: never synced file vanishes");
            file.close_at(0);
            return Ok(FenceOutcome::Closed { length: BytePosition::ZERO });
        }
        if file.state == FileState::Open {
            file.state = FileState::Recovering;
            let time = recovery_time(env);
            env.after(time, Happening::RecoveryEnds(key));
        }
        // After a repair in place the NameNode may know of bytes that no sync covered.
        if file.bytes.len() > file.synced && env.dice.chance(150) {
            env.coverage.hit("store: floor above synced");
            let known = env.dice.between(file.synced as u64, file.bytes.len() as u64) as usize;
            file.known = file.known.max(known);
        }
        file.known = file.known.max(file.synced);
        Ok(FenceOutcome::Open { floor: BytePosition(file.known as u64) })
    }

    pub fn recover(&mut self, key: FileKey, env: &mut Env) -> Result<BytePosition, StoreFault> {
        let local = self.local;
        let Some(file) = self.files.get_mut(&key) else { return Err(StoreFault::NotFound) };
        if local && file.fenced {
            file.close_at(file.length());
        }
        if file.state != FileState::Closed {
            env.coverage.hit("store: recovery not done");
            return Err(StoreFault::NotClosed);
        }
        Ok(BytePosition(file.length() as u64))
    }

    /// Recovery of an HDFS file ends: whatever was not synced may be there, in part, or not.
    pub fn end_recovery(&mut self, key: FileKey, known: Known, env: &mut Env) -> Option<Injected> {
        let file = self.files.get_mut(&key)?;
        if file.state != FileState::Recovering {
            return None;
        }
        let least = file.known.max(file.synced);
        let synced = file.synced;
        let length = match env.dice.below(4) {
            0 => least,
            1 => file.bytes.len(),
            _ => env.dice.between(least as u64, file.bytes.len() as u64) as usize,
        };
        env.coverage.hit(match length {
            _ if length == file.bytes.len() => "store: recovery keeps all",
            _ if length == least => "store: recovery drops unsynced",
            _ => "store: recovery tears",
        });
        env.coverage.hit("store: closed by recovery");
        file.close_at(length);
        damage(file, synced, known, env)
    }

    /// What closing a sealed file comes to at the store: its length, once it is closed.
    pub fn close(&mut self, machine: MachineId, key: FileKey, env: &mut Env) -> Result<BytePosition, StoreFault> {
        let idle = self.writers.get_mut(&(machine, key)).filter(|writer| !writer.broken && !writer.busy);
        if let (Some(writer), Some(file)) = (idle, self.files.get_mut(&key))
            && !file.fenced
            && file.synced == file.bytes.len()
            && env.dice.chance(700)
        {
            env.coverage.hit("store: closed by its writer");
            writer.broken = true;
            file.close_at(file.bytes.len());
        }
        match self.fence(key, env)? {
            FenceOutcome::Closed { length } => Ok(length),
            FenceOutcome::Open { .. } => self.recover(key, env),
        }
    }

    pub fn delete(&mut self, key: FileKey, env: &mut Env) {
        if self.files.remove(&key).is_some() {
            env.coverage.hit("store: file deleted");
        }
    }

    pub fn lose_power(&mut self, env: &mut Env) {
        for file in self.files.values_mut() {
            if file.lose_power(PAGE, &mut env.dice) {
                env.coverage.hit("store: page lost");
            }
        }
    }

    // ---- Reading and indexes -------------------------------------------------------------------------------------

    /// What a call that reads these files sees.
    pub fn view(&mut self, partition: usize, wanted: impl Iterator<Item = FileId>) -> StoreView {
        let mut view = StoreView::default();
        for file in wanted {
            let Some(found) = self.files.get_mut(&FileKey { partition, file }) else { continue };
            let readable = found.state == FileState::Closed || found.end_mark.is_some();
            let content = readable.then(|| found.content());
            view.files.insert(file, SeenFile { content, index: found.index.clone() });
        }
        view
    }

    /// Writes an index. `sure` says that nothing was damaged that could make one differ from another.
    pub fn write_index(&mut self, key: FileKey, content: Bytes, sure: bool, env: &mut Env) {
        let Some(file) = self.files.get_mut(&key) else { return };
        let decode = |bytes: &Bytes| SegmentIndex::decode(bytes, file.path).ok();
        if let Some(old) = file.index.as_ref().and_then(decode) {
            env.coverage.hit("store: index replaced");
            let new = decode(&content);
            if sure && new.as_ref() != Some(&old) {
                let (old, new) = (old.producers, new.map(|new| new.producers));
                env.violated(|| format!("the index of {} was replaced by another: {old:?}, {new:?}", key.file));
            }
        }
        file.index = Some(content);
    }

    /// Loses or damages the index of some file; says which.
    pub fn harm_index(&mut self, lose: bool, env: &mut Env) -> Option<FileKey> {
        let count = self.files.len() as u64;
        if count == 0 {
            return None;
        }
        let chosen = env.dice.below(count) as usize;
        let (key, file) = self.files.iter_mut().nth(chosen)?;
        let index = file.index.take()?;
        if lose {
            return Some(*key);
        }
        let mut bytes = index.to_vec();
        let at = env.dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << env.dice.below(8);
        file.index = Some(bytes.into());
        Some(*key)
    }
}

const FENCED: &str = "it was fenced";

fn broken(file: FileId, reason: &'static str) -> Event {
    // What the writer knew to be durable is told once more; the machine must not need it.
    let state = WriterState::Broken { reason: reason.into() };
    Event::Progress { file, progress: WriterProgress { durable: BytePosition::ZERO, state } }
}

fn recovery_time(env: &mut Env) -> u64 {
    if env.strikes(|faults| faults.recovery_very_slow, "fault: recovery very slow") {
        env.dice.between(10 * SECOND, 25 * SECOND)
    } else if env.strikes(|faults| faults.recovery_slow, "fault: recovery slow") {
        env.dice.between(SECOND, 6 * SECOND)
    } else {
        env.dice.between(5 * MS, 500 * MS)
    }
}

fn sync_fate(first: bool, env: &mut Env) -> SyncFate {
    let first_fails = first && env.strikes(|faults| faults.first_sync_fails, "fault: first sync fails");
    if first_fails || env.strikes(|faults| faults.sync_fails_before, "fault: sync fails before") {
        SyncFate::FailsBefore
    } else if env.strikes(|faults| faults.sync_fails_after, "fault: sync fails after") {
        SyncFate::FailsAfter
    } else if env.strikes(|faults| faults.sync_hangs, "fault: sync hangs") {
        SyncFate::Hangs
    } else {
        SyncFate::Works
    }
}

fn end_hdfs_sync(file: &mut ModelFile, group: &InFlight, env: &mut Env) -> Result<usize, &'static str> {
    if file.fenced || file.state == FileState::Closed {
        return Err(FENCED);
    }
    if !group.landed || group.fate == SyncFate::FailsBefore {
        return Err("the sync failed");
    }
    if group.fate == SyncFate::Hangs && env.dice.chance(500) {
        return Err("nobody hears this");
    }
    file.synced = group.end;
    if group.fate == SyncFate::Works { Ok(group.end) } else { Err("the answer was lost") }
}

/// The order matters: first the bytes are durable, then the fence is looked for.
fn end_local_sync(file: &mut ModelFile, group: &InFlight, fence_seen_before: bool) -> Result<usize, &'static str> {
    if !group.landed || group.fate == SyncFate::FailsBefore {
        return Err("the disk failed");
    }
    file.synced = file.synced.max(group.end.min(file.length()));
    let fenced = if fence_seen_before { group.fenced_before } else { file.fenced };
    if fenced {
        return Err(FENCED);
    }
    if group.fate == SyncFate::Works { Ok(group.end) } else { Err("the disk failed after the sync") }
}

/// Damages something that was known to be durable: cuts the file, flips a bit, or scrambles a batch.
fn damage(file: &mut ModelFile, synced: usize, known: Known, env: &mut Env) -> Option<Injected> {
    let (limit, checkpoint, kind) = match known {
        Known::Nothing => return None,
        Known::Open { floor, checkpoint } => (floor.min(synced), checkpoint, Injected::Open),
        Known::SealedAt(end) => (end.min(synced), 0, Injected::Sealed),
    };
    if limit <= SEGMENT_HEADER_LEN {
        return None;
    }
    let way = env.dice.below(3);
    let struck = match (kind, way) {
        (Injected::Open, 0) => env.strikes(|faults| faults.damage_open, "fault: open file flipped"),
        (Injected::Open, 1) if checkpoint > SEGMENT_HEADER_LEN => {
            env.strikes(|faults| faults.damage_open, "fault: open file scrambled")
        }
        (Injected::Open, _) => env.strikes(|faults| faults.damage_open, "fault: open file cut"),
        (Injected::Sealed, 0) => env.strikes(|faults| faults.damage_sealed, "fault: sealed file flipped"),
        (Injected::Sealed, _) => env.strikes(|faults| faults.damage_sealed, "fault: sealed file cut"),
    };
    if !struck {
        return None;
    }
    let at = env.dice.below(limit as u64) as usize;
    match way {
        0 => file.bytes[at] ^= 1 << env.dice.below(8),
        1 if kind == Injected::Open && checkpoint > SEGMENT_HEADER_LEN => scramble(file, checkpoint, env),
        _ => file.close_at(at),
    }
    Some(kind)
}

/// Makes a batch below the checkpoint look as if the file ended inside it, with a checksum that says nothing.
fn scramble(file: &mut ModelFile, checkpoint: usize, env: &mut Env) {
    let whole = Bytes::copy_from_slice(&file.bytes[SEGMENT_HEADER_LEN..checkpoint]);
    let lengths = split_batches(&whole).map_while(|batch| Some(batch.ok()?.0.total_len()));
    let starts: Vec<usize> =
        lengths.scan(SEGMENT_HEADER_LEN, |next, length| Some(std::mem::replace(next, *next + length))).collect();
    let at = *env.dice.pick(&starts);
    file.bytes[at + 9] ^= 1;
    file.bytes[at + 17] ^= 1;
}
