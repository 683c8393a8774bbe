//! A writer whose progress is what the plan makes of the real one's.
//!
//! A task relays the progress; it ends when either writer does.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::BytePosition;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::plan::{Fault, FaultPlan, Operation};
use super::{failure, flip_a_bit};
use crate::{SegmentPath, SegmentWriter, StoreError, WriterProgress, WriterState};

pub(super) struct FaultyWriter {
    path: SegmentPath,
    inner: Arc<dyn SegmentWriter>,
    plan: Arc<FaultPlan>,
    trouble: Arc<Mutex<Trouble>>,
    shown: Arc<watch::Sender<WriterProgress>>,
}

/// What is to become of the progress.
struct Trouble {
    /// As this writer's callers see it.
    appended: BytePosition,
    /// Appends are no longer handed on.
    swallows: bool,
    /// Progress at or past this is not shown any more.
    hang_at: Option<BytePosition>,
    /// Progress at or past this is shown as a failure.
    fail_at: Option<BytePosition>,
    /// Progress at or past a position is shown later; sorted by position.
    delays: Vec<(BytePosition, Duration)>,
}

impl FaultyWriter {
    pub(super) fn start(path: SegmentPath, inner: Arc<dyn SegmentWriter>, plan: Arc<FaultPlan>) -> Self {
        let mut real = inner.progress();
        let now = real.borrow_and_update().clone();
        let trouble =
            Trouble { appended: now.durable, swallows: false, hang_at: None, fail_at: None, delays: Vec::new() };
        let trouble = Arc::new(Mutex::new(trouble));
        let shown = Arc::new(watch::Sender::new(now));
        tokio::spawn(relay(path, real, trouble.clone(), shown.clone()));
        Self { path, inner, plan, trouble, shown }
    }

    fn refuse_after_end(&self) -> Result<(), StoreError> {
        match &self.shown.borrow().state {
            WriterState::Healthy => Ok(()),
            WriterState::Broken { reason } => {
                Err(StoreError::Broken { path: self.path.to_string(), reason: reason.to_string() })
            }
            WriterState::Closed { length } => {
                Err(StoreError::Broken { path: self.path.to_string(), reason: format!("it was closed at {length}") })
            }
        }
    }

    fn break_with(&self, reason: &str) {
        show_broken(&self.shown, self.path, reason);
    }
}

#[async_trait]
impl SegmentWriter for FaultyWriter {
    fn append(&self, mut parts: Vec<Bytes>) -> Result<BytePosition, StoreError> {
        let mut trouble = self.trouble.lock();
        self.refuse_after_end()?;
        let added: usize = parts.iter().map(Bytes::len).sum();
        let end = trouble.appended.plus(added as u64);
        // Planned before the bytes are handed on: they may be durable at once.
        let fault = self.plan.draw(Operation::Sync);
        match fault {
            None => {}
            Some(Fault::Fail | Fault::NoSpace | Fault::Hang) => trouble.swallows = true,
            Some(Fault::FailAfter) => trouble.fail_at = trouble.fail_at.or(Some(end)),
            Some(Fault::HangAfter) => trouble.hang_at = trouble.hang_at.or(Some(end)),
            Some(Fault::Slow(delay)) => trouble.delays.push((end, delay)),
            Some(Fault::Damage) => parts = parts.iter().map(flip_a_bit).collect(),
        }
        if !trouble.swallows {
            let position = self.inner.append(parts)?;
            assert_eq!(position, end, "both writers count the same bytes");
        }
        trouble.appended = end;
        match fault {
            Some(Fault::Fail) => self.break_with("a fault was injected"),
            Some(Fault::NoSpace) => self.break_with("no space left, as injected"),
            _ => {}
        }
        Ok(end)
    }

    fn progress(&self) -> watch::Receiver<WriterProgress> {
        self.shown.subscribe()
    }

    async fn close(&self) -> Result<BytePosition, StoreError> {
        self.refuse_after_end()?;
        let fault = self.plan.draw(Operation::Close);
        match fault {
            Some(Fault::Fail | Fault::NoSpace) => {
                self.break_with("a fault was injected");
                return Err(failure(self.path.to_string(), Operation::Close));
            }
            Some(Fault::Hang) => future::pending().await,
            Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
            None | Some(Fault::FailAfter | Fault::HangAfter | Fault::Damage) => {}
        }
        if self.trouble.lock().swallows {
            future::pending().await
        }
        let closing_is_hidden = matches!(fault, Some(Fault::FailAfter | Fault::HangAfter));
        if closing_is_hidden {
            self.trouble.lock().hang_at = Some(BytePosition::ZERO);
        }
        let length = self.inner.close().await?;
        match fault {
            Some(Fault::FailAfter) => {
                self.break_with("a fault was injected");
                return Err(failure(self.path.to_string(), Operation::Close));
            }
            Some(Fault::HangAfter) => future::pending().await,
            _ => {}
        }
        let mut shown = self.shown.subscribe();
        shown.wait_for(|progress| progress.state != WriterState::Healthy).await.expect("this handle keeps the sender");
        if let WriterState::Broken { reason } = &shown.borrow().state {
            return Err(StoreError::Broken { path: self.path.to_string(), reason: reason.to_string() });
        }
        Ok(length)
    }
}

/// Shows the real progress as the trouble has it, until one of the writers is over.
async fn relay(
    path: SegmentPath,
    mut real: watch::Receiver<WriterProgress>,
    trouble: Arc<Mutex<Trouble>>,
    shown: Arc<watch::Sender<WriterProgress>>,
) {
    loop {
        let progress = real.borrow_and_update().clone();
        let delay = trouble.lock().take_delays(progress.durable);
        tokio::time::sleep(delay).await;
        let ended = trouble.lock().show(path, progress, &shown);
        if ended || real.changed().await.is_err() {
            return;
        }
    }
}

impl Trouble {
    /// How much later progress up to `durable` is to be shown.
    fn take_delays(&mut self, durable: BytePosition) -> Duration {
        let due = self.delays.partition_point(|(position, _)| *position <= durable);
        self.delays.drain(..due).map(|(_, delay)| delay).sum()
    }

    /// Answers whether there is nothing more to show.
    fn show(&self, path: SegmentPath, real: WriterProgress, shown: &watch::Sender<WriterProgress>) -> bool {
        if self.hang_at.is_some_and(|position| position <= real.durable) {
            return true;
        }
        if self.fail_at.is_some_and(|position| position <= real.durable) {
            show_broken(shown, path, "a fault was injected");
            return true;
        }
        shown.send_if_modified(|progress| {
            let changes = progress.state == WriterState::Healthy && *progress != real;
            if changes {
                *progress = real;
            }
            changes
        });
        shown.borrow().state != WriterState::Healthy
    }
}

/// Ends the writer for its callers; what was shown as durable stays.
fn show_broken(shown: &watch::Sender<WriterProgress>, path: SegmentPath, reason: &str) {
    shown.send_modify(|progress| {
        let reason = format!("the sync of {path} failed: {reason}").into();
        progress.state = WriterState::Broken { reason };
    });
}
