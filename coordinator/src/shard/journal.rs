//! What a shard stores, on its way into the partition. Pure.
//!
//! ```text
//!   append ─▶ pending entries ─▶ batches in flight ─▶ stored
//!                                 (in order, bounded)
//! ```
//! Invariants: entries are numbered from 1 in the order in which they came, and reach the partition in it; `stored`
//! counts those below the high watermark; a snapshot's entries follow each other without another between them, the
//! first of them at the beginning of a batch.

use std::collections::VecDeque;

use bmq_common::clock::WallMillis;
use bmq_proto::Offset;
use bmq_proto::record_batch::{BatchBuilder, Codec, max_record_len};
use bytes::Bytes;
use prost::Message;

use super::entry::{EntryError, EntryKind, encode};

/// About how many bytes of a snapshot stand in one entry.
const CHUNK_BYTES: usize = 128 << 10;

/// How much a journal lets into the partition, and when it asks for a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct JournalLimits {
    pub max_batch_bytes: usize,
    /// Batches are held back while this much is in flight.
    pub in_flight_bytes: usize,
    /// A snapshot is due when as many bytes as this, and a multiple of the last snapshot, came after it.
    pub snapshot_bytes: usize,
}

/// A snapshot is due when the records after the last one have this many times its bytes.
const SNAPSHOT_RATIO: usize = 2;

/// Names one batch in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight(u64);

#[derive(Debug)]
pub struct Journal {
    limits: JournalLimits,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// The number of the last entry taken.
    taken: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    next_flight: u64,
    stored: u64,
    /// Bytes after the last snapshot.
    since_snapshot: usize,
    /// Of the last snapshot.
    snapshot_bytes: usize,
    snapshot: Option<Snapshot>,
}

#[derive(Debug)]
struct Pending {
    kind: EntryKind,
    value: Bytes,
    /// Bytes that callers wait for; a snapshot holds nobody up.
    counted: usize,
    /// The entry that is stored with this; parts do not count.
    entry: Option<u64>,
}

#[derive(Debug)]
struct InFlight {
    flight: Flight,
    bytes: usize,
    /// The last entry that it completes, if it does one.
    entry: Option<u64>,
    begins_snapshot: bool,
    stored_at: Option<Offset>,
}

/// A snapshot on its way.
#[derive(Debug)]
struct Snapshot {
    /// The number of its last entry.
    end: u64,
    begins_at: Option<Offset>,
}

impl Journal {
    /// A journal that goes on behind a snapshot of `snapshot_bytes` and `since_snapshot` bytes after it.
    pub fn new(limits: JournalLimits, snapshot_bytes: usize, since_snapshot: usize) -> Self {
        Self {
            limits,
            pending: VecDeque::new(),
            pending_bytes: 0,
            taken: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            next_flight: 0,
            stored: 0,
            since_snapshot,
            snapshot_bytes,
            snapshot: None,
        }
    }

    /// Takes what one append stores.
    pub fn append<R: Message>(&mut self, records: &[R]) -> Result<(), EntryError> {
        self.push(EntryKind::Append, encode(records)?);
        Ok(())
    }

    /// The number of the last entry taken: who waits for it waits for all.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of the last entry that is below the high watermark, with all before it.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes that callers want stored and that wait for room in flight.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether the records after the last snapshot have become many against the state.
    pub fn is_snapshot_due(&self) -> bool {
        let enough = self.limits.snapshot_bytes.max(SNAPSHOT_RATIO * self.snapshot_bytes);
        self.snapshot.is_none() && self.since_snapshot > enough
    }

    /// Takes the whole state as it is after everything taken so far.
    pub fn begin_snapshot<R: Message>(&mut self, records: &[R]) -> Result<(), EntryError> {
        assert!(self.snapshot.is_none(), "one snapshot at a time");
        self.push(EntryKind::SnapshotBegin, Bytes::new());
        self.snapshot_bytes = 0;
        let mut rest = records;
        while !rest.is_empty() {
            let (chunk, others) = rest.split_at(chunk_len(rest));
            let value = encode(chunk)?;
            self.snapshot_bytes += value.len();
            self.push(EntryKind::SnapshotChunk, value);
            rest = others;
        }
        self.push(EntryKind::SnapshotEnd, Bytes::new());
        self.snapshot = Some(Snapshot { end: self.taken, begins_at: None });
        self.since_snapshot = 0;
        Ok(())
    }

    fn push(&mut self, kind: EntryKind, mut value: Bytes) {
        self.taken += 1;
        // Half a batch leaves room for whatever stands around the value.
        let most = self.limits.max_batch_bytes / 2;
        let counts = kind == EntryKind::Append;
        while value.len() > most {
            self.queue(EntryKind::Part, value.split_to(most), None, counts);
        }
        self.queue(kind, value, Some(self.taken), counts);
    }

    fn queue(&mut self, kind: EntryKind, value: Bytes, entry: Option<u64>, counts: bool) {
        let counted = if counts { value.len() } else { 0 };
        self.pending_bytes += counted;
        self.since_snapshot += value.len();
        self.pending.push_back(Pending { kind, value, counted, entry });
    }

    /// The next batch to append, if there is something to store and room for it in flight.
    pub fn next_batch(&mut self, now: WallMillis) -> Option<(Flight, Bytes)> {
        if self.pending.is_empty() || self.in_flight_bytes >= self.limits.in_flight_bytes {
            return None;
        }
        let mut builder = BatchBuilder::new(Codec::None, now.0);
        let (mut entry, mut begins_snapshot) = (None, false);
        while let Some(next) = self.pending.front() {
            let key = next.kind.key();
            let begins = next.kind == EntryKind::SnapshotBegin;
            let length = builder.estimated_len() + max_record_len(Some(&key), Some(&next.value), &[]);
            if !builder.is_empty() && (begins || length > self.limits.max_batch_bytes) {
                break;
            }
            builder.append(now.0, Some(&key), Some(&next.value), &[]).expect("half a batch is far below a GiB");
            begins_snapshot |= begins;
            entry = next.entry.or(entry);
            self.pending_bytes -= next.counted;
            self.pending.pop_front();
        }
        let batch = builder.build();
        let flight = Flight(self.next_flight);
        self.next_flight += 1;
        self.in_flight_bytes += batch.len();
        let bytes = batch.len();
        self.in_flight.push_back(InFlight { flight, bytes, entry, begins_snapshot, stored_at: None });
        Some((flight, batch))
    }

    /// A batch is below the high watermark. Returns where the newest whole snapshot begins, if this made it whole:
    /// nothing before that is needed any more.
    pub fn note_stored(&mut self, flight: Flight, base_offset: Offset) -> Option<Offset> {
        if let Some(found) = self.in_flight.iter_mut().find(|found| found.flight == flight) {
            found.stored_at = Some(base_offset);
        }
        while let Some(at) = self.in_flight.front().and_then(|first| first.stored_at) {
            let first = self.in_flight.pop_front().expect("it was just seen");
            self.in_flight_bytes -= first.bytes;
            self.stored = first.entry.unwrap_or(self.stored);
            if let Some(snapshot) = self.snapshot.as_mut().filter(|_| first.begins_snapshot) {
                snapshot.begins_at = Some(at);
            }
        }
        let done = self.snapshot.take_if(|snapshot| snapshot.end <= self.stored)?;
        done.begins_at
    }
}

/// How many of the first records make one chunk; at least one.
fn chunk_len<R: Message>(records: &[R]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&R| {
        bytes += record.encoded_len();
        bytes <= CHUNK_BYTES
    };
    records.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::record_batch::{RecordLimits, records};

    const LIMITS: JournalLimits = JournalLimits { max_batch_bytes: 1000, in_flight_bytes: 2000, snapshot_bytes: 5000 };

    fn text(length: usize) -> Vec<String> {
        vec!["x".repeat(length)]
    }

    fn keys(batch: &Bytes) -> Vec<u8> {
        let records = records(batch, &RecordLimits::default()).unwrap();
        records.map(|record| record.unwrap().key.unwrap()[0]).collect()
    }

    #[test]
    fn entries_share_batches_and_count_when_all_before_them_is_stored() {
        let mut journal = Journal::new(LIMITS, 0, 0);
        (0..3).for_each(|_| journal.append(&text(300)).unwrap());
        let (first, batch) = journal.next_batch(WallMillis(1)).unwrap();
        assert_eq!(keys(&batch), [0, 0]);
        let (second, batch) = journal.next_batch(WallMillis(1)).unwrap();
        assert_eq!(keys(&batch), [0]);
        assert!(journal.next_batch(WallMillis(1)).is_none());
        journal.note_stored(second, Offset(2));
        assert_eq!(journal.stored(), 0, "the first is not stored yet");
        journal.note_stored(first, Offset(0));
        assert_eq!((journal.stored(), journal.taken()), (3, 3));
    }

    #[test]
    fn a_long_entry_is_cut_and_what_is_in_flight_is_bounded() {
        let mut journal = Journal::new(LIMITS, 0, 0);
        journal.append(&text(4000)).unwrap();
        let mut flights = Vec::new();
        while let Some((flight, batch)) = journal.next_batch(WallMillis(1)) {
            assert!(batch.len() <= LIMITS.max_batch_bytes);
            flights.push(flight);
        }
        assert!((3..6).contains(&flights.len()) && journal.pending_bytes() > 0, "{flights:?}");
        for flight in flights {
            assert_eq!(journal.note_stored(flight, Offset(0)), None);
        }
        assert_eq!(journal.stored(), 0, "not whole yet");
        while let Some((flight, _)) = journal.next_batch(WallMillis(1)) {
            journal.note_stored(flight, Offset(0));
        }
        assert_eq!((journal.stored(), journal.pending_bytes()), (1, 0));
    }

    #[test]
    fn a_snapshot_begins_its_own_batch_and_is_told_when_whole() {
        let mut journal = Journal::new(LIMITS, 0, 4000);
        journal.append(&text(900)).unwrap();
        assert!(!journal.is_snapshot_due());
        journal.append(&text(200)).unwrap();
        assert!(journal.is_snapshot_due());
        journal.begin_snapshot(&text(600)).unwrap();
        assert!(!journal.is_snapshot_due());
        let mut began = None;
        for offset in 0.. {
            let (flight, batch) = journal.next_batch(WallMillis(1)).unwrap();
            if keys(&batch)[0] == EntryKind::SnapshotBegin as u8 {
                began = Some(Offset(offset));
            }
            if let Some(trim) = journal.note_stored(flight, Offset(offset)) {
                assert_eq!(Some(trim), began);
                break;
            }
        }
        assert!(began.is_some());
        assert_eq!(journal.stored(), journal.taken());
        journal.append(&text(LIMITS.snapshot_bytes - 100)).unwrap();
        assert!(!journal.is_snapshot_due(), "{journal:?}");
    }
}
