//! Runs a shard: waits for its partition, loads the state, and serves until the partition is gone.
//!
//! One task owns the state. What it stores goes through the partition's mailbox, what it answers waits in
//! [`HeldReplies`]. Requests that wait together are taken together, so many groups' records make one batch.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::{Monotonic, SharedClock};
use bmq_common::rng::Random;
use bmq_partition::{AppendMail, AppendReply, Lane, PartitionHandle, PartitionStatus, ValidatedBatch};
use bmq_proto::broker::AckLevel;
use bmq_proto::meta::{MetaService, PartitionHead, TopicState};
use bmq_proto::{ClusterId, Epoch, ErrorCode, Offset, ServiceError, TopicId, TopicPartition};
use bmq_storage::SegmentStore;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::handle::{Caller, ShardHandle, ShardStatus, ended};
use super::head_read::read_head;
use super::held::HeldReplies;
use super::journal::{Flight, Journal, JournalLimits};
use super::load::{LoadError, load};
use super::replay::{NewState, ReplaySizes};
use super::{Context, Effect, Now, ReplyToken, Request, ShardState};
use crate::metrics::{CoordinatorMetrics, ShardGauges};
use crate::topics::TopicView;

/// Requests that may wait.
const MAILBOX: usize = 1024;
/// Requests taken at once.
const REQUESTS_AT_ONCE: usize = 512;
/// Callers that may wait for their answers: joins of rebalances wait for minutes.
const MAX_CALLERS: usize = 100_000;
/// How often what is held is counted for metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// Before a shard whose store failed is claimed anew, so that a sick store does not see a storm of claims.
const SICK_STORE_REST: Duration = Duration::from_millis(500);

/// Everything that a shard needs around it.
#[derive(Clone)]
pub struct ShardContext {
    pub cluster: ClusterId,
    pub partition: TopicPartition,
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: CoordinatorMetrics,
    /// A snapshot is written after this many bytes of records, or more if the state is large.
    pub snapshot_bytes: usize,
    /// Records not stored yet; beyond that requests are told to come again.
    pub buffer_bytes: usize,
}

/// Makes a shard over a partition that was opened: a handle, and the task that must be run for it.
pub fn open<S: ShardState>(
    context: ShardContext,
    partition: PartitionHandle,
    topics: watch::Receiver<Arc<TopicView>>,
    new_state: Arc<NewState<S>>,
) -> (ShardHandle, impl Future<Output = ()> + Send) {
    let (mail, mailbox) = mpsc::channel(MAILBOX);
    let (status, status_receiver) = watch::channel(ShardStatus::Loading);
    let driver = Driver { context, partition, topics, status };
    (ShardHandle { mail, status: status_receiver }, driver.run(mailbox, new_state))
}

struct Driver {
    context: ShardContext,
    partition: PartitionHandle,
    topics: watch::Receiver<Arc<TopicView>>,
    status: watch::Sender<ShardStatus>,
}

/// Why a shard ended here.
#[derive(Debug)]
enum End {
    /// The partition is gone: released, or claimed by another.
    PartitionGone,
    Superseded(Epoch),
    /// An append failed, so the state here is not that of the log any more.
    AppendFailed(ServiceError),
    /// Nobody can make sense of what is stored.
    Broken(String),
}

impl Driver {
    async fn run<S: ShardState>(self, mailbox: mpsc::Receiver<(Request, Caller)>, new_state: Arc<NewState<S>>) {
        let mut status = self.partition.status();
        let serving =
            status.wait_for(|status| is_up(status) || is_gone(status)).await.is_ok_and(|status| is_up(&status));
        let end = match serving {
            true => self.load_and_serve(mailbox, new_state.as_ref()).await,
            false => End::PartitionGone,
        };
        self.finish(end).await;
    }

    async fn load_and_serve<S: ShardState>(
        &self,
        mailbox: mpsc::Receiver<(Request, Caller)>,
        new_state: &NewState<S>,
    ) -> End {
        let loaded = tokio::select! {
            loaded = self.load(new_state) => loaded,
            () = until_gone(self.partition.status()) => return End::PartitionGone,
        };
        match loaded {
            Ok(serving) => serving.run(mailbox, &self.status).await,
            Err(LoadError::Superseded) => End::PartitionGone,
            Err(error @ LoadError::Damaged(_)) => End::Broken(error.to_string()),
        }
    }

    /// The state as it is stored, with what became of its topics meanwhile.
    async fn load<S: ShardState>(&self, new_state: &NewState<S>) -> Result<Serving<S>, LoadError> {
        let began = self.context.clock.now();
        let bounds = self.partition.tail().bounds();
        let (state, sizes) = load(&self.context, bounds, new_state).await?;
        let in_use = state.topics_in_use();
        let gone = match in_use.is_empty() {
            true => BTreeSet::new(),
            false => self.topics_gone(in_use).await,
        };
        // Topics that may not be known yet must not be taken for deleted: begin with a complete view.
        let mut topics = self.topics.clone();
        let view = topics.wait_for(|view| view.is_complete()).await.map(|view| view.clone()).unwrap_or_default();
        let took = self.context.clock.now().saturating_since(began);
        self.context.metrics.loaded(took);
        let ReplaySizes { records, snapshot_bytes, since_snapshot } = sizes;
        tracing::info!(partition = %self.context.partition, epoch = bounds.epoch.0, records, snapshot_bytes,
            since_snapshot, took_ms = took.as_millis() as u64, "shard loaded");
        let mut serving = Serving::new(self, bounds.epoch, state, sizes, view);
        serving.begin(&gone);
        Ok(serving)
    }

    /// Those of the topics that are certainly deleted: the list is younger than every commit that was loaded.
    async fn topics_gone(&self, mut in_use: BTreeSet<TopicId>) -> BTreeSet<TopicId> {
        match self.context.meta.list_topics().await {
            Ok(listed) => {
                for topic in listed.iter().filter(|topic| topic.state == TopicState::Active) {
                    in_use.remove(&topic.id);
                }
                in_use
            }
            Err(error) => {
                // They stay until they expire, or until the next load.
                tracing::info!(%error, "offsets of topics that were deleted meanwhile are not looked for");
                BTreeSet::new()
            }
        }
    }

    async fn finish(self, end: End) {
        let partition = self.context.partition;
        match &end {
            End::PartitionGone => tracing::info!(%partition, "shard ended with its partition"),
            End::Superseded(epoch) => tracing::info!(%partition, epoch = epoch.0, "shard was claimed by another"),
            End::AppendFailed(error) => tracing::warn!(%partition, %error, "an append failed, loading the shard anew"),
            End::Broken(reason) => {
                tracing::error!(%partition, reason, "shard cannot be loaded");
                self.status.send_replace(ShardStatus::Broken(reason.clone()));
                until_gone(self.partition.status()).await;
            }
        }
        self.status.send_replace(ShardStatus::Ended);
        if let End::AppendFailed(error) = &end
            && matches!(error.code, ErrorCode::Storage | ErrorCode::Busy)
        {
            tokio::time::sleep(SICK_STORE_REST).await;
        }
        // Whoever shall have it claims and loads it anew, here or elsewhere.
        self.partition.release(Duration::ZERO).await;
    }
}

fn is_up(status: &PartitionStatus) -> bool {
    *status == PartitionStatus::Serving
}

fn is_gone(status: &PartitionStatus) -> bool {
    matches!(status, PartitionStatus::Stopped(_))
}

async fn until_gone(mut status: watch::Receiver<PartitionStatus>) {
    // An error means that the partition's task is gone.
    let _ = status.wait_for(is_gone).await;
}

/// A loaded shard.
struct Serving<S: ShardState> {
    context: ShardContext,
    partition: PartitionHandle,
    epoch: Epoch,
    state: S,
    journal: Journal,
    held: HeldReplies,
    callers: HashMap<ReplyToken, Caller>,
    next_token: u64,
    topics: watch::Receiver<Arc<TopicView>>,
    view: Arc<TopicView>,
    stored: mpsc::UnboundedReceiver<(Flight, AppendReply)>,
    stored_sender: mpsc::UnboundedSender<(Flight, AppendReply)>,
    head_read: Option<BoxFuture<'static, Result<PartitionHead, ServiceError>>>,
    trim: Option<BoxFuture<'static, Result<Offset, ServiceError>>>,
    gauges: ShardGauges,
    count_at: Monotonic,
}

impl<S: ShardState> Serving<S> {
    fn new(driver: &Driver, epoch: Epoch, state: S, sizes: ReplaySizes, view: Arc<TopicView>) -> Self {
        let context = driver.context.clone();
        let limits = JournalLimits {
            max_batch_bytes: driver.partition.max_batch_bytes(),
            in_flight_bytes: context.buffer_bytes,
            snapshot_bytes: context.snapshot_bytes,
        };
        let (stored_sender, stored) = mpsc::unbounded_channel();
        Self {
            partition: driver.partition.clone(),
            epoch,
            state,
            journal: Journal::new(limits, sizes.snapshot_bytes, sizes.since_snapshot),
            held: HeldReplies::default(),
            callers: HashMap::new(),
            next_token: 0,
            topics: driver.topics.clone(),
            view,
            stored,
            stored_sender,
            head_read: None,
            trim: None,
            gauges: context.metrics.shard(),
            count_at: context.clock.now(),
            context,
        }
    }

    /// What follows from the time that has passed since this was stored.
    fn begin(&mut self, gone: &BTreeSet<TopicId>) {
        self.step(|state, context| state.finish_loading(context));
        if !gone.is_empty() {
            self.step(|state, context| state.topics_changed(gone, context));
        }
    }

    async fn run(mut self, mut mailbox: mpsc::Receiver<(Request, Caller)>, status: &watch::Sender<ShardStatus>) -> End {
        status.send_replace(ShardStatus::Serving);
        let end = self.serve(&mut mailbox).await;
        status.send_replace(ShardStatus::Ended);
        mailbox.close();
        while let Some((_, caller)) = mailbox.recv().await {
            tell(caller, Err(ended()));
        }
        for (_, caller) in self.callers.drain() {
            tell(caller, Err(ended()));
        }
        end
    }

    async fn serve(&mut self, mailbox: &mut mpsc::Receiver<(Request, Caller)>) -> End {
        let mut requests = Vec::new();
        let mut status = self.partition.status();
        loop {
            if let Err(end) = self.move_on().await {
                return end;
            }
            let wake = self.next_wake();
            tokio::select! {
                count = mailbox.recv_many(&mut requests, REQUESTS_AT_ONCE) => {
                    if count == 0 {
                        return End::PartitionGone;
                    }
                    requests.drain(..).for_each(|(request, caller)| self.take_request(request, caller));
                }
                Some((flight, reply)) = self.stored.recv() => {
                    if let Err(end) = self.take_stored(flight, reply) {
                        return end;
                    }
                }
                read = next_of(&mut self.head_read) => {
                    if let Err(end) = self.take_head(read) {
                        return end;
                    }
                }
                trimmed = next_of(&mut self.trim) => self.note_trimmed(trimmed),
                changed = self.topics.changed() => {
                    if changed.is_err() {
                        return End::PartitionGone;
                    }
                    self.take_topics();
                }
                _ = status.wait_for(is_gone) => return End::PartitionGone,
                () = sleep_until(wake, &self.context.clock) => self.take_time(),
            }
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut S, Context<'_>) -> Vec<Effect<S::Record>>) {
        let now = Now { monotonic: self.context.clock.now(), wall: self.context.clock.wall() };
        let effects = step(&mut self.state, Context { now, topics: self.view.topics() });
        for effect in effects {
            match effect {
                Effect::Append(records) => {
                    self.context.metrics.appended(records.len());
                    self.journal.append(&records);
                }
                Effect::Reply { token, response } => self.held.hold(token, response, self.journal.taken()),
            }
        }
    }

    fn take_request(&mut self, request: Request, caller: Caller) {
        if let Err(error) = self.check_room() {
            return tell(caller, Err(error));
        }
        self.context.metrics.asked(&request);
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        self.callers.insert(token, caller);
        self.step(|state, context| state.handle(request, token, context));
    }

    fn check_room(&mut self) -> Result<(), ServiceError> {
        if self.callers.len() >= MAX_CALLERS {
            self.callers.retain(|_, caller| !caller.is_closed());
        }
        if self.callers.len() >= MAX_CALLERS || self.journal.pending_bytes() > self.context.buffer_bytes {
            return Err(ServiceError::not_applied(ErrorCode::Busy, "the shard has too much to do, come again"));
        }
        Ok(())
    }

    fn take_stored(&mut self, flight: Flight, reply: AppendReply) -> Result<(), End> {
        let appended = reply.map_err(End::AppendFailed)?;
        if let Some(before) = self.journal.note_stored(flight, appended.base_offset) {
            self.context.metrics.snapshot_written();
            let partition = self.partition.clone();
            self.trim = Some(async move { partition.delete_records(before).await }.boxed());
        }
        Ok(())
    }

    fn take_head(&mut self, read: Result<PartitionHead, ServiceError>) -> Result<(), End> {
        match read {
            Ok(head) if head.epoch == self.epoch => self.held.finish_read(),
            Ok(head) => return Err(End::Superseded(head.epoch)),
            Err(error) => {
                tracing::warn!(partition = %self.context.partition, %error, "it is not known whether the shard is ours");
                self.held.fail_read().into_iter().for_each(|token| self.answer(token, Err(unsure(&error))));
            }
        }
        Ok(())
    }

    fn note_trimmed(&self, trimmed: Result<Offset, ServiceError>) {
        // The next snapshot comes with another try.
        match trimmed {
            Ok(log_start) => tracing::debug!(partition = %self.context.partition, %log_start, "trimmed"),
            Err(error) => tracing::warn!(partition = %self.context.partition, %error, "the log was not trimmed"),
        }
    }

    fn take_topics(&mut self) {
        let before = std::mem::replace(&mut self.view, self.topics.borrow_and_update().clone());
        let gone = before.gone_in(&self.view);
        self.step(|state, context| state.topics_changed(&gone, context));
    }

    fn take_time(&mut self) {
        if self.count_at <= self.context.clock.now() {
            self.count_at = self.context.clock.now() + COUNT_INTERVAL;
            self.gauges.set(self.state.holdings());
        }
        self.step(|state, context| state.tick(context));
    }

    fn next_wake(&self) -> Monotonic {
        self.state.next_deadline().map_or(self.count_at, |deadline| deadline.min(self.count_at))
    }

    /// Stores what can be stored, begins the read that answers wait for, lets answers leave.
    async fn move_on(&mut self) -> Result<(), End> {
        if self.journal.is_snapshot_due() {
            self.journal.begin_snapshot(&self.state.snapshot());
        }
        while let Some((flight, batch)) = self.journal.next_batch(self.context.clock.wall()) {
            let batch = ValidatedBatch::check(batch, self.partition.max_batch_bytes()).map_err(End::AppendFailed)?;
            let stored = self.stored_sender.clone();
            let mail = AppendMail {
                lane: Lane { stream: 0, channel: 0 },
                generation: 0,
                epoch: self.epoch,
                ack: AckLevel::Stored,
                batch: Ok(batch),
                // Nobody listens any more if the shard has ended.
                reply: Box::new(move |reply| drop(stored.send((flight, reply)))),
            };
            self.partition.append(mail).await;
        }
        if self.held.begin_read() {
            self.context.metrics.head_read();
            self.head_read = Some(read_head(&self.context).boxed());
        }
        while let Some((token, response)) = self.held.release(self.journal.stored()) {
            self.answer(token, Ok(response));
        }
        Ok(())
    }

    fn answer(&mut self, token: ReplyToken, answer: Result<super::Response, ServiceError>) {
        if let Some(caller) = self.callers.remove(&token) {
            tell(caller, answer);
        }
    }
}

/// A caller that went away is no failure.
fn tell(caller: Caller, answer: Result<super::Response, ServiceError>) {
    let _ = caller.send(answer);
}

/// The answer was made, but nobody can say whether it is still true.
fn unsure(error: &ServiceError) -> ServiceError {
    ServiceError::unknown(ErrorCode::Unavailable, format!("metadata does not answer: {error}"))
}

async fn next_of<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(pending) => {
            let output = pending.await;
            *future = None;
            output
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Monotonic, clock: &SharedClock) {
    tokio::time::sleep(wake.saturating_since(clock.now())).await;
}
