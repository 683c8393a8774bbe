//! The safety rules (ARCHITECTURE §5), checked after each step against what the models know to be true.
//!
//! The checker keeps the one log that must exist: every batch that anybody was shown, or that metadata fixed for ever.
//! It grows at its end only; whatever is shown, acknowledged, sealed or read later must agree with it.

use std::collections::{BTreeMap, BTreeSet};

use bmq_partition::machine::Published;
use bmq_partition::producer_table::ProducerTable;
use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::meta::{SegmentEnd, SegmentRecord};
use bmq_proto::record_batch::{BatchHeader, split_batches, verify_crc};
use bmq_proto::{Epoch, Offset};
use bytes::Bytes;

use super::batch::{Batches, LaneKind};
use super::env::Env;

/// A batch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub next: Offset,
    /// Which of the run's batches it is.
    pub batch: usize,
    pub crc: u32,
    /// The epoch under which it was written.
    pub epoch: Epoch,
}

#[derive(Default)]
pub struct PartitionLog {
    pub entries: BTreeMap<Offset, Entry>,
    pub end: Offset,
    /// The newest epoch that told a high watermark, and the highest that anybody told.
    newest_epoch: Epoch,
    pub high_watermark: Offset,
    pub log_start: Offset,
    /// The producers after `end`, kept by the same table that a scan of everything would fill.
    pub producers: ProducerTable,
    /// Next sequence of each producer: epoch and number.
    sequences: BTreeMap<i64, (i16, i32)>,
    /// Which batch each lane's stream had last, by its place in the lane.
    last_of_stream: BTreeMap<u64, usize>,
    /// Batches of the log, and how often each is in it.
    seen: BTreeMap<usize, Vec<Offset>>,
    stored_acks: BTreeMap<usize, Offset>,
    memory_acks: BTreeMap<usize, Offset>,
    /// The open file was damaged on purpose: nobody may go on.
    pub refused: bool,
    /// Its metadata was replaced by an old copy: nobody may claim.
    pub old_metadata: bool,
    /// Segments whose file was damaged on purpose after the seal.
    pub damaged_sealed: BTreeSet<Offset>,
    /// An owner began to serve without the producers of a sealed segment, after waiting as long as it does.
    pub not_waited_for: bool,
    /// An index was harmed, which is made again from the segments that there are.
    pub index_harmed: bool,
    /// Segments were dropped, and with them what they told of producers.
    pub dropped: bool,
}

#[derive(Default)]
pub struct Checker {
    pub partitions: Vec<PartitionLog>,
}

/// A segment that just got its end, and its file as the store has it.
pub struct Sealed<'a> {
    pub segment: &'a SegmentRecord,
    pub end: SegmentEnd,
    /// By a new owner's recovery, which may find more than anybody was shown.
    pub recovery: bool,
    pub content: &'a [u8],
}

/// A batch as found somewhere.
struct Found<'a> {
    header: BatchHeader,
    bytes: &'a Bytes,
    where_from: &'a str,
}

impl Checker {
    pub fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| PartitionLog::default()).collect() }
    }

    /// What a machine shows to readers. `durable` says whether the store has what was published.
    pub fn published(&mut self, partition: usize, published: &Published, batches: &Batches, env: &mut Env) {
        let log = &mut self.partitions[partition];
        let bounds = published.bounds;
        for batch in &published.batches {
            if batch.next_offset > bounds.high_watermark {
                let high = bounds.high_watermark;
                env.violated(|| format!("rule 4: {} is shown above the high watermark {high}", batch.base_offset));
            }
            log.take(&batch.bytes, "published", batches, env);
        }
        if bounds.high_watermark > log.end {
            env.violated(|| {
                format!("rule 4: high watermark {} above the log's end {}", bounds.high_watermark, log.end)
            });
        }
        if bounds.log_start > bounds.high_watermark {
            env.violated(|| format!("the log starts at {} above its end", bounds.log_start));
        }
        if bounds.epoch >= log.newest_epoch {
            log.newest_epoch = bounds.epoch;
            if bounds.high_watermark < log.high_watermark {
                let (new, old) = (bounds.high_watermark, log.high_watermark);
                env.violated(|| format!("rule 5: the high watermark went back from {old} to {new}"));
            }
            if bounds.log_start < log.log_start {
                let (new, old) = (bounds.log_start, log.log_start);
                env.violated(|| format!("the log start went back from {old} to {new}"));
            }
            log.log_start = bounds.log_start;
        }
        log.high_watermark = log.high_watermark.max(bounds.high_watermark);
    }

    /// A segment got its end, in `recovery` or by its owner: its content is now the log's for ever.
    pub fn sealed(&mut self, partition: usize, sealed: Sealed<'_>, batches: &Batches, env: &mut Env) {
        let Sealed { segment, end, recovery, content } = sealed;
        let log = &mut self.partitions[partition];
        if end.offset < log.end {
            env.violated(|| format!("rule 5: {} was sealed at {end:?}, the log goes to {}", segment.file, log.end));
            return;
        }
        if !recovery && end.offset != log.end {
            env.violated(|| format!("rule 1: {} was sealed at {end:?}, above the log's end {}", segment.file, log.end));
        }
        let Some(bytes) = content.get(segment.start_position.0 as usize..end.position.0 as usize) else {
            env.violated(|| format!("{} was sealed at {end:?}, it has {} bytes", segment.file, content.len()));
            return;
        };
        if recovery && end.offset > log.end {
            env.coverage.hit("recovery: found batches nobody saw");
        }
        log.take_range(segment, end, Bytes::copy_from_slice(bytes), batches, env);
    }

    /// A machine acknowledged a batch.
    pub fn acknowledged(&mut self, partition: usize, batch: usize, ack: AckLevel, appended: Appended, env: &mut Env) {
        let log = &mut self.partitions[partition];
        if ack == AckLevel::Memory && !appended.deduplicated {
            log.memory_acks.insert(batch, appended.base_offset);
            return;
        }
        let found = log.entries.get(&appended.base_offset).map(|entry| entry.batch);
        if found != Some(batch) {
            let offset = appended.base_offset;
            let what = if appended.deduplicated { "duplicate" } else { "stored" };
            env.violated(|| format!("rule 1: {what} ack of batch {batch} at {offset}, where the log has {found:?}"));
        }
        log.stored_acks.insert(batch, appended.base_offset);
    }

    /// A reader got this segment from the store.
    pub fn read(
        &mut self,
        partition: usize,
        segment: &SegmentRecord,
        content: &Bytes,
        batches: &Batches,
        env: &mut Env,
    ) {
        let log = &mut self.partitions[partition];
        let Some(end) = segment.end() else { return };
        if content.len() < end.position.0 as usize {
            env.violated(|| format!("closed segment {} is too short for {end:?}", segment.file));
            return;
        }
        let bytes = content.slice(segment.start_position.0 as usize..end.position.0 as usize);
        log.take_range(segment, end, bytes, batches, env);
        if end.offset > log.end {
            env.violated(|| format!("segment {} ends at {end:?}, above the log's end", segment.file));
        }
    }

    /// At the very end: every stored ack is in the log, every batch of the log is where its producer was told.
    pub fn finish(&self, batches: &Batches, env: &mut Env) {
        for log in &self.partitions {
            for (batch, offset) in &log.stored_acks {
                if log.entries.get(offset).is_none_or(|entry| entry.batch != *batch) {
                    env.violated(|| format!("rule 1: batch {batch} was acknowledged at {offset} and is not there"));
                }
            }
            for (batch, offsets) in &log.seen {
                let promised = log.memory_acks.get(batch);
                if promised.is_some_and(|promised| !offsets.contains(promised)) && !batches.info(*batch).retried {
                    env.violated(|| format!("batch {batch} was answered {promised:?} and is at {offsets:?}"));
                }
            }
            let lost = log.memory_acks.keys().filter(|batch| !log.seen.contains_key(batch)).count();
            (0..lost.min(1)).for_each(|_| env.coverage.hit("client: memory ack lost"));
        }
    }
}

impl PartitionLog {
    /// Whether owners must know every producer: what a damaged segment says of them is lost with it.
    pub fn knows_producers(&self) -> bool {
        self.damaged_sealed.is_empty() && !self.not_waited_for && !(self.index_harmed && self.dropped)
    }

    /// Takes every batch of a sealed range, which must be whole and contiguous.
    fn take_range(&mut self, segment: &SegmentRecord, end: SegmentEnd, bytes: Bytes, batches: &Batches, env: &mut Env) {
        let mut next = segment.base_offset;
        for found in split_batches(&bytes) {
            let (header, batch) = match found {
                Ok(found) => found,
                Err(error) => {
                    env.violated(|| format!("rule 6: {} has a bad batch at {next}: {error}", segment.file));
                    return;
                }
            };
            if header.base_offset() != next || header.leader_epoch() != Some(segment.epoch) {
                env.violated(|| format!("{} has {header:?}, where {next} comes next", segment.file));
                return;
            }
            next = header.next_offset();
            self.take(&batch, "sealed", batches, env);
        }
        if next != end.offset {
            env.violated(|| format!("{} ends at {next}, its record says {end:?}", segment.file));
        }
    }

    fn take(&mut self, bytes: &Bytes, where_from: &str, batches: &Batches, env: &mut Env) {
        if let Err(error) = verify_crc(bytes) {
            return env.violated(|| format!("rule 6: a batch {where_from} is damaged: {error}"));
        }
        let header = BatchHeader::parse(bytes).expect("its checksum was just found good");
        self.take_found(Found { header, bytes, where_from }, batches, env);
    }

    fn take_found(&mut self, found: Found<'_>, batches: &Batches, env: &mut Env) {
        let Found { header, bytes, where_from } = found;
        let base = header.base_offset();
        let batch = Batches::number(&header);
        let epoch = header.leader_epoch().unwrap_or_default();
        let entry = Entry { next: header.next_offset(), batch, crc: header.crc(), epoch };
        if base < self.end {
            let known = self.entries.get(&base);
            if known != Some(&entry) {
                env.violated(|| format!("rule 5: {where_from} at {base}: {entry:?}, before it was {known:?}"));
            }
            return;
        }
        if base > self.end {
            let end = self.end;
            return env.violated(|| format!("{where_from}: {base} follows the log's end {end}, records are missing"));
        }
        if header.crc() != batches.info(batch).crc || bytes.len() != batches.info(batch).bytes.len() {
            env.violated(|| format!("{where_from} at {base}: batch {batch} is not what its producer sent"));
        }
        self.check_sequence(&header, batches.info(batch).after_memory_acks, env);
        self.check_order(batch, base, batches, env);
        self.producers.remember(&header, base);
        self.entries.insert(base, entry);
        self.end = entry.next;
    }

    /// Each sequence of an idempotent producer once, in order, without gaps.
    fn check_sequence(&mut self, header: &BatchHeader, after_memory_acks: bool, env: &mut Env) {
        let Some(key) = header.producer() else { return };
        let found = header.base_sequence();
        // A producer of which nothing is known may begin anywhere; what came before was answered from memory only.
        let first = if after_memory_acks { found } else { 0 };
        let (epoch, next) = self.sequences.get(&key.id).copied().unwrap_or((key.epoch, first));
        let expected = if key.epoch > epoch { 0 } else { next };
        if (key.epoch < epoch || found != expected) && self.knows_producers() {
            env.violated(|| format!("producer {} at {}: sequence {found}, {expected} comes next", key.id, self.end));
        }
        self.sequences.insert(key.id, (key.epoch, header.last_sequence() + 1));
    }

    /// A batch is in the log once, unless its producer sent it again without being able to know; a stream's batches
    /// are in the order sent.
    fn check_order(&mut self, batch: usize, base: Offset, batches: &Batches, env: &mut Env) {
        let info = batches.info(batch);
        let known = self.knows_producers();
        let offsets = self.seen.entry(batch).or_default();
        offsets.push(base);
        let may_repeat = info.retried && info.kind == LaneKind::PlainRetry;
        if offsets.len() > 1 && !may_repeat && known {
            env.violated(|| format!("rule 5: batch {batch} is in the log more than once: {offsets:?}"));
        }
        if may_repeat {
            return;
        }
        if let Some(last) = self.last_of_stream.insert(info.stream, info.place)
            && last >= info.place
            && known
        {
            env.violated(|| format!("order: place {} of stream {} after {last}", info.place, info.stream));
        }
    }
}
