//! What a partition remembers of idempotent producers at an offset; part of a segment's index.
//! Bytes: `docs/formats/index.md`.

use bmq_proto::Offset;
use bytes::{BufMut, BytesMut};

use crate::byte_reader::{ByteReader, Malformed};

/// How many batches of a producer are remembered: as many as Kafka's clients have in flight.
pub const MAX_PRODUCER_BATCHES: usize = 5;

const ENTRY_LEN_AT_LEAST: usize = 19;

/// All producers at one offset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProducerSnapshot {
    /// Sorted by producer id, each id once.
    pub entries: Vec<ProducerEntry>,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub last_timestamp_ms: i64,
    /// The last batches, oldest first; at most `MAX_PRODUCER_BATCHES`.
    pub batches: Vec<ProducerBatch>,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: Offset,
    pub record_count: u32,
}

impl ProducerSnapshot {
    /// A snapshot of these producers, in any order; each id at most once, none with more batches than are remembered.
    pub fn new(mut entries: Vec<ProducerEntry>) -> Self {
        entries.sort_by_key(|entry| entry.producer_id);
        assert!(entries.is_sorted_by(|a, b| a.producer_id < b.producer_id), "a producer stands twice in a snapshot");
        assert!(
            entries.iter().all(|entry| entry.batches.len() <= MAX_PRODUCER_BATCHES),
            "a producer has too many batches"
        );
        Self { entries }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(u32::try_from(self.entries.len()).expect("producers are far fewer than four billion"));
        for entry in &self.entries {
            out.put_i64(entry.producer_id);
            out.put_i16(entry.producer_epoch);
            out.put_i64(entry.last_timestamp_ms);
            out.put_u8(u8::try_from(entry.batches.len()).expect("a producer has at most five batches"));
            for batch in &entry.batches {
                out.put_i32(batch.base_sequence);
                out.put_i32(batch.last_sequence);
                out.put_u64(batch.base_offset.0);
                out.put_u32(batch.record_count);
            }
        }
    }

    pub(crate) fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let count = reader.count("producers", ENTRY_LEN_AT_LEAST)?;
        let mut entries: Vec<ProducerEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = ProducerEntry::decode(reader)?;
            if entries.last().is_some_and(|last| last.producer_id >= entry.producer_id) {
                return Err(reader.malformed("producers are not sorted by id"));
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

impl ProducerEntry {
    fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        let producer_id = reader.i64("producer id")?;
        let producer_epoch = reader.i16("producer epoch")?;
        let last_timestamp_ms = reader.i64("producer's timestamp")?;
        let count = usize::from(reader.u8("number of batches")?);
        if count > MAX_PRODUCER_BATCHES {
            return Err(reader.malformed(format!("a producer has {count} batches")));
        }
        let batches = (0..count).map(|_| ProducerBatch::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { producer_id, producer_epoch, last_timestamp_ms, batches })
    }
}

impl ProducerBatch {
    fn decode(reader: &mut ByteReader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            base_sequence: reader.i32("base sequence")?,
            last_sequence: reader.i32("last sequence")?,
            base_offset: Offset(reader.u64("base offset")?),
            record_count: reader.u32("record count")?,
        })
    }
}
