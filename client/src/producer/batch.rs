//! One batch on its way: from its first record until each of its records is answered.

use std::mem;
use std::sync::Arc;

use bmq_proto::record_batch::{
    BatchBuilder, BatchError, Codec, HeaderRef, ProducerKey, RecordLimits, max_record_len, records,
};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::RecordMetadata;
use crate::{Error, Record};

/// Who waits for what became of a record.
pub(super) type Answer = oneshot::Sender<Result<RecordMetadata, Error>>;

/// A record that the producer has taken.
pub(super) struct Taken {
    pub topic: Arc<str>,
    /// How many partitions the topic has; `record.partition`, if given, is one of them.
    pub partition_count: u32,
    pub record: Record,
    pub timestamp_ms: i64,
    pub answer: Answer,
    /// Its share of the producer's buffer.
    pub space: OwnedSemaphorePermit,
}

/// A batch, and who waits for it.
pub(super) struct Batch {
    /// Counts the batches of the producer.
    pub number: u64,
    pub begun_at: Instant,
    contents: Contents,
    answers: Vec<Answer>,
    /// Freed with the batch.
    space: OwnedSemaphorePermit,
    /// The producer and first sequence under which it is sent, once it is and if the producer is idempotent.
    pub identity: Option<(ProducerKey, i32)>,
    /// Its number on the wire, while it is sent and not answered. New with each try.
    pub sent_as: Option<u64>,
    /// An earlier try had no clear answer.
    pub may_be_applied: bool,
}

enum Contents {
    /// Takes more records.
    Open(BatchBuilder),
    /// Takes no more, and is not built yet.
    Full(BatchBuilder),
    Built(Bytes),
}

impl Batch {
    /// A batch of one record.
    pub fn begin(number: u64, codec: Codec, taken: Taken, now: Instant) -> Result<Self, (Answer, BatchError)> {
        let mut builder = BatchBuilder::new(codec, taken.timestamp_ms);
        if let Err(error) = append(&mut builder, &taken) {
            return Err((taken.answer, error));
        }
        Ok(Self {
            number,
            begun_at: now,
            contents: Contents::Open(builder),
            answers: vec![taken.answer],
            space: taken.space,
            identity: None,
            sent_as: None,
            may_be_applied: false,
        })
    }

    /// Adds a record. Only to an open batch.
    pub fn add(&mut self, taken: Taken) -> Result<(), (Answer, BatchError)> {
        let Contents::Open(builder) = &mut self.contents else { panic!("the batch takes no more records") };
        if let Err(error) = append(builder, &taken) {
            return Err((taken.answer, error));
        }
        self.answers.push(taken.answer);
        self.space.merge(taken.space);
        Ok(())
    }

    pub fn is_open(&self) -> bool {
        matches!(self.contents, Contents::Open(_))
    }

    /// Whether the record fits without making the batch longer than `batch_bytes`.
    pub fn has_room_for(&self, record: &Record, batch_bytes: usize) -> bool {
        self.len() + max_record_len(record.key.as_deref(), record.value.as_deref(), &header_refs(record)) <= batch_bytes
    }

    pub fn close(&mut self) {
        let contents = mem::replace(&mut self.contents, Contents::Built(Bytes::new()));
        self.contents = match contents {
            Contents::Open(builder) => Contents::Full(builder),
            closed => closed,
        };
    }

    /// Bytes it has, or while it is not built, will have at most unless its records cannot be compressed.
    pub fn len(&self) -> usize {
        match &self.contents {
            Contents::Open(builder) | Contents::Full(builder) => builder.estimated_len(),
            Contents::Built(bytes) => bytes.len(),
        }
    }

    pub fn record_count(&self) -> u32 {
        u32::try_from(self.answers.len()).expect("a batch's length has 31 bits, and a record more than a byte")
    }

    /// Its bytes as they go out under its identity. It takes no more records.
    pub fn build(&mut self) -> Bytes {
        let contents = mem::replace(&mut self.contents, Contents::Built(Bytes::new()));
        let bytes = match contents {
            Contents::Built(bytes) => bytes,
            Contents::Open(mut builder) | Contents::Full(mut builder) => {
                if let Some((producer, base_sequence)) = self.identity {
                    builder.set_producer(producer, base_sequence);
                }
                builder.build()
            }
        };
        self.contents = Contents::Built(bytes.clone());
        bytes
    }

    /// Gives the batch another identity, also if it is built.
    pub fn identify(&mut self, producer: ProducerKey, base_sequence: i32) {
        assert!(!self.may_be_applied, "under another identity it could be applied twice");
        self.identity = Some((producer, base_sequence));
        if let Contents::Built(bytes) = &self.contents {
            self.contents = Contents::Full(reopen(bytes));
        }
    }

    /// Tells everyone who waits that it was written.
    pub fn succeed(self, partition: u32, base_offset: u64, deduplicated: bool) {
        for (answer, offset) in self.answers.into_iter().zip(base_offset..) {
            // Whoever dropped the future does not want to know.
            let _ = answer.send(Ok(RecordMetadata { partition, offset, deduplicated }));
        }
    }

    /// Tells everyone who waits that it failed. What an earlier try may have done counts too.
    pub fn fail(self, error: &Error) {
        let may_have_been_applied = error.may_have_been_applied || self.may_be_applied;
        for answer in self.answers {
            let _ = answer.send(Err(Error { may_have_been_applied, ..error.clone() }));
        }
    }
}

fn append(builder: &mut BatchBuilder, taken: &Taken) -> Result<(), BatchError> {
    let Record { key, value, .. } = &taken.record;
    builder.append(taken.timestamp_ms, key.as_deref(), value.as_deref(), &header_refs(&taken.record))?;
    Ok(())
}

fn header_refs(record: &Record) -> Vec<HeaderRef<'_>> {
    record.headers.iter().map(|header| (&header.key[..], header.value.as_deref())).collect()
}

/// The builder that a batch of ours was built with. For the rare case that it must be built again.
fn reopen(batch: &Bytes) -> BatchBuilder {
    let limits = RecordLimits { max_decompressed_bytes: usize::MAX >> 1, max_headers: usize::MAX };
    let opened = records(batch, &limits).expect("we built the batch ourselves");
    let mut builder = BatchBuilder::new(opened.header().codec(), opened.header().base_timestamp());
    for record in opened {
        let record = record.expect("we built the batch ourselves");
        let headers: Vec<HeaderRef<'_>> =
            record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        builder
            .append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
            .expect("it was in the batch before");
    }
    builder
}
