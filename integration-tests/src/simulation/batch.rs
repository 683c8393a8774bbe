//! The batches that the clients of a run make, each known by its number wherever it turns up again.

use bmq_proto::broker::AckLevel;
use bmq_proto::record_batch::{BatchBuilder, BatchHeader, Codec, ProducerKey};
use bytes::Bytes;

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneKind {
    /// Retries everything, under a producer id.
    Idempotent,
    /// Does not send again what may have been appended.
    PlainDrop,
    /// Sends everything again: at least once.
    PlainRetry,
}

/// What is known of a batch.
#[derive(Debug, Clone)]
pub struct BatchInfo {
    pub lane: usize,
    /// Its place in its lane.
    pub place: usize,
    pub kind: LaneKind,
    pub ack: AckLevel,
    /// Earlier batches of its producer may have been answered from memory, and may be lost.
    pub after_memory_acks: bool,
    pub bytes: Bytes,
    pub crc: u32,
    pub base_sequence: i32,
    pub records: u32,
    /// The stream that it was last sent on.
    pub stream: u64,
    /// It was sent again after an answer that left open whether it had been appended.
    pub retried: bool,
}

/// Every batch of a run.
#[derive(Debug, Default)]
pub struct Batches(Vec<BatchInfo>);

/// What a new batch shall be.
#[derive(Debug, Clone, Copy)]
pub struct NewBatch {
    pub lane: usize,
    pub place: usize,
    pub kind: LaneKind,
    pub ack: AckLevel,
    pub after_memory_acks: bool,
    pub producer: Option<(ProducerKey, i32)>,
    pub records: u32,
    pub value_len: usize,
}

impl Batches {
    pub fn make(&mut self, new: NewBatch) -> usize {
        let number = self.0.len();
        // The number travels as the timestamp, which the checksum covers.
        let timestamp = number as i64;
        let mut builder = BatchBuilder::new(Codec::None, timestamp);
        let value = vec![number as u8; new.value_len];
        for _ in 0..new.records {
            builder.append(timestamp, None, Some(&value), &[]).expect("the record is small");
        }
        if let Some((key, sequence)) = new.producer {
            builder.set_producer(key, sequence);
        }
        let bytes = builder.build();
        let crc = BatchHeader::parse(&bytes).expect("it was just built").crc();
        self.0.push(BatchInfo {
            lane: new.lane,
            place: new.place,
            kind: new.kind,
            ack: new.ack,
            after_memory_acks: new.after_memory_acks,
            bytes,
            crc,
            base_sequence: new.producer.map_or(-1, |(_, sequence)| sequence),
            records: new.records,
            stream: 0,
            retried: false,
        });
        number
    }

    /// Which batch a stored one is.
    pub fn number(header: &BatchHeader) -> usize {
        header.base_timestamp() as usize
    }

    pub fn info(&self, number: usize) -> &BatchInfo {
        &self.0[number]
    }

    pub fn info_mut(&mut self, number: usize) -> &mut BatchInfo {
        &mut self.0[number]
    }
}
