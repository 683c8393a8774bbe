//! What a partition remembers of idempotent producers: the last five batches of each.
//!
//! Five, because a Kafka client keeps at most five requests in flight and may repeat any of them
//! (`max.in.flight.requests.per.connection`, KIP-98 and KIP-185).
//!
//! Invariants: a producer's batches are contiguous in sequence and growing in offset; the newest is last.

use std::collections::HashMap;

use bmq_proto::Offset;
use bmq_proto::record_batch::{BatchHeader, ProducerKey, add_to_sequence};
use bmq_storage::{ProducerBatch, ProducerEntry, ProducerSnapshot};

/// How many batches of a producer are remembered.
pub const REMEMBERED_BATCHES: usize = 5;

/// The most producers remembered; beyond that the one whose last batch is oldest is forgotten.
const MAX_PRODUCERS: usize = 100_000;

/// What a batch's sequence says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// The next one.
    Next,
    /// Nothing is remembered of the producer.
    Unknown,
    /// Appended before, at these offsets.
    Duplicate { base_offset: Offset, next_offset: Offset },
    /// Neither: something is missing, or it is too old to be remembered.
    Gap { expected: i32, found: i32 },
    /// A newer producer took this id over.
    Fenced { current: i16, found: i16 },
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: HashMap<i64, ProducerEntry>,
}

impl ProducerTable {
    /// The table that a snapshot describes.
    pub fn from_snapshot(snapshot: ProducerSnapshot) -> Self {
        Self { producers: snapshot.entries.into_iter().map(|entry| (entry.producer_id, entry)).collect() }
    }

    /// The table as it is written into an index, in order of producer id.
    pub fn snapshot(&self) -> ProducerSnapshot {
        let mut entries: Vec<ProducerEntry> = self.producers.values().cloned().collect();
        entries.sort_by_key(|entry| entry.producer_id);
        ProducerSnapshot { entries }
    }

    /// Judges a batch of a producer. A batch without a producer id has no sequence to judge.
    pub fn judge(&self, key: ProducerKey, header: &BatchHeader) -> Sequence {
        let found = header.base_sequence();
        let Some(entry) = self.producers.get(&key.id) else {
            return Sequence::Unknown;
        };
        if key.epoch < entry.producer_epoch {
            return Sequence::Fenced { current: entry.producer_epoch, found: key.epoch };
        }
        if key.epoch > entry.producer_epoch {
            return if found == 0 { Sequence::Next } else { Sequence::Gap { expected: 0, found } };
        }
        let same =
            |batch: &&ProducerBatch| batch.base_sequence == found && batch.last_sequence == header.last_sequence();
        if let Some(batch) = entry.batches.iter().find(same) {
            let next_offset = batch.base_offset.plus(u64::from(batch.record_count));
            return Sequence::Duplicate { base_offset: batch.base_offset, next_offset };
        }
        let expected = entry.batches.last().map_or(0, |batch| add_to_sequence(batch.last_sequence, 1));
        if found == expected { Sequence::Next } else { Sequence::Gap { expected, found } }
    }

    /// Remembers a batch that was appended at `base_offset`.
    pub fn remember(&mut self, header: &BatchHeader, base_offset: Offset) {
        let Some(key) = header.producer() else { return };
        self.make_room_for(key.id);
        let entry = self.producers.entry(key.id).or_insert_with(|| ProducerEntry {
            producer_id: key.id,
            producer_epoch: key.epoch,
            last_timestamp_ms: header.max_timestamp(),
            batches: Vec::new(),
        });
        if entry.producer_epoch != key.epoch {
            entry.producer_epoch = key.epoch;
            entry.batches.clear();
        }
        entry.last_timestamp_ms = header.max_timestamp();
        if entry.batches.len() == REMEMBERED_BATCHES {
            entry.batches.remove(0);
        }
        entry.batches.push(ProducerBatch {
            base_sequence: header.base_sequence(),
            last_sequence: header.last_sequence(),
            base_offset,
            record_count: header.record_count(),
        });
    }

    fn make_room_for(&mut self, producer: i64) {
        if self.producers.len() < MAX_PRODUCERS || self.producers.contains_key(&producer) {
            return;
        }
        let last_offset = |entry: &ProducerEntry| entry.batches.last().map_or(Offset::ZERO, |batch| batch.base_offset);
        let oldest = self.producers.values().min_by_key(|entry| (last_offset(entry), entry.producer_id));
        if let Some(oldest) = oldest.map(|entry| entry.producer_id) {
            self.producers.remove(&oldest);
        }
    }
}
