//! One connection: requests in, answers out, in the order of the requests.
//!
//! ```text
//!   socket ─▶ intake ─ frames ─▶ queue ─▶ worker ─ one request at a time, produce requests together ─▶ socket
//! ```
//! Invariants:
//! * a request other than produce begins when all before it are answered, as Kafka does it, so a client sees what it
//!   did before; produce requests begin while others are under way, and lanes keep their batches in order;
//! * a request that is unanswered has its share of the proxy's budget; beyond the budget and beyond its own number of
//!   requests, a connection is read no further;
//! * a client that pauses within a request, or does not read an answer, is cut off; one that is silent between requests
//!   too, but later, and costs next to nothing until then: its buffer is given back.
//!
//! When the client closes its side, what it sent is done, as far as it changes anything; what it waited for is not.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::Shutdown;
use bmq_kafka::{ApiKey, EncodeError, FrameDecoder, FrameError, RequestError};
use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::answers::Answers;
use super::context::ClientConnection;
use super::worker::Worker;
use crate::api::{Api, budget_share};

/// A request that has arrived in part holds no share of the budget while it is smaller than this.
const FREE_BYTES: usize = 16 << 10;
/// A large request that comes more slowly is given up.
const LEAST_BYTES_PER_SECOND: usize = 64 << 10;

/// Where a connection came from.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub host: IpAddr,
    /// The listener's name.
    pub listener: Arc<str>,
}

/// Why a connection ends before its client has closed it.
#[derive(Debug, Error)]
pub enum ConnectionError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("a frame cannot be")]
    Frame(#[from] FrameError),
    #[error("a request cannot be served")]
    Request(#[from] RequestError),
    #[error("an answer cannot be sent")]
    Encode(#[from] EncodeError),
    #[error("the client was silent for {0:?}")]
    Idle(Duration),
    #[error("the client stopped within a request")]
    Stalled,
    #[error("the client does not read its answers")]
    NotReading,
    #[error("a batch without acks failed")]
    SilentFailure,
    #[error("a request of this kind has no handler")]
    NoHandler,
    #[error("the proxy shuts down")]
    ShutDown,
}

/// A request as it came.
pub struct Arrived {
    pub frame: Bytes,
    /// Its share of what the proxy holds for all clients.
    pub share: OwnedSemaphorePermit,
    pub turn: Turn,
}

/// One of the requests that a connection may have unanswered; given back when this is dropped.
pub struct Turn {
    pub arrived_at: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Serves a connection to its end.
pub async fn serve(api: Arc<Api>, stream: TcpStream, arrival: Arrival) -> Result<(), ConnectionError> {
    let (reading, writing) = stream.into_split();
    let gone = Shutdown::new();
    let requests = api.config.kafka.connection_requests as usize;
    // There are never more in the queue than there are turns.
    let (queue, arrived) = mpsc::channel(requests);
    let turns = Arc::new(Semaphore::new(requests));
    let client = ClientConnection {
        id: api.kafka.next_connection(),
        client_id: String::new(),
        host: arrival.host,
        listener: arrival.listener,
        gone: gone.clone(),
        readers: tokio::sync::Mutex::default(),
    };
    let intake = Intake { api: &api, stream: reading, buffer: BytesMut::new(), turns, queue, gone };
    let answers = Answers::new(writing, api.config.kafka.write_timeout.get());
    let worker = Worker::new(&api, client, answers);
    tokio::try_join!(intake.run(), worker.run(arrived))?;
    Ok(())
}

/// The reading half.
struct Intake<'a> {
    api: &'a Api,
    stream: OwnedReadHalf,
    buffer: BytesMut,
    turns: Arc<Semaphore>,
    queue: mpsc::Sender<Arrived>,
    gone: Shutdown,
}

impl Intake<'_> {
    /// Takes requests in until the client closes its side or the shutdown begins.
    async fn run(mut self) -> Result<(), ConnectionError> {
        let shutdown = self.api.shutdown().clone();
        let decoder = FrameDecoder::new(self.api.config.kafka.max_request_bytes.0 as usize);
        loop {
            let arrived = tokio::select! {
                arrived = self.next(decoder) => arrived?,
                () = shutdown.begun() => return Ok(()),
            };
            let Some(arrived) = arrived else {
                self.gone.begin();
                return Ok(());
            };
            self.api.kafka.metrics.bytes_received(arrived.frame.len());
            if self.queue.send(arrived).await.is_err() {
                return Ok(());
            }
        }
    }

    /// The next request; nothing if the client has closed its side.
    async fn next(&mut self, decoder: FrameDecoder) -> Result<Option<Arrived>, ConnectionError> {
        let mut share = None;
        // By when the request must be whole, once it has begun: dripping it in keeps nothing for long.
        let mut due = None;
        loop {
            if let Some(frame) = decoder.decode(&mut self.buffer)? {
                let share = match share {
                    Some(share) => share,
                    None => budget_share(self.budget_for(&frame), frame.len()).await,
                };
                let arrived_at = Instant::now();
                let permit = Arc::clone(&self.turns).acquire_owned().await.expect("turns are never closed");
                return Ok(Some(Arrived { frame, share, turn: Turn { arrived_at, _permit: permit } }));
            }
            // What a large request will hold is taken before it is read, so that those that have begun can be finished.
            if let Some(length) = decoder.frame_len(&self.buffer)?
                && share.is_none()
                && self.buffer.len() >= FREE_BYTES
            {
                share = Some(budget_share(&self.api.produce_budget, length).await);
                let allowed = Duration::from_secs((length / LEAST_BYTES_PER_SECOND) as u64);
                due = Some(Instant::now() + self.api.config.kafka.receive_timeout.get() + allowed);
                self.buffer.reserve(length.saturating_sub(self.buffer.len()));
            }
            if due.is_none() && !self.buffer.is_empty() {
                due = Some(Instant::now() + self.api.config.kafka.receive_timeout.get());
            }
            if self.read(decoder.room_wanted(&self.buffer), due).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Small requests that write nothing have a budget of their own: a member's heartbeat must not wait for batches
    /// that a sick broker holds up.
    fn budget_for(&self, frame: &[u8]) -> &Arc<Semaphore> {
        let is_produce = frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes());
        match frame.len() < FREE_BYTES && !is_produce {
            true => &self.api.kafka.small_requests,
            false => &self.api.produce_budget,
        }
    }

    /// Reads what comes next and says how much it was; nothing if the client has closed its side. A client that has not
    /// begun a request may take its time.
    async fn read(&mut self, room: usize, due: Option<Instant>) -> Result<usize, ConnectionError> {
        let config = &self.api.config.kafka;
        let is_idle = self.buffer.is_empty();
        if is_idle {
            self.buffer = BytesMut::new();
        }
        let idle_timeout = config.idle_timeout.get();
        loop {
            let until = due.unwrap_or_else(|| Instant::now() + idle_timeout);
            match tokio::time::timeout_at(until, fill(&self.stream, &mut self.buffer, room)).await {
                Ok(read) => return Ok(read?),
                Err(_) if !is_idle => return Err(ConnectionError::Stalled),
                // It waits for an answer, which may take longer.
                Err(_) if self.turns.available_permits() < config.connection_requests as usize => {}
                Err(_) => return Err(ConnectionError::Idle(idle_timeout)),
            }
        }
    }
}

/// Waits for bytes, and only then makes room for them.
async fn fill(stream: &OwnedReadHalf, buffer: &mut BytesMut, room: usize) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        buffer.reserve(room);
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}
