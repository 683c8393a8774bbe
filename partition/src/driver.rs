//! Runs the machine: reads the clock, does what it asks for, and feeds the results back.
//!
//! One task owns the machine and everything it holds. Calls to the store and to the metadata service run beside it;
//! each has a deadline of its own and comes back as an event. Nothing here decides anything.

mod close_file;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::{Monotonic, SharedClock};
use bmq_common::rng::Random;
use bmq_proto::broker::PartitionBounds;
use bmq_proto::meta::{MetaService, Owner};
use bmq_proto::{BytePosition, ClusterId, FileId, Happened, TopicPartition};
use bmq_storage::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use bmq_storage::{FolderPath, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterProgress, WriterState};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::append::{Append, ReplyToken};
use crate::compaction::{self, CompactionSlots};
use crate::config::PartitionConfig;
use crate::handle::{AppendMail, DeletionReply, Mail, PartitionHandle, PartitionStatus, ReplySink};
use crate::machine::{Action, Event, Machine, MachineSetup, Now, StopReason, StoreFault};
use crate::metrics::PartitionMetrics;
use crate::recovery_scan;
use crate::tail::Tail;

/// Letters that may wait.
const MAILBOX: usize = 1024;
/// How long calls on their way may go on after the end.
const LAST_JOBS: Duration = Duration::from_secs(3);
/// Letters taken at once: what waits while a sync runs is written as one group.
const LETTERS_AT_ONCE: usize = 512;

/// Everything that a partition needs around it.
#[derive(Clone)]
pub struct PartitionContext {
    pub cluster: ClusterId,
    pub me: Owner,
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: PartitionMetrics,
    /// Shared by the node's partitions.
    pub compactions: CompactionSlots,
}

/// Makes a partition: a handle, and the task that must be run for it.
pub fn open(
    context: PartitionContext,
    partition: TopicPartition,
    config: PartitionConfig,
) -> (PartitionHandle, impl Future<Output = StopReason> + Send + use<>) {
    let config = config.within(&context.store.properties());
    let (mail, mailbox) = mpsc::channel(MAILBOX);
    let (status, status_receiver) = watch::channel(PartitionStatus::Starting);
    let nothing = PartitionBounds {
        epoch: Default::default(),
        log_start: Default::default(),
        high_watermark: Default::default(),
    };
    let tail = Arc::new(Tail::new(nothing, config.tail_bytes.0 as usize));
    let (settings, settings_receiver) = watch::channel(config.clone());
    let store = context.store.properties();
    let setup =
        MachineSetup { cluster: context.cluster, partition, me: context.me, config, seed: context.random.next_u64() };
    let driver = Driver {
        machine: Machine::new(setup),
        folder: FolderPath::new(context.cluster, partition),
        began: context.clock.now(),
        context,
        jobs: JoinSet::new(),
        creating: HashMap::new(),
        writers: HashMap::new(),
        watched: None,
        replies: HashMap::new(),
        deletions: HashMap::new(),
        settings: settings_receiver,
        next_token: 0,
        tail: tail.clone(),
        status,
        stopped: None,
    };
    let config = Arc::new(settings);
    (PartitionHandle { mail, tail, status: status_receiver, config, store }, driver.run(mailbox))
}

/// Where a writer is put when its file was created: events are plain data.
type NewWriter = Arc<Mutex<Option<Arc<dyn SegmentWriter>>>>;

struct Driver {
    machine: Machine,
    folder: FolderPath,
    began: Monotonic,
    context: PartitionContext,
    /// Calls on their way; each ends in an event.
    jobs: JoinSet<Event>,
    /// Writers of files being created, as they come.
    creating: HashMap<FileId, NewWriter>,
    /// Writers of files that are not closed yet.
    writers: HashMap<FileId, Arc<dyn SegmentWriter>>,
    /// The newest file written to: only its progress counts.
    watched: Option<Watched>,
    replies: HashMap<ReplyToken, ReplySink>,
    /// Who waits for records to be deleted.
    deletions: HashMap<ReplyToken, DeletionReply>,
    /// As the handles' holders want them.
    settings: watch::Receiver<PartitionConfig>,
    next_token: u64,
    tail: Arc<Tail>,
    status: watch::Sender<PartitionStatus>,
    stopped: Option<StopReason>,
}

struct Watched {
    file: FileId,
    progress: watch::Receiver<WriterProgress>,
    durable: BytePosition,
}

impl Driver {
    async fn run(mut self, mut mailbox: mpsc::Receiver<Mail>) -> StopReason {
        self.step(Event::Start);
        let mut letters = Vec::new();
        let mut abandoned = false;
        while self.stopped.is_none() {
            let deadline = self.machine.next_deadline();
            tokio::select! {
                count = mailbox.recv_many(&mut letters, LETTERS_AT_ONCE), if !abandoned => {
                    if count == 0 {
                        abandoned = true;
                        letters.push(Mail::Release { close_wait: Duration::ZERO });
                    }
                    self.take_letters(&mut letters);
                }
                event = next_job(&mut self.jobs) => self.take_result(event),
                () = next_progress(&mut self.watched) => self.take_progress(),
                config = next_settings(&mut self.settings) => self.step(Event::Reconfigure(Box::new(config))),
                () = sleep_until(deadline, &self.context.clock) => self.step(Event::Tick),
            }
        }
        self.finish(mailbox).await
    }

    /// Answers what is still in the mailbox, and lets calls on their way come to their end.
    async fn finish(mut self, mut mailbox: mpsc::Receiver<Mail>) -> StopReason {
        mailbox.close();
        while let Some(letter) = mailbox.recv().await {
            if let Mail::Append(append) = letter {
                (append.reply)(Err(crate::append::not_owner("this broker gave the partition up")));
            }
        }
        for (_, reply) in self.replies.drain() {
            let message = "the partition ended before this was durable";
            reply(Err(bmq_proto::ServiceError::unknown(bmq_proto::ErrorCode::NotOwner, message)));
        }
        let reason = self.stopped.take().unwrap_or(StopReason::Released);
        tracing::info!(partition = %self.folder.partition, ?reason, "partition stopped");
        self.status.send_replace(PartitionStatus::Stopped(reason.clone()));
        // What is being closed may still be closed; the rest has nobody who waits for it.
        let _ = tokio::time::timeout(LAST_JOBS, self.end_jobs()).await;
        reason
    }

    async fn end_jobs(&mut self) {
        while let Some(ended) = self.jobs.join_next().await {
            let Ok(Event::Compacted(report)) = ended else { continue };
            for file in report.files() {
                let path = self.folder.segment(file);
                if let Err(error) = self.context.store.delete(path).await {
                    tracing::warn!(%path, %error, "a compacted file that nobody wants any more was not deleted");
                }
            }
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.context.clock.now(), wall: self.context.clock.wall() }
    }

    fn step(&mut self, event: Event) {
        let was_serving = self.machine.is_serving();
        let now = self.now();
        for action in self.machine.step(event, now) {
            self.act(action);
        }
        let is_serving = self.machine.is_serving();
        if is_serving && !was_serving {
            let took = now.monotonic.saturating_since(self.began);
            self.context.metrics.serving_begun(took);
            let bounds = self.tail.bounds();
            tracing::info!(partition = %self.folder.partition, epoch = bounds.epoch.0,
                high_watermark = bounds.high_watermark.0, took_ms = took.as_millis() as u64, "partition serves");
            self.status.send_replace(PartitionStatus::Serving);
        }
        if was_serving && !is_serving {
            self.context.metrics.serving_ended();
        }
        if self.machine.is_refusing() {
            self.status.send_if_modified(|status| {
                let change = *status != PartitionStatus::Refusing;
                *status = PartitionStatus::Refusing;
                change
            });
        }
    }

    fn take_letters(&mut self, letters: &mut Vec<Mail>) {
        let mut appends = Vec::with_capacity(letters.len());
        for letter in letters.drain(..) {
            match letter {
                Mail::Append(append) => appends.push(self.admit(append)),
                // Whoever asked may have left.
                Mail::Producers { reply } => drop(reply.send(self.machine.producers())),
                other => {
                    // Order among letters is kept: what came before goes before.
                    if !appends.is_empty() {
                        self.step(Event::Appends(std::mem::take(&mut appends)));
                    }
                    let event = self.event_of(other);
                    self.step(event);
                }
            }
        }
        if !appends.is_empty() {
            self.step(Event::Appends(appends));
        }
    }

    fn event_of(&mut self, letter: Mail) -> Event {
        match letter {
            Mail::RollWanted => Event::RollWanted,
            Mail::StreamGone { stream } => Event::StreamGone { stream },
            Mail::Release { close_wait } => Event::Release { close_wait },
            Mail::DeleteRecords { before, reply } => {
                let token = self.next_token();
                self.deletions.insert(token, reply);
                Event::DeleteRecords { token, before }
            }
            Mail::Append(_) | Mail::Producers { .. } => unreachable!("these are no events"),
        }
    }

    fn next_token(&mut self) -> ReplyToken {
        self.next_token += 1;
        ReplyToken(self.next_token)
    }

    fn admit(&mut self, mail: AppendMail) -> Append {
        let token = self.next_token();
        self.replies.insert(token, mail.reply);
        let AppendMail { lane, generation, epoch, ack, batch, .. } = mail;
        Append { token, lane, generation, epoch, ack, batch }
    }

    fn take_progress(&mut self) {
        let Some(watched) = &mut self.watched else { return };
        let file = watched.file;
        let progress = watched.progress.borrow_and_update().clone();
        if progress.durable > watched.durable {
            self.context.metrics.synced(progress.durable.since(watched.durable));
            watched.durable = progress.durable;
        }
        if progress.state != WriterState::Healthy {
            self.watched = None;
        }
        self.step(Event::Progress { file, progress });
    }

    fn take_result(&mut self, event: Event) {
        if let Event::Created { file, .. } = &event {
            let writer = self.creating.remove(file).and_then(|cell| cell.lock().take());
            self.writers.extend(writer.map(|writer| (*file, writer)));
        }
        self.step(event);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Reply { token, reply } => self.reply(token, reply),
            Action::Write { file, parts } => self.write(file, parts),
            Action::RecordsDeleted { token, result } => {
                // Whoever asked may have stopped waiting.
                let _ = self.deletions.remove(&token).map(|reply| reply.send(result));
            }
            Action::Publish(published) => self.tail.publish(published),
            Action::Closed { file } => {
                self.writers.remove(&file);
                self.tail.closed(file);
            }
            Action::DamagedRange { file, range } => {
                self.writers.remove(&file);
                self.tail.damaged(file, range);
            }
            Action::RollBegun(cause) => {
                self.context.metrics.roll_begun(&cause);
                tracing::info!(partition = %self.folder.partition, cause = cause.name(), ?cause, "rolling the segment");
            }
            Action::Alarm(message) => {
                self.context.metrics.alarm_raised();
                tracing::error!(partition = %self.folder.partition, message, "alarm");
            }
            Action::Stopped(reason) => self.stopped = Some(reason),
            call => self.call(call),
        }
    }

    fn reply(&mut self, token: ReplyToken, reply: crate::AppendReply) {
        let accepted = !matches!(&reply, Err(error) if error.happened == Happened::NotApplied);
        self.context.metrics.answered(accepted);
        if let Some(sink) = self.replies.remove(&token) {
            sink(reply);
        }
    }

    fn write(&mut self, file: FileId, parts: Vec<bytes::Bytes>) {
        let Some(writer) = self.writers.get(&file) else {
            unreachable!("the machine writes only to files that were created")
        };
        self.context.metrics.written(parts.iter().map(|part| part.len() as u64).sum());
        if self.watched.as_ref().is_none_or(|watched| watched.file != file) {
            let durable = FIRST_BATCH_POSITION;
            let mut progress = writer.progress();
            // What happened before anybody watched is news, too.
            progress.mark_changed();
            self.watched = Some(Watched { file, progress, durable });
        }
        if let Err(error) = writer.append(parts) {
            // A refusal leaves a gap in the file, so it is as good as a failure, which the progress may tell as well.
            tracing::warn!(%file, %error, "the writer refused an append");
            let progress = WriterProgress {
                durable: BytePosition::ZERO,
                state: WriterState::Broken { reason: error.to_string().into() },
            };
            self.jobs.spawn(async move { Event::Progress { file, progress } });
        }
    }

    /// Starts a call whose result comes back as an event.
    fn call(&mut self, action: Action) {
        let store = self.context.store.clone();
        let meta = self.context.meta.clone();
        let folder = self.folder;
        match action {
            Action::Command(command) => {
                let nonce = command.nonce;
                self.jobs.spawn(async move { Event::CommandDone { nonce, result: meta.command(command).await } });
            }
            Action::ReadHead => {
                self.jobs.spawn(async move { Event::HeadRead(meta.head(folder.partition).await) });
            }
            Action::ListGarbage => {
                self.jobs.spawn(async move { Event::GarbageListed(meta.garbage(folder.partition).await) });
            }
            Action::ListFolder => {
                self.jobs.spawn(async move { Event::Listed(store.list(folder).await.map_err(noted)) });
            }
            Action::Fence(file) => {
                self.jobs.spawn(async move {
                    Event::Fenced { file, result: store.fence(folder.segment(file)).await.map_err(noted) }
                });
            }
            Action::Recover(file) => {
                self.jobs.spawn(async move {
                    Event::Recovered { file, result: store.recover(folder.segment(file)).await.map_err(noted) }
                });
            }
            Action::Scan(request) => {
                self.jobs
                    .spawn(async move { Event::Scanned(recovery_scan::run(store.as_ref(), folder, request).await) });
            }
            Action::Create(file) => self.create(file),
            Action::CloseFile { segment, index, earlier } => {
                let writer = self.writers.get(&segment.file).cloned();
                self.jobs.spawn(async move {
                    let file = segment.file;
                    let result = close_file::run(store.as_ref(), folder, writer, &segment, index, earlier).await;
                    Event::FileClosed { file, result }
                });
            }
            Action::Compact(request) => {
                let slots = self.context.compactions.clone();
                self.jobs.spawn(async move {
                    Event::Compacted(compaction::run(store.as_ref(), folder, request, slots).await)
                });
            }
            Action::Discard(file) => self.discard(file),
            Action::Reply { .. }
            | Action::RecordsDeleted { .. }
            | Action::Write { .. }
            | Action::Publish(_)
            | Action::Closed { .. }
            | Action::DamagedRange { .. }
            | Action::RollBegun(_)
            | Action::Alarm(_)
            | Action::Stopped(_) => unreachable!("not a call"),
        }
    }

    /// The writer comes back through a channel of its own, since events are plain data.
    fn create(&mut self, file: FileId) {
        let store = self.context.store.clone();
        let path = self.folder.segment(file);
        let cell = Arc::new(Mutex::new(None));
        self.creating.insert(file, cell.clone());
        self.jobs.spawn(async move {
            let result = create_proven(store.as_ref(), path).await;
            Event::Created { file, result: result.map(|writer| *cell.lock() = Some(writer)) }
        });
    }

    fn discard(&mut self, file: FileId) {
        self.writers.remove(&file);
        let store = self.context.store.clone();
        let path = self.folder.segment(file);
        self.jobs.spawn(async move {
            let result = store.delete(path).await;
            if let Err(error) = &result {
                tracing::warn!(%path, %error, "an unused file was not deleted");
            }
            Event::Discarded { file, deleted: result.is_ok() }
        });
    }
}

/// Creates a file and waits until its header is durable: only then has its pipeline shown that it works.
pub(crate) async fn create_proven(
    store: &dyn SegmentStore,
    path: SegmentPath,
) -> Result<Arc<dyn SegmentWriter>, StoreFault> {
    let writer = store.create(path, SegmentHeader::of(path).encode()).await.map_err(noted)?;
    let mut progress = writer.progress();
    let settled =
        |progress: &WriterProgress| progress.durable >= FIRST_BATCH_POSITION || progress.state != WriterState::Healthy;
    match progress.wait_for(settled).await.as_deref() {
        Ok(progress) if progress.durable >= FIRST_BATCH_POSITION => Ok(writer),
        Ok(progress) => Err(StoreFault::Failed(format!("{path} failed at its header: {:?}", progress.state))),
        Err(_) => Err(StoreFault::Failed(format!("the writer of {path} went away"))),
    }
}

/// A store's failure as an event carries it, with its causes in the log.
fn noted(error: StoreError) -> StoreFault {
    if !matches!(error, StoreError::NotClosed { .. }) {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, cause, "the store failed");
    }
    error.into()
}

/// The next result. A job that panicked takes the partition's task with it, so that the supervisor sees it.
async fn next_job(jobs: &mut JoinSet<Event>) -> Event {
    match jobs.join_next().await {
        Some(Ok(event)) => event,
        Some(Err(error)) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn next_progress(watched: &mut Option<Watched>) {
    if let Some(watched) = watched
        && watched.progress.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn next_settings(settings: &mut watch::Receiver<PartitionConfig>) -> PartitionConfig {
    if settings.changed().await.is_err() {
        // Nobody is left who could change them.
        std::future::pending::<()>().await;
    }
    settings.borrow_and_update().clone()
}

async fn sleep_until(deadline: Option<Monotonic>, clock: &SharedClock) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.saturating_since(clock.now())).await,
        None => std::future::pending().await,
    }
}
