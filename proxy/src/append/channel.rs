//! A channel: the lanes of one client connection, driven.
//!
//! Dropping the channel drops what was not forwarded; what was forwarded may still be applied.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bmq_common::{Backoff, Monotonic, Random, SharedClock};
use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::{Epoch, ErrorCode, ServiceError, TopicPartition};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use super::lane::{Action, Event, Lane, LaneBatch, Ticket, TryId};
use super::link::{Link, LinkAnswer, Links, Outgoing};
use crate::config::ProduceConfig;
use crate::directory::{Directory, Route, unknown_topic};
use crate::metrics::ProxyMetrics;

/// What all channels share.
pub struct Appends {
    pub directory: Arc<Directory>,
    pub links: Links,
    pub config: ProduceConfig,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: ProxyMetrics,
    next_channel: AtomicU64,
}

impl Appends {
    pub fn new(
        directory: Arc<Directory>,
        links: Links,
        config: ProduceConfig,
        clock: SharedClock,
        random: Random,
        metrics: ProxyMetrics,
    ) -> Self {
        Self { directory, links, config, clock, random, metrics, next_channel: AtomicU64::new(0) }
    }
}

/// An answer for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub ticket: Ticket,
    pub result: Result<Appended, ServiceError>,
}

/// Where a lane's batches go as long as it has any in flight.
struct Target {
    link: Arc<Link>,
    epoch: Epoch,
}

/// One sending of one batch.
struct Sending {
    id: TryId,
    generation: u32,
    payload: Bytes,
    deadline: Monotonic,
}

struct LaneSlot {
    lane: Lane,
    route: watch::Receiver<Route>,
    target: Option<Target>,
    /// When the answer to the batch pushed last is due.
    latest_deadline: Monotonic,
}

/// See the head of the file.
pub struct AppendChannel {
    shared: Arc<Appends>,
    number: u64,
    ack: AckLevel,
    lanes: HashMap<TopicPartition, LaneSlot>,
    answers: UnboundedReceiver<LinkAnswer>,
    /// Bounded by what is outstanding.
    answer_sender: UnboundedSender<LinkAnswer>,
    pauses: FuturesUnordered<BoxFuture<'static, TopicPartition>>,
    replies: Vec<Reply>,
    outstanding: usize,
    /// When to look for batches whose deadline has passed; not after the earliest deadline of all.
    expiry: Option<Monotonic>,
}

impl AppendChannel {
    pub fn new(shared: Arc<Appends>, ack: AckLevel) -> Self {
        let number = shared.next_channel.fetch_add(1, Ordering::Relaxed);
        let (answer_sender, answers) = mpsc::unbounded_channel();
        Self {
            shared,
            number,
            ack,
            lanes: HashMap::new(),
            answers,
            answer_sender,
            pauses: FuturesUnordered::new(),
            replies: Vec::new(),
            outstanding: 0,
            expiry: None,
        }
    }

    /// How many batches are not answered yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Takes a batch that was checked. Its reply comes from [`Self::replies`].
    pub fn push(&mut self, partition: TopicPartition, ticket: Ticket, payload: Bytes, idempotent: bool) {
        let timeout = self.shared.config.answer_timeout.get();
        self.push_within(partition, ticket, payload, idempotent, timeout);
    }

    /// As [`Self::push`], with an answer after `timeout` at the latest; or when that of an earlier batch of the
    /// partition is due, if that is later.
    pub fn push_within(
        &mut self,
        partition: TopicPartition,
        ticket: Ticket,
        payload: Bytes,
        idempotent: bool,
        timeout: Duration,
    ) {
        let due = self.shared.clock.now() + timeout;
        let slot = self.slot(partition);
        let deadline = slot.latest_deadline.max(due);
        slot.latest_deadline = deadline;
        self.expiry = Some(self.expiry.map_or(deadline, |expiry| expiry.min(deadline)));
        self.outstanding += 1;
        self.step(partition, Event::Push(LaneBatch { ticket, payload, idempotent, deadline }));
    }

    /// Answers a batch with an error, after all earlier ones of the partition.
    pub fn refuse(&mut self, partition: TopicPartition, ticket: Ticket, error: ServiceError) {
        self.outstanding += 1;
        self.step(partition, Event::Refuse { ticket, error });
    }

    /// Answers a batch of no partition that exists.
    pub fn refuse_at_once(&mut self, ticket: Ticket, error: ServiceError) {
        self.outstanding += 1;
        self.reply(ticket, Err(error));
    }

    /// Works until there are replies. Never ends while nothing is outstanding. May be cancelled and called again.
    pub async fn replies(&mut self) -> Vec<Reply> {
        while self.replies.is_empty() {
            let until_expiry = self.expiry.map(|at| at.saturating_since(self.shared.clock.now()));
            tokio::select! {
                answer = self.answers.recv() => {
                    let answer = answer.expect("the channel holds a sender itself");
                    self.take_answer(answer);
                    // Those that came with it share the wake-up.
                    while let Ok(answer) = self.answers.try_recv() {
                        self.take_answer(answer);
                    }
                }
                Some(partition) = self.pauses.next() => self.step(partition, Event::Resume),
                () = sleep_for(until_expiry) => self.expire(),
            }
        }
        std::mem::take(&mut self.replies)
    }

    fn take_answer(&mut self, answer: LinkAnswer) {
        let LinkAnswer { partition, id, result } = answer;
        self.step(partition, Event::Answered { id, result });
    }

    fn expire(&mut self) {
        let now = self.shared.clock.now();
        let partitions: Vec<TopicPartition> = self.lanes.keys().copied().collect();
        partitions.into_iter().for_each(|partition| self.step(partition, Event::Expire { now }));
        self.expiry = self.lanes.values().filter_map(|slot| slot.lane.earliest_deadline()).min();
    }

    /// Feeds one lane and does what it says, which may feed it again.
    fn step(&mut self, partition: TopicPartition, event: Event) {
        let mut failures = VecDeque::new();
        let mut next = Some(event);
        while let Some(event) = next {
            for action in self.slot(partition).lane.step(event) {
                match action {
                    Action::Reply { ticket, result } => self.reply(ticket, result),
                    Action::Pause { failures } => self.pause(partition, failures),
                    Action::Forward { id, generation, payload, fresh, deadline } => {
                        let sending = Sending { id, generation, payload, deadline };
                        if let Err(error) = self.forward(partition, sending, fresh) {
                            failures.push_back(Event::Answered { id, result: Err(error) });
                        }
                    }
                }
            }
            next = failures.pop_front();
        }
    }

    fn slot(&mut self, partition: TopicPartition) -> &mut LaneSlot {
        self.lanes.entry(partition).or_insert_with(|| LaneSlot {
            lane: Lane::new(self.shared.config.lane_batches as usize),
            route: self.shared.directory.route(partition),
            target: None,
            latest_deadline: Monotonic::ZERO,
        })
    }

    fn reply(&mut self, ticket: Ticket, result: Result<Appended, ServiceError>) {
        self.outstanding -= 1;
        if result.is_err() {
            self.shared.metrics.batch_failed();
        }
        self.replies.push(Reply { ticket, result });
    }

    fn forward(&mut self, partition: TopicPartition, sending: Sending, fresh: bool) -> Result<(), ServiceError> {
        let (channel, ack, answers) = (self.number, self.ack, self.answer_sender.clone());
        let shared = Arc::clone(&self.shared);
        let slot = self.slot(partition);
        if fresh {
            slot.target = None;
            slot.target = Some(choose_target(&shared.links, &mut slot.route)?);
        }
        // Without a target the first batch of this flight was refused here, and so is what follows it.
        let Some(target) = &slot.target else {
            return Err(ServiceError::not_applied(ErrorCode::OutOfTurn, "an earlier batch was not forwarded"));
        };
        let epoch = target.epoch;
        let Sending { id, generation, payload, deadline } = sending;
        let batch = Outgoing { id, channel, generation, partition, epoch, ack, payload, deadline, answers };
        target.link.send(batch).map_err(|_| {
            ServiceError::not_applied(ErrorCode::Unavailable, "the stream to the partition's owner has ended")
        })
    }

    fn pause(&mut self, partition: TopicPartition, failures: u32) {
        self.shared.metrics.batch_retried();
        let config = &self.shared.config;
        let delay = delay_after(failures, config.retry_first.get(), config.retry_max.get(), &self.shared.random);
        let slot = self.slot(partition);
        let tried = slot.target.take().map_or(Epoch::NONE, |target| target.epoch);
        let route = slot.route.clone();
        self.pauses.push(Box::pin(async move {
            until_worth_another_try(route, tried, delay).await;
            partition
        }));
    }
}

fn choose_target(links: &Links, route: &mut watch::Receiver<Route>) -> Result<Target, ServiceError> {
    let route = route.borrow_and_update();
    if route.topic_gone {
        return Err(unknown_topic("the topic was deleted".to_owned()));
    }
    let Some(owner) = &route.owner else {
        return Err(ServiceError::not_applied(ErrorCode::NotOwner, "the partition has no owner just now"));
    };
    Ok(Target { link: links.to(owner), epoch: route.epoch })
}

/// Waits until there is an owner of a newer epoch than the one tried, or until the delay has passed and there is one.
async fn until_worth_another_try(mut route: watch::Receiver<Route>, tried: Epoch, delay: Duration) {
    let is_newer = |route: &Route| route.topic_gone || (route.owner.is_some() && route.epoch > tried);
    let late = tokio::time::timeout(delay, route.wait_for(is_newer)).await.is_err();
    if late {
        // An error here means that the directory is gone; the lane finds out by trying.
        let _ = route.wait_for(|route| route.topic_gone || route.owner.is_some()).await;
    }
}

fn delay_after(failures: u32, first: Duration, max: Duration, random: &Random) -> Duration {
    let ceiling = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(max);
    Backoff::new(ceiling, ceiling).next(random)
}

async fn sleep_for(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
