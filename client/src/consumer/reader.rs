//! Reads batches from one stream after the other, and gives out their records.

use std::time::Duration;

use bmq_common::{Backoff, Random};
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::v1::{self, fetch_response};
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{debug, info};

use super::ConsumerConfig;
use super::positions::{Fetched, Positions};
use super::stream::FetchStream;
use crate::{ConsumerRecord, Error};

const FIRST_RECONNECT: Duration = Duration::from_millis(50);
const LAST_RECONNECT: Duration = Duration::from_secs(2);

/// The consumer behind its handle.
pub(super) struct Reader {
    pub positions: Positions,
    stub: MessagingClient<Channel>,
    config: ConsumerConfig,
    random: Random,
    stream: Option<FetchStream>,
    /// Batches that are being read, and how much credit they took.
    fetched: Option<(Fetched, u64)>,
    backoff: Backoff,
    /// When there was last a stream that gave something, or the user was told that there is none.
    heard_at: Instant,
}

/// What came of [`Reader::fill`].
pub(super) enum Filled {
    /// Look at [`Reader::next_fetched`] again.
    More,
    /// Nothing is left to be read.
    Ended,
}

impl Reader {
    pub fn new(stub: MessagingClient<Channel>, positions: Positions, config: ConsumerConfig, random: Random) -> Self {
        Self {
            positions,
            stub,
            config,
            random,
            stream: None,
            fetched: None,
            backoff: Backoff::new(FIRST_RECONNECT, LAST_RECONNECT),
            heard_at: Instant::now(),
        }
    }

    /// The next record of those that are here.
    pub fn next_fetched(&mut self) -> Option<Result<ConsumerRecord, Error>> {
        let (fetched, bytes) = self.fetched.as_mut()?;
        if let Some(record) = self.positions.next_record(fetched) {
            return Some(record);
        }
        let bytes = *bytes;
        self.fetched = None;
        self.give_back(bytes);
        None
    }

    fn give_back(&mut self, bytes: u64) {
        // The credit of a stream that is gone went with it.
        if let Some(stream) = &mut self.stream {
            stream.give_back(bytes);
        }
    }

    /// Opens a stream from the positions on.
    pub async fn open(&mut self) -> Result<(), Error> {
        let max_wait_ms = u32::try_from(self.config.max_wait.as_millis()).unwrap_or(u32::MAX);
        let open = v1::FetchOpen {
            positions: self.positions.to_open(),
            min_bytes: self.config.min_bytes,
            max_wait_ms,
            max_bytes: self.config.max_bytes,
            credit_bytes: self.config.buffer_bytes,
        };
        self.stream = Some(FetchStream::open(self.stub.clone(), open).await?);
        Ok(())
    }

    /// Waits for more batches. Only when [`Reader::next_fetched`] has nothing.
    pub async fn fill(&mut self) -> Result<Filled, Error> {
        loop {
            if self.positions.all_over() {
                self.stream = None;
                return Ok(Filled::Ended);
            }
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            match stream.next().await {
                Ok(frame) => {
                    self.heard_at = Instant::now();
                    if self.take(frame)? {
                        return Ok(Filled::More);
                    }
                }
                Err(error) => self.lose(error)?,
            }
        }
    }

    /// Whether there are batches to be read now.
    fn take(&mut self, frame: fetch_response::Frame) -> Result<bool, Error> {
        match frame {
            fetch_response::Frame::Batches(batches) => {
                self.backoff.reset();
                let bytes = batches.batches.len() as u64;
                match self.positions.begin(batches) {
                    Some(fetched) => self.fetched = Some((fetched, bytes)),
                    None => self.give_back(bytes),
                }
                Ok(self.fetched.is_some())
            }
            fetch_response::Frame::Heartbeat(heartbeat) => {
                self.backoff.reset();
                for bounds in heartbeat.bounds {
                    let v1::PartitionBounds { topic, partition, log_start, high_watermark, .. } = bounds;
                    self.positions.learn_bounds(&topic, partition, log_start, high_watermark);
                }
                Ok(false)
            }
            fetch_response::Frame::Failed(failed) => {
                let v1::FetchFailed { topic, partition, error } = failed;
                let unexplained = || Error::protocol("a partition failed without an error");
                let mut error = error.map_or_else(unexplained, Error::from).of_a_read();
                error.message = format!("partition {partition} of {topic}: {}", error.message);
                if error.retriable {
                    // The stream goes on without the partition, so another one is opened with all of them.
                    self.lose(error)?;
                    return Ok(false);
                }
                self.positions.fail(&topic, partition);
                Err(error)
            }
        }
    }

    /// The stream is of no more use. An error that no other stream can mend goes to the user.
    fn lose(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        if !error.retriable {
            return Err(error);
        }
        info!(%error, "fetch stream lost, opening another");
        Ok(())
    }

    async fn reopen(&mut self) -> Result<(), Error> {
        tokio::time::sleep(self.backoff.next(&self.random)).await;
        let Err(error) = self.open().await else { return Ok(()) };
        debug!(%error, "cannot open a fetch stream");
        if error.retriable && self.heard_at.elapsed() < self.config.give_up_after {
            return Ok(());
        }
        self.heard_at = Instant::now();
        Err(error)
    }
}
