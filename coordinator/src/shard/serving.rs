//! A loaded shard, serving.
//!
//! One task owns the state. What it stores goes through the partition's mailbox, what it answers waits in
//! [`HeldReplies`]. Requests that wait together are taken together, so many groups' records make one batch.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::{Monotonic, SharedClock};
use bmq_partition::{AppendMail, AppendReply, Lane, PartitionHandle, ValidatedBatch};
use bmq_proto::broker::AckLevel;
use bmq_proto::meta::PartitionHead;
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError, TopicId};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::driver::{ShardContext, certainly_gone, is_gone};
use super::entry::EntryError;
use super::handle::{Caller, ShardStatus, ended};
use super::head_read::read_head;
use super::held::HeldReplies;
use super::journal::{Flight, Journal, JournalLimits};
use super::replay::ReplaySizes;
use super::{Context, Effect, Now, ReplyToken, Request, Response, ShardState};
use crate::metrics::ShardGauges;
use crate::topics::TopicView;

/// Requests taken at once.
const REQUESTS_AT_ONCE: usize = 512;
/// Callers that may wait for their answers: joins of rebalances wait for minutes.
const MAX_CALLERS: usize = 100_000;
/// How often what is held is counted for metrics.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Why a shard ended here.
#[derive(Debug)]
pub enum End {
    /// The partition is gone: released, or claimed by another.
    PartitionGone,
    Superseded(Epoch),
    /// An append failed, so the state here is not that of the log any more.
    AppendFailed(ServiceError),
    /// What was to be stored could not be read again.
    Unstorable(EntryError),
    /// Nobody can make sense of what is stored.
    Broken(String),
}

impl From<EntryError> for End {
    fn from(error: EntryError) -> Self {
        End::Unstorable(error)
    }
}

/// A shard's state as it was loaded.
pub struct Loaded<S> {
    pub epoch: Epoch,
    pub state: S,
    pub sizes: ReplaySizes,
    /// Topics that were deleted since.
    pub gone: BTreeSet<TopicId>,
    pub view: Arc<TopicView>,
}

/// A shard that was loaded.
pub struct Serving<S: ShardState> {
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
    /// To be told to the state at the beginning.
    gone: BTreeSet<TopicId>,
    stored: mpsc::UnboundedReceiver<(Flight, AppendReply)>,
    stored_sender: mpsc::UnboundedSender<(Flight, AppendReply)>,
    head_read: Option<BoxFuture<'static, Result<PartitionHead, ServiceError>>>,
    trim: Option<BoxFuture<'static, Result<Offset, ServiceError>>>,
    gauges: ShardGauges,
    count_at: Monotonic,
}

impl<S: ShardState> Serving<S> {
    pub fn new(
        context: ShardContext,
        partition: PartitionHandle,
        topics: watch::Receiver<Arc<TopicView>>,
        loaded: Loaded<S>,
    ) -> Self {
        let Loaded { epoch, state, sizes, gone, view } = loaded;
        let limits = JournalLimits {
            max_batch_bytes: partition.max_batch_bytes(),
            in_flight_bytes: context.buffer_bytes,
            snapshot_bytes: context.snapshot_bytes,
        };
        let (stored_sender, stored) = mpsc::unbounded_channel();
        Self {
            partition,
            epoch,
            state,
            journal: Journal::new(limits, sizes.snapshot_bytes, sizes.since_snapshot),
            held: HeldReplies::default(),
            callers: HashMap::new(),
            next_token: 0,
            topics,
            view,
            gone,
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
    fn begin(&mut self) -> Result<(), End> {
        self.step(|state, context| state.finish_loading(context))?;
        let gone = std::mem::take(&mut self.gone);
        match gone.is_empty() {
            true => Ok(()),
            false => self.step(|state, context| state.topics_changed(&gone, context)),
        }
    }

    /// Serves until the end, and then answers everybody who still waits.
    pub async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<(Request, Caller)>,
        status: &watch::Sender<ShardStatus>,
    ) -> End {
        let end = match self.begin() {
            Ok(()) => {
                status.send_replace(ShardStatus::Serving);
                self.serve(&mut mailbox).await
            }
            Err(end) => end,
        };
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
            let mut topics_changed = false;
            let taken = tokio::select! {
                count = mailbox.recv_many(&mut requests, REQUESTS_AT_ONCE) => match count {
                    0 => Err(End::PartitionGone),
                    _ => requests.drain(..).try_for_each(|(request, caller)| self.take_request(request, caller)),
                },
                Some((flight, reply)) = self.stored.recv() => self.take_stored(flight, reply),
                read = next_of(&mut self.head_read) => self.take_head(read),
                trimmed = next_of(&mut self.trim) => {
                    self.note_trimmed(trimmed);
                    Ok(())
                }
                changed = self.topics.changed() => match changed {
                    Ok(()) => {
                        topics_changed = true;
                        Ok(())
                    }
                    Err(_) => Err(End::PartitionGone),
                },
                _ = status.wait_for(is_gone) => Err(End::PartitionGone),
                () = sleep_until(wake, &self.context.clock) => self.take_time(),
            };
            if let Err(end) = taken {
                return end;
            }
            if topics_changed && let Err(end) = self.take_topics().await {
                return end;
            }
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut S, Context<'_>) -> Vec<Effect<S::Record>>) -> Result<(), End> {
        let now = Now { monotonic: self.context.clock.now(), wall: self.context.clock.wall() };
        let effects = step(&mut self.state, Context { now, topics: self.view.topics() });
        for effect in effects {
            match effect {
                Effect::Append(records) => {
                    self.context.metrics.appended(records.len());
                    self.journal.append(&records)?;
                }
                Effect::Reply { token, response } => self.held.hold(token, response, self.journal.taken()),
            }
        }
        Ok(())
    }

    fn take_request(&mut self, request: Request, caller: Caller) -> Result<(), End> {
        if let Err(error) = self.check_room() {
            tell(caller, Err(error));
            return Ok(());
        }
        self.context.metrics.asked(&request);
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        self.callers.insert(token, caller);
        self.step(|state, context| state.handle(request, token, context))
    }

    fn check_room(&mut self) -> Result<(), ServiceError> {
        if self.callers.len() >= MAX_CALLERS {
            self.callers.retain(|_, caller| !caller.is_closed());
        }
        let is_full = self.callers.len() >= MAX_CALLERS || self.held.len() >= MAX_CALLERS;
        let bytes = self.journal.pending_bytes().max(self.held.bytes());
        if is_full || bytes > self.context.buffer_bytes {
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
                tracing::warn!(partition = %self.context.partition, %error, "nobody knows whether the shard is ours");
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

    async fn take_topics(&mut self) -> Result<(), End> {
        let before = std::mem::replace(&mut self.view, self.topics.borrow_and_update().clone());
        let mut gone = before.gone_in(&self.view);
        if !gone.is_empty() {
            gone = certainly_gone(&self.context, gone).await;
        }
        self.step(|state, context| state.topics_changed(&gone, context))
    }

    fn take_time(&mut self) -> Result<(), End> {
        if self.count_at <= self.context.clock.now() {
            self.count_at = self.context.clock.now() + COUNT_INTERVAL;
            self.gauges.set(self.state.holdings());
        }
        self.step(|state, context| state.tick(context))
    }

    fn next_wake(&self) -> Monotonic {
        self.state.next_deadline().map_or(self.count_at, |deadline| deadline.min(self.count_at))
    }

    /// Stores what can be stored, begins the read that answers wait for, lets answers leave.
    async fn move_on(&mut self) -> Result<(), End> {
        if self.journal.is_snapshot_due() {
            self.journal.begin_snapshot(&self.state.snapshot())?;
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

    fn answer(&mut self, token: ReplyToken, answer: Result<Response, ServiceError>) {
        if let Some(caller) = self.callers.remove(&token) {
            tell(caller, answer);
        }
    }
}

/// A caller that went away is no failure.
fn tell(caller: Caller, answer: Result<Response, ServiceError>) {
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
