//! The producer: takes records, gathers them into batches, and delivers each partition's in order.
//!
//! ```text
//!   send ─▶ buffer space ─▶ partition ─▶ queue of its batches ─▶ stream ─▶ server
//!     │     (bounded, waits)             (≤ 5 in flight)          (credit)    │
//!     └─▶ Delivery ◀──────────────────── offsets or error ◀───────────────────┘
//! ```
//!
//! Handles are cheap to clone. One task owns everything behind them; it ends with `close` or the last handle.

mod batch;
mod config;
mod driver;
mod partitioner;
mod queue;
mod state;
mod stream;
mod topics;

#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bmq_common::{Clock, Random, Shutdown, SystemClock, Tasks};
use bmq_proto::ErrorCode;
use bmq_proto::v1::messaging_client::MessagingClient;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::transport::Channel;

pub use config::{Ack, Compression, ProducerConfig};

use crate::{Admin, Error, Record};
use batch::Taken;
use driver::{Command, Driver};
use queue::Rules;
use state::State;
use topics::Topics;

/// What a record costs beside its own bytes: bookkeeping here, and its share of a batch.
const RECORD_OVERHEAD_BYTES: usize = 128;

/// Records on their way to the producer's task; they hold buffer space already.
const QUEUED_COMMANDS: usize = 1024;

/// Where a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: u32,
    /// The record's offset there. After a memory ack it may still be lost, and the offset then name another record.
    pub offset: u64,
    /// It had been written by an earlier try.
    pub deduplicated: bool,
}

/// The future of a record that was sent. Dropping it takes nothing back.
#[derive(Debug)]
pub struct Delivery {
    answer: oneshot::Receiver<Result<RecordMetadata, Error>>,
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(Pin::new(&mut self.answer).poll(context)).unwrap_or_else(|_| {
            Err(Error::unknown(ErrorCode::Unavailable, "the producer was dropped before the record was delivered"))
        }))
    }
}

/// A producer. Clones share its buffer and its connection.
///
/// Call [`Producer::close`] or [`Producer::flush`] at the end: when the last handle is dropped, records that have no
/// answer yet are given up.
#[derive(Clone)]
pub struct Producer {
    commands: mpsc::Sender<Command>,
    space: Arc<Semaphore>,
    buffer_bytes: usize,
    topics: Topics,
    /// Ends the producer's task when the last handle is dropped.
    _tasks: Tasks,
}

impl Producer {
    pub(crate) fn start(
        stub: MessagingClient<Channel>,
        admin: Admin,
        config: ProducerConfig,
        random: Random,
    ) -> Result<Self, Error> {
        config.validate()?;
        let (sender, commands) = mpsc::channel(QUEUED_COMMANDS);
        let rules = Rules {
            linger: config.linger,
            delivery_timeout: config.delivery_timeout,
            batch_bytes: config.batch_bytes,
            codec: config.compression.into(),
            idempotent: config.idempotent,
        };
        let topics = Topics::new(admin);
        let state = State::new(rules, random.clone());
        let driver = Driver { state, commands, stub, ack: config.ack, topics: topics.clone(), random };
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("producer", driver.run());
        Ok(Self {
            commands: sender,
            space: Arc::new(Semaphore::new(config.buffer_bytes)),
            buffer_bytes: config.buffer_bytes,
            topics,
            _tasks: tasks,
        })
    }

    /// Hands a record over; waits while the buffer is full. The returned future tells what became of the record.
    ///
    /// Records of one partition are written in the order in which their `send` returned. Fails without effect if the
    /// topic or partition does not exist, the record is larger than the buffer, or the producer is closed.
    pub async fn send(&self, topic: &str, record: Record) -> Result<Delivery, Error> {
        let (topic, partition_count) = self.topics.partition_count(topic).await?;
        if let Some(partition) = record.partition
            && partition >= partition_count
        {
            let text = format!("topic {topic} has {partition_count} partitions, there is no partition {partition}");
            return Err(Error::not_applied(ErrorCode::UnknownPartition, text));
        }

        let size = size_of(&record);
        if size > self.buffer_bytes {
            let text = format!("record of {size} bytes, the producer's buffer has {}", self.buffer_bytes);
            return Err(Error::not_applied(ErrorCode::MessageTooLarge, text));
        }
        let permits = u32::try_from(size).expect("the buffer's size has 32 bits");
        let space = Arc::clone(&self.space).acquire_many_owned(permits).await.expect("the semaphore is never closed");

        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| SystemClock.wall().0);
        let (answer, delivery) = oneshot::channel();
        let taken = Taken { topic, partition_count, record, timestamp_ms, answer, space };
        self.commands.send(Command::Take(taken)).await.map_err(|_| closed())?;
        Ok(Delivery { answer: delivery })
    }

    /// Returns when every record sent before has its answer, good or bad. Their batches do not linger.
    pub async fn flush(&self) -> Result<(), Error> {
        self.ask(Command::Flush).await
    }

    /// Flushes, and ends the producer, also for other handles.
    pub async fn close(self) -> Result<(), Error> {
        self.ask(Command::Close).await
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

fn size_of(record: &Record) -> usize {
    let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers = record.headers.iter().map(|header| header.key.len() + len(&header.value) + RECORD_OVERHEAD_BYTES);
    RECORD_OVERHEAD_BYTES + len(&record.key) + len(&record.value) + headers.sum::<usize>()
}

fn closed() -> Error {
    Error::not_applied(ErrorCode::Unavailable, "the producer is closed")
}
