//! A producer with a partition to itself, at the broker's own interface: it knows what was acknowledged, and can send
//! the same again. Since nobody else writes there, each record's offset is its sequence.

use anyhow::{Context, Result, ensure};
use bmq_proto::TopicPartition;
use bmq_proto::broker::{AckLevel, AppendAnswer, AppendItem, AppendStream};
use bmq_proto::record_batch::{BatchBuilder, Codec, ProducerKey};
use bmq_proto::{Epoch, Offset, ServiceError};
use bytes::Bytes;

use crate::payload::PayloadId;

/// How many batches may be unanswered. With those that [`Producer::resend`] sends again they are no more than the
/// server remembers of a producer.
const WINDOW: usize = 3;
const SENT_AGAIN: usize = 2;

/// Ids of batches are unique in a stream: the partition stands above these bits.
const PARTITION_SHIFT: u32 = 32;

/// See the head of the file.
pub struct Producer {
    partition: TopicPartition,
    epoch: Epoch,
    batches: Vec<Batch>,
    /// The first of these were acknowledged.
    acked: usize,
    failure: Option<ServiceError>,
}

#[derive(Clone, Copy)]
struct Batch {
    base_sequence: u64,
    records: u64,
}

impl Producer {
    pub fn new(partition: TopicPartition, epoch: Epoch) -> Self {
        Self { partition, epoch, batches: Vec::new(), acked: 0, failure: None }
    }

    /// The partition is served under another epoch now.
    pub fn begin_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.failure = None;
    }

    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// Records sent, whatever became of them.
    pub fn sent_records(&self) -> u64 {
        records_of(&self.batches)
    }

    pub fn acked_records(&self) -> u64 {
        records_of(&self.batches[..self.acked])
    }

    pub fn may_send(&self) -> bool {
        self.failure.is_none() && self.unanswered() < WINDOW
    }

    pub fn unanswered(&self) -> usize {
        self.batches.len() - self.acked
    }

    /// Why the producer stopped, if it did.
    pub fn failure(&self) -> Option<&ServiceError> {
        self.failure.as_ref()
    }

    /// Sends a new batch for a stored ack.
    pub async fn send(&mut self, stream: &AppendStream, records: u64) -> Result<()> {
        self.batches.push(Batch { base_sequence: self.sent_records(), records });
        self.put(stream, self.batches.len() - 1).await
    }

    /// Takes an answer if it is to a batch of this producer.
    pub fn take(&mut self, answer: &AppendAnswer) -> Result<bool> {
        if answer.id >> PARTITION_SHIFT != u64::from(self.partition.partition.0) {
            return Ok(false);
        }
        let number = answer.id as u32 as usize;
        match &answer.result {
            Ok(appended) => {
                let expected = Offset(self.batches[number].base_sequence);
                ensure!(appended.base_offset == expected, "{expected} was written at {}", appended.base_offset);
                ensure!(number == self.acked, "batch {number} was acknowledged after {} others", self.acked);
                self.acked += 1;
            }
            Err(error) => self.failure = Some(error.clone()),
        }
        Ok(true)
    }

    /// Sends the newest batches again, those without an answer and a few of the others, and waits until each is in the
    /// log once. Returns how many the server had already.
    pub async fn resend(&mut self, stream: &mut AppendStream) -> Result<usize> {
        let mut known = 0;
        for number in self.acked.saturating_sub(SENT_AGAIN)..self.batches.len() {
            self.put(stream, number).await?;
            let answer = next_answer(stream).await?;
            let appended = answer.result.with_context(|| format!("batch {number} of {}", self.partition))?;
            let expected = Offset(self.batches[number].base_sequence);
            ensure!(appended.base_offset == expected, "{expected} was written at {}", appended.base_offset);
            ensure!(
                appended.deduplicated || number >= self.acked,
                "batch {number} was acknowledged, and not known again"
            );
            known += usize::from(appended.deduplicated);
        }
        self.acked = self.batches.len();
        Ok(known)
    }

    async fn put(&self, stream: &AppendStream, number: usize) -> Result<()> {
        let channel = u64::from(self.partition.partition.0);
        let id = channel << PARTITION_SHIFT | number as u64;
        let (partition, epoch, ack) = (self.partition, self.epoch, AckLevel::Stored);
        let batch = self.build(self.batches[number]);
        let item = AppendItem { id, channel, generation: 0, partition, epoch, ack, batch };
        stream.items.send(vec![item]).await.ok().context("the broker ended the stream")
    }

    fn build(&self, batch: Batch) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::None, 1_000);
        for sequence in batch.base_sequence..batch.base_sequence + batch.records {
            let payload = self.payload(sequence);
            builder.append(1_000, None, Some(&payload), &[]).expect("small records fit");
        }
        let producer = ProducerKey { id: i64::from(self.partition.partition.0), epoch: 0 };
        builder.set_producer(producer, batch.base_sequence as i32);
        builder.build()
    }

    /// The value of the record at this sequence, which is its offset too.
    pub fn payload(&self, sequence: u64) -> Vec<u8> {
        let partition = self.partition.partition.0;
        PayloadId { producer: partition, partition, sequence }.payload()
    }
}

fn records_of(batches: &[Batch]) -> u64 {
    batches.last().map_or(0, |last| last.base_sequence + last.records)
}

/// The next answer of a stream on which one batch is unanswered.
async fn next_answer(stream: &mut AppendStream) -> Result<AppendAnswer> {
    use futures::StreamExt;
    let answers = stream.answers.next().await.context("the broker ended the stream")?;
    ensure!(answers.len() == 1, "{} answers to one batch", answers.len());
    answers.into_iter().next().context("no answer")
}
