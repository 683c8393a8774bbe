//! A link: one append stream to one broker, which carries the batches of many lanes in few messages.
//!
//! A link lives as long as its stream. When the stream breaks, what was sent and not answered is unknown, what was not
//! sent was certainly not applied, and the link takes nothing more: the next stream is another link. So a lane that
//! keeps to one link while it has batches in flight is never overtaken by itself.
//!
//! Bounds: what a link holds is what its lanes have unanswered, which the client connections' credit and the proxy's
//! budget limit; a message holds about a mebibyte.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Monotonic, SharedClock, Shutdown, Tasks};
use bmq_proto::broker::{AckLevel, AppendAnswer, AppendItem, AppendStream, Appended};
use bmq_proto::rpc::STREAM_MESSAGE_BYTES;
use bmq_proto::{Epoch, ErrorCode, Incarnation, NodeId, ServiceError, TopicPartition};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::lane::TryId;
use crate::directory::RouteOwner;
use crate::metrics::ProxyMetrics;

/// Items of one message at most, so that a message of tiny batches stays small too.
const MESSAGE_ITEMS: usize = 1024;

/// How long answers may still come from a broker whose session has ended: those of one that stopped in order are on
/// their way. One that hangs gives none, and its partitions are served elsewhere about then.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// A batch as a lane hands it to a link.
#[derive(Debug)]
pub struct Outgoing {
    pub id: TryId,
    pub channel: u64,
    pub generation: u32,
    pub partition: TopicPartition,
    pub epoch: Epoch,
    pub ack: AckLevel,
    pub payload: Bytes,
    /// When its client is told that it failed: from then on it is not sent.
    pub deadline: Monotonic,
    pub answers: UnboundedSender<LinkAnswer>,
}

/// What became of one sending.
#[derive(Debug)]
pub struct LinkAnswer {
    pub partition: TopicPartition,
    pub id: TryId,
    pub result: Result<Appended, ServiceError>,
}

/// A handle on a link.
#[derive(Debug)]
pub struct Link {
    outgoing: UnboundedSender<Outgoing>,
}

impl Link {
    /// Hands a batch over; it comes back if the link has ended.
    pub fn send(&self, batch: Outgoing) -> Result<(), Outgoing> {
        self.outgoing.send(batch).map_err(|refused| refused.0)
    }

    fn has_ended(&self) -> bool {
        self.outgoing.is_closed()
    }
}

/// The link to each broker.
pub struct Links {
    tasks: Tasks,
    connect_deadline: Duration,
    clock: SharedClock,
    metrics: ProxyMetrics,
    table: Mutex<HashMap<(NodeId, Incarnation), Arc<Link>>>,
}

impl Links {
    pub fn new(tasks: Tasks, connect_deadline: Duration, clock: SharedClock, metrics: ProxyMetrics) -> Self {
        Self { tasks, connect_deadline, clock, metrics, table: Mutex::default() }
    }

    /// The link to a broker; a new one if there is none or it has ended.
    pub fn to(&self, owner: &RouteOwner) -> Arc<Link> {
        let mut table = self.table.lock();
        let key = (owner.node, owner.incarnation);
        if let Some(link) = table.get(&key).filter(|link| !link.has_ended()) {
            return Arc::clone(link);
        }
        table.retain(|_, link| !link.has_ended());
        let (outgoing, incoming) = mpsc::unbounded_channel();
        let link = Arc::new(Link { outgoing });
        table.insert(key, Arc::clone(&link));
        let carrier = Carrier {
            incoming,
            outbox: VecDeque::new(),
            sent: HashMap::new(),
            next_id: 0,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let (owner, deadline, shutdown) = (owner.clone(), self.connect_deadline, self.tasks.shutdown().clone());
        self.tasks.spawn("append link", carrier.run(owner, deadline, shutdown));
        link
    }
}

/// Whom to tell about an item that was sent.
struct Sent {
    partition: TopicPartition,
    id: TryId,
    answers: UnboundedSender<LinkAnswer>,
}

/// The task behind a link.
struct Carrier {
    incoming: UnboundedReceiver<Outgoing>,
    /// Taken from `incoming`, not sent yet.
    outbox: VecDeque<Outgoing>,
    /// Sent and not answered, by item id.
    sent: HashMap<u64, Sent>,
    next_id: u64,
    clock: SharedClock,
    metrics: ProxyMetrics,
}

impl Carrier {
    async fn run(mut self, owner: RouteOwner, connect_deadline: Duration, shutdown: Shutdown) {
        let _level = self.metrics.link_open();
        let reason = match with_deadline("the broker", connect_deadline, owner.service.append_stream()).await {
            Ok(Ok(stream)) => tokio::select! {
                reason = self.carry(stream) => reason,
                () = long_gone(&owner) => "the broker's session has ended".to_owned(),
                () = shutdown.begun() => "the proxy is shutting down".to_owned(),
            },
            Ok(Err(error)) => format!("cannot open a stream to the broker: {error}"),
            Err(late) => late.to_string(),
        };
        self.end(&reason);
    }

    /// Carries until the stream breaks; returns why.
    async fn carry(&mut self, stream: AppendStream) -> String {
        let AppendStream { items, mut answers } = stream;
        let mut arrived = Vec::new();
        loop {
            tokio::select! {
                // Answers first: a broker that cannot get rid of them stops taking items.
                biased;
                told = answers.next() => match told {
                    Some(told) => told.into_iter().for_each(|answer| self.deliver(answer)),
                    None => return "the stream to the broker broke".to_owned(),
                },
                permit = items.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        let message = self.next_message();
                        if !message.is_empty() {
                            permit.send(message);
                        }
                    }
                    Err(_) => return "the stream to the broker broke".to_owned(),
                },
                count = self.incoming.recv_many(&mut arrived, MESSAGE_ITEMS), if self.outbox.len() < MESSAGE_ITEMS => {
                    if count == 0 {
                        return "nobody sends any more".to_owned();
                    }
                    self.outbox.extend(arrived.drain(..));
                }
            }
        }
    }

    /// The next message: at least one item, about a mebibyte. What is for a client that has gone, or
    /// was told meanwhile that it failed, is dropped.
    fn next_message(&mut self) -> Vec<AppendItem> {
        let now = self.clock.now();
        let mut message = Vec::new();
        let mut bytes = 0;
        while message.len() < MESSAGE_ITEMS
            && let Some(next) = self.outbox.front()
            && (message.is_empty() || bytes + next.payload.len() <= STREAM_MESSAGE_BYTES)
            && let Some(batch) = self.outbox.pop_front()
        {
            if batch.answers.is_closed() || batch.deadline <= now {
                continue;
            }
            bytes += batch.payload.len();
            message.push(self.item(batch));
        }
        self.metrics.batches_forwarded(message.len() as u64, bytes as u64);
        message
    }

    fn item(&mut self, batch: Outgoing) -> AppendItem {
        let Outgoing { id, channel, generation, partition, epoch, ack, payload, answers, deadline: _ } = batch;
        let item = self.next_id;
        self.next_id += 1;
        self.sent.insert(item, Sent { partition, id, answers });
        AppendItem { id: item, channel, generation, partition, epoch, ack, batch: payload }
    }

    fn deliver(&mut self, answer: AppendAnswer) {
        // An id that was never sent or was answered before tells nothing.
        if let Some(sent) = self.sent.remove(&answer.id) {
            sent.tell(answer.result);
        }
    }

    /// Tells everyone; nothing is taken from here on.
    fn end(mut self, reason: &str) {
        self.incoming.close();
        let mut sent: Vec<_> = self.sent.drain().collect();
        sent.sort_unstable_by_key(|(item, _)| *item);
        for (_, sent) in sent {
            sent.tell(Err(ServiceError::unknown(ErrorCode::Unavailable, reason)));
        }
        while let Ok(batch) = self.incoming.try_recv() {
            self.outbox.push_back(batch);
        }
        for Outgoing { partition, id, answers, .. } in self.outbox {
            let error = ServiceError::not_applied(ErrorCode::Unavailable, reason);
            Sent { partition, id, answers }.tell(Err(error));
        }
    }
}

/// Without this a broker that hangs would hold what was sent to it until the connection is found dead.
async fn long_gone(owner: &RouteOwner) {
    owner.gone.begun().await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

impl Sent {
    fn tell(self, result: Result<Appended, ServiceError>) {
        let Sent { partition, id, answers } = self;
        // A client that has gone needs no answer.
        let _ = answers.send(LinkAnswer { partition, id, result });
    }
}
