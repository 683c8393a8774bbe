//! The consumer: a stream of records from given positions on.
//!
//! ```text
//!   server ─▶ batches (no more than there is credit for) ─▶ records at or above the position ─▶ user
//!      ▲                                                                                          │
//!      └───────────────── credit for what was consumed, when the user asks for more ◀─────────────┘
//! ```
//!
//! Nothing runs while the user does not poll, so memory is bounded by `buffer_bytes` and one opened batch.
//!
//! Invariant: a position only grows, and a record is given out only when it moves its position: so each comes once,
//! also across lost connections.

mod positions;
mod reader;
mod stream;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::ErrorCode;
use bmq_proto::v1::messaging_client::MessagingClient;
use futures::Stream;
use futures::future::BoxFuture;
use tonic::transport::Channel;

use crate::{Admin, ConsumerRecord, Error};
use positions::Positions;
use reader::{Filled, Reader};

/// Where to begin in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// This offset. `OutOfRange` if it is below the first one kept or above the high watermark.
    Offset(u64),
    /// The first record kept.
    Earliest,
    /// Records that become visible from now on.
    Latest,
    /// The first record with this timestamp, in milliseconds since 1970, or a later one; like `Latest` if there is none.
    Timestamp(i64),
}

/// One partition to read, and where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Where to begin.
    pub start: StartAt,
}

impl<T: Into<String>> From<(T, u32, StartAt)> for Subscription {
    fn from((topic, partition, start): (T, u32, StartAt)) -> Self {
        Self { topic: topic.into(), partition, start }
    }
}

/// Where a partition begins and ends, as the server last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset kept.
    pub log_start: u64,
    /// First offset not yet visible.
    pub high_watermark: u64,
}

/// The configuration of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// The server waits until it has this many bytes, or `max_wait` has passed.
    pub min_bytes: u32,
    /// How long the server waits for `min_bytes`.
    pub max_wait: Duration,
    /// Bytes of one answer of the server; a larger batch comes alone.
    pub max_bytes: u32,
    /// Bytes that the server may send ahead of what was consumed. Must hold the largest batch of the topic.
    pub buffer_bytes: u64,
    /// How long the connection may be gone before the stream says so. It goes on trying when it is polled again.
    pub give_up_after: Duration,
}

impl Default for ConsumerConfig {
    /// Records at once, answers of 1 MiB, 16 MiB ahead, an error after a minute without a server.
    fn default() -> Self {
        Self {
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            max_bytes: 1 << 20,
            buffer_bytes: 16 << 20,
            give_up_after: Duration::from_secs(60),
        }
    }
}

/// A stream of records: in order within each partition, each once.
///
/// An error concerns one partition, which then is not read any further (a retriable one is dealt with silently), or
/// the connection, after [`ConsumerConfig::give_up_after`]. The stream ends only when no partition is left to read.
pub struct Consumer {
    state: State,
    admin: Admin,
    bounds: positions::SharedBounds,
}

enum State {
    Idle(Box<Reader>),
    Filling(BoxFuture<'static, (Box<Reader>, Result<Filled, Error>)>),
    /// Only while the state is being changed.
    Changing,
}

impl Consumer {
    pub(crate) async fn start(
        stub: MessagingClient<Channel>,
        admin: Admin,
        subscriptions: Vec<Subscription>,
        config: ConsumerConfig,
        random: Random,
    ) -> Result<Self, Error> {
        if config.buffer_bytes == 0 {
            return Err(Error::not_applied(ErrorCode::InvalidArgument, "buffer_bytes is 0, must be at least 1"));
        }
        let positions = Positions::start(subscriptions, &admin).await?;
        let bounds = positions.shared_bounds();
        let mut reader = Box::new(Reader::new(stub, positions, config, random));
        reader.open().await?;
        Ok(Self { state: State::Idle(reader), admin, bounds })
    }

    /// Makes the stream end where each partition ends now: once all records that are visible at this moment have come.
    ///
    /// To be called before the first record is read.
    pub async fn until_end(mut self) -> Result<Self, Error> {
        let State::Idle(reader) = &mut self.state else { panic!("until_end must be called before the first read") };
        reader.positions.end_at_the_present(&self.admin).await?;
        Ok(self)
    }

    /// Where a partition begins and ends, once the server has said so.
    pub fn bounds(&self, topic: &str, partition: u32) -> Option<Bounds> {
        self.bounds.get(topic, partition)
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumerRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Changing) {
                State::Idle(mut reader) => {
                    if let Some(record) = reader.next_fetched() {
                        self.state = State::Idle(reader);
                        return Poll::Ready(Some(record));
                    }
                    self.state = State::Filling(Box::pin(async move {
                        let filled = reader.fill().await;
                        (reader, filled)
                    }));
                }
                State::Filling(mut filling) => {
                    let Poll::Ready((reader, filled)) = filling.as_mut().poll(context) else {
                        self.state = State::Filling(filling);
                        return Poll::Pending;
                    };
                    self.state = State::Idle(reader);
                    match filled {
                        Ok(Filled::More) => {}
                        Ok(Filled::Ended) => return Poll::Ready(None),
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    }
                }
                State::Changing => unreachable!("a poll that panicked is not followed by another"),
            }
        }
    }
}
