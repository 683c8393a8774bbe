//! The writer of one open HDFS file: a mailbox, and the one task that owns the client library's writer.
//!
//! ```text
//! append ─▶ mailbox ─▶ [ write the group, one sync ] ─▶ durable moves ─▶ next group …
//! ```
//! Invariants:
//! * `durable ≤ appended`, both counted here and never asked of the client library, which has been seen to report
//!   success on a file that had failed before;
//! * the first error, missed deadline or panic ends the task: `durable` never moves again;
//! * no sync without something new to be synced;
//! * when the task ends, whatever the reason, the file is closed or in the janitor's hands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::Tasks;
use bmq_proto::BytePosition;
use bytes::Bytes;
use hdfs_native::HdfsError;
use hdfs_native::file::FileWriter;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use super::core::Core;
use super::failure::{guarded, with_causes};
use super::janitor::OpenFile;
use crate::{SegmentPath, SegmentWriter, StoreError, WriterProgress, WriterState};

/// The most bytes of one part of an append.
pub(super) const MAX_APPEND_BYTES: usize = 8 << 20;
/// A group takes no more parts once it has this many bytes, so that a sync does not wait for a long write.
const GROUP_BYTES: usize = 4 << 20;
/// The most bytes that may wait for the sync in flight. Callers bound themselves earlier; this bounds those who do not.
const WAITING_BYTES: usize = 64 << 20;

/// The handle. Dropping it abandons the file.
pub(super) struct HdfsWriter {
    shared: Arc<Shared>,
    /// Keeps the writer's task alive even if the store is dropped first.
    _tasks: Tasks,
}

/// What handle and task have in common.
struct Shared {
    path: SegmentPath,
    block_size: u64,
    mailbox: Mutex<Mailbox>,
    wake: Notify,
    progress: watch::Sender<WriterProgress>,
}

struct Mailbox {
    parts: VecDeque<Bytes>,
    waiting_bytes: usize,
    appended: u64,
    intake: Intake,
}

/// What the mailbox takes in, and what follows when it is empty.
enum Intake {
    Open,
    Closing,
    Abandoned,
    Broken { reason: Arc<str>, fenced: bool },
}

/// What the task does next.
enum Next {
    Write(Vec<Bytes>),
    Close { length: u64 },
    Abandon,
}

impl HdfsWriter {
    /// Starts the task over a file just created, with `header` as its first append.
    pub(super) fn start(
        core: &Arc<Core>,
        tasks: &Tasks,
        path: SegmentPath,
        header: Bytes,
        file: FileWriter,
        open: OpenFile,
    ) -> Self {
        let progress = WriterProgress { durable: BytePosition::ZERO, state: WriterState::Healthy };
        let mailbox = Mailbox {
            appended: header.len() as u64,
            waiting_bytes: header.len(),
            parts: VecDeque::from([header]),
            intake: Intake::Open,
        };
        let shared = Arc::new(Shared {
            path,
            block_size: core.config.block_size.bytes(),
            mailbox: Mutex::new(mailbox),
            wake: Notify::new(),
            progress: watch::Sender::new(progress),
        });
        let task =
            WriterTask { core: Arc::clone(core), shared: Arc::clone(&shared), file: Some(file), durable: 0, open };
        tasks.spawn("hdfs-writer", task.run());
        Self { shared, _tasks: tasks.clone() }
    }
}

impl Drop for HdfsWriter {
    fn drop(&mut self) {
        let mut mailbox = self.shared.mailbox.lock();
        if !matches!(mailbox.intake, Intake::Broken { .. }) {
            mailbox.intake = Intake::Abandoned;
        }
        drop(mailbox);
        self.shared.wake.notify_one();
    }
}

#[async_trait]
impl SegmentWriter for HdfsWriter {
    fn append(&self, parts: Vec<Bytes>) -> Result<BytePosition, StoreError> {
        let shared = &self.shared;
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let mut mailbox = shared.mailbox.lock();
        match &mailbox.intake {
            Intake::Open => {}
            Intake::Broken { reason, fenced } => return Err(shared.broken(reason, *fenced)),
            Intake::Closing | Intake::Abandoned => return Err(shared.broken("it is being closed", false)),
        }
        if parts.iter().any(|part| part.len() > MAX_APPEND_BYTES) {
            return Err(shared.refused(format!("an append holds at most {MAX_APPEND_BYTES} bytes")));
        }
        if mailbox.waiting_bytes + bytes > WAITING_BYTES {
            return Err(shared.refused(format!("{} bytes are waiting already", mailbox.waiting_bytes)));
        }
        let appended = mailbox.appended + bytes as u64;
        if appended > shared.block_size {
            let size = shared.block_size;
            return Err(
                shared.refused(format!("the file would grow past its one block of {size} bytes, roll it earlier"))
            );
        }
        mailbox.parts.extend(parts.into_iter().filter(|part| !part.is_empty()));
        mailbox.waiting_bytes += bytes;
        mailbox.appended = appended;
        drop(mailbox);
        shared.wake.notify_one();
        Ok(BytePosition(appended))
    }

    fn progress(&self) -> watch::Receiver<WriterProgress> {
        self.shared.progress.subscribe()
    }

    async fn close(&self) -> Result<BytePosition, StoreError> {
        {
            let mut mailbox = self.shared.mailbox.lock();
            if matches!(mailbox.intake, Intake::Open) {
                mailbox.intake = Intake::Closing;
            }
        }
        self.shared.wake.notify_one();
        let mut progress = self.shared.progress.subscribe();
        let ended = progress.wait_for(|progress| progress.state != WriterState::Healthy).await;
        match &ended.expect("the sender lives in this writer").state {
            WriterState::Closed { length } => Ok(*length),
            WriterState::Broken { reason } => {
                let fenced = matches!(self.shared.mailbox.lock().intake, Intake::Broken { fenced: true, .. });
                Err(self.shared.broken(reason, fenced))
            }
            WriterState::Healthy => unreachable!("waited until it was not"),
        }
    }
}

impl Shared {
    /// Waits for something to do.
    async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.mailbox.lock().take_next() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    /// Ends the writer for good.
    fn break_for(&self, reason: &str, fenced: bool) {
        let reason: Arc<str> = reason.into();
        let mut mailbox = self.mailbox.lock();
        mailbox.intake = Intake::Broken { reason: Arc::clone(&reason), fenced };
        mailbox.parts.clear();
        mailbox.waiting_bytes = 0;
        self.progress.send_modify(|progress| progress.state = WriterState::Broken { reason });
    }

    fn broken(&self, reason: &str, fenced: bool) -> StoreError {
        let path = self.path.to_string();
        if fenced { StoreError::Fenced { path } } else { StoreError::Broken { path, reason: reason.to_owned() } }
    }

    fn refused(&self, reason: String) -> StoreError {
        StoreError::Refused { path: self.path.to_string(), operation: "appending", reason }
    }
}

impl Mailbox {
    fn take_next(&mut self) -> Option<Next> {
        match self.intake {
            Intake::Abandoned | Intake::Broken { .. } => Some(Next::Abandon),
            Intake::Open | Intake::Closing if !self.parts.is_empty() => Some(Next::Write(self.take_group())),
            Intake::Closing => Some(Next::Close { length: self.appended }),
            Intake::Open => None,
        }
    }

    /// Everything that waits, up to the bound; at least one part.
    fn take_group(&mut self) -> Vec<Bytes> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < GROUP_BYTES {
            let Some(part) = self.parts.pop_front() else { break };
            bytes += part.len();
            group.push(part);
        }
        self.waiting_bytes -= bytes;
        group
    }
}

/// The task's side.
struct WriterTask {
    core: Arc<Core>,
    shared: Arc<Shared>,
    /// Gone while a step has it, and for good once a step did not succeed: there is no second step then.
    file: Option<FileWriter>,
    durable: u64,
    /// Hands the file to the janitor if the task ends before it is closed.
    open: OpenFile,
}

impl WriterTask {
    async fn run(mut self) {
        let Err(error) = self.work().await else { return };
        let counters = &self.core.counters;
        match error {
            StoreError::Fenced { .. } => counters.broken_by_fence.increment(),
            StoreError::Deadline { .. } => counters.broken_by_deadline.increment(),
            _ => counters.broken_by_error.increment(),
        }
        let reason = with_causes(&error);
        warn!(file = %self.shared.path, durable = self.durable, reason, "segment writer broke");
        self.shared.break_for(&reason, matches!(error, StoreError::Fenced { .. }));
    }

    /// Writes until closed, abandoned or broken.
    async fn work(&mut self) -> Result<(), StoreError> {
        loop {
            match self.shared.next().await {
                Next::Write(group) => self.write(group).await?,
                Next::Close { length } => return self.close(length).await,
                Next::Abandon => {
                    self.core.counters.abandoned.increment();
                    return Ok(());
                }
            }
        }
    }

    /// Writes a group and syncs once.
    async fn write(&mut self, group: Vec<Bytes>) -> Result<(), StoreError> {
        let bytes: u64 = group.iter().map(|part| part.len() as u64).sum();
        assert!(bytes > 0, "a sync without anything to be synced proves nothing");
        let config = &self.core.config;
        // The first group sets the pipeline up, where a dead DataNode shows; a new name is then the better try.
        let deadline = if self.durable == 0 { config.create_deadline } else { config.sync_deadline };
        let started = Instant::now();
        let mut file = self.take_file();
        let synced = async move {
            for part in group {
                file.write_bytes(part).await?;
            }
            file.hsync().await?;
            Ok(file)
        };
        self.step("syncing", deadline.get(), synced).await?;
        self.core.counters.count_sync(bytes, started.elapsed());
        self.durable += bytes;
        let durable = BytePosition(self.durable);
        self.shared.progress.send_modify(|progress| progress.durable = durable);
        Ok(())
    }

    async fn close(&mut self, length: u64) -> Result<(), StoreError> {
        assert_eq!(self.durable, length, "a file is closed once everything appended is durable");
        let mut file = self.take_file();
        let closed = async move {
            file.close().await?;
            Ok(file)
        };
        self.step("closing", self.core.config.operation_deadline.get(), closed).await?;
        let found = self.core.status(self.shared.path).await?.length as u64;
        if found != length {
            let reason = format!("closed with {found} bytes, {length} were written");
            return Err(StoreError::Damaged {
                path: self.shared.path.to_string(),
                position: found.min(length),
                reason,
            });
        }
        self.open.leave();
        self.core.counters.closes.increment();
        let length = BytePosition(length);
        self.shared.progress.send_modify(|progress| progress.state = WriterState::Closed { length });
        Ok(())
    }

    fn take_file(&mut self) -> FileWriter {
        self.file.take().expect("a writer that failed a step is not asked for another")
    }

    /// One step with the client library's writer, which comes back only if the step succeeded in time.
    async fn step(
        &mut self,
        operation: &'static str,
        deadline: Duration,
        step: impl Future<Output = Result<FileWriter, HdfsError>> + Send + 'static,
    ) -> Result<(), StoreError> {
        let stepped = guarded(deadline, step).await;
        self.file = Some(stepped.map_err(|failure| failure.at(self.shared.path, operation))?);
        Ok(())
    }
}

impl Drop for WriterTask {
    /// However the task ends, nobody waits for it in vain.
    fn drop(&mut self) {
        if self.shared.progress.borrow().state == WriterState::Healthy {
            self.shared.break_for("it was abandoned", false);
        }
    }
}
