//! The writer of one open local file: group commit, one sync at a time.
//!
//! ```text
//!   header ... durable ........ written ........ appended
//!                     |  group  |  gathering    |
//! ```
//! Invariants:
//! * `durable ≤ written ≤ appended`, and `written − durable ≤ MAX_GROUP`: so only the last `MAX_GROUP` bytes of a file
//!   can be torn;
//! * `durable` moves only after the data was synced and, *after* that, no fence was seen;
//! * after the first failure nothing is written and `durable` stands still.
//!
//! A job on a blocking thread drains the queue and ends when it is empty, so an idle writer holds no thread. The job
//! holds the file; no caller can cancel it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bmq_proto::BytePosition;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::files::{Files, failed};
use super::{MAX_GROUP, Mutant};
use crate::disk::DiskFile;
use crate::{SegmentPath, SegmentWriter, StoreError, WriterProgress, WriterState};

/// A handle to the file's job.
pub(super) struct LocalWriter {
    job: Arc<Job>,
    runtime: Handle,
}

struct Job {
    files: Arc<Files>,
    path: SegmentPath,
    file: Box<dyn DiskFile>,
    queue: Mutex<Queue>,
    progress: watch::Sender<WriterProgress>,
}

#[derive(Default)]
struct Queue {
    parts: VecDeque<Bytes>,
    appended: BytePosition,
    /// A thread is draining the queue, or is about to.
    draining: bool,
    closing: bool,
    /// Nothing more is done: the file is closed, or the writer failed.
    end: Option<End>,
}

#[derive(Clone)]
enum End {
    Closed(BytePosition),
    Fenced,
    NoSpace(io::ErrorKind),
    Failed(Arc<str>),
}

enum Work {
    Group(Vec<Bytes>),
    Close(BytePosition),
}

impl LocalWriter {
    /// Takes over a file just created, with everything before `durable` in it. Must be called on a runtime.
    pub(super) fn start(files: Arc<Files>, path: SegmentPath, file: Box<dyn DiskFile>, durable: BytePosition) -> Self {
        let queue = Mutex::new(Queue { appended: durable, ..Queue::default() });
        let progress = watch::Sender::new(WriterProgress { durable, state: WriterState::Healthy });
        Self { job: Arc::new(Job { files, path, file, queue, progress }), runtime: Handle::current() }
    }

    /// Sees to it that a thread drains the queue; `queue` is the job's, locked.
    fn wake(&self, queue: &mut Queue) {
        if !queue.draining {
            queue.draining = true;
            let job = self.job.clone();
            self.runtime.spawn_blocking(move || job.drain());
        }
    }
}

#[async_trait]
impl SegmentWriter for LocalWriter {
    fn append(&self, parts: Vec<Bytes>) -> Result<BytePosition, StoreError> {
        let path = self.job.path;
        if let Some(part) = parts.iter().find(|part| part.len() > MAX_GROUP) {
            let reason = format!("a part of {} bytes is over the {MAX_GROUP} that one append may hold", part.len());
            return Err(StoreError::Refused { path: path.to_string(), operation: "appending", reason });
        }
        let mut queue = self.job.queue.lock();
        if let Some(end) = &queue.end {
            return Err(end.refusal(path));
        }
        if queue.closing {
            return Err(StoreError::Broken { path: path.to_string(), reason: "it is closing".to_owned() });
        }
        let added: usize = parts.iter().map(Bytes::len).sum();
        queue.appended = queue.appended.plus(added as u64);
        queue.parts.extend(parts.into_iter().filter(|part| !part.is_empty()));
        self.wake(&mut queue);
        Ok(queue.appended)
    }

    fn progress(&self) -> watch::Receiver<WriterProgress> {
        self.job.progress.subscribe()
    }

    async fn close(&self) -> Result<BytePosition, StoreError> {
        let mut progress = self.progress();
        {
            let mut queue = self.job.queue.lock();
            queue.closing = true;
            self.wake(&mut queue);
        }
        progress
            .wait_for(|progress| progress.state != WriterState::Healthy)
            .await
            .expect("this handle keeps the sender alive");
        match &self.job.queue.lock().end {
            Some(End::Closed(length)) => Ok(*length),
            Some(end) => Err(end.refusal(self.job.path)),
            None => unreachable!("the end is set before it is published"),
        }
    }
}

impl Job {
    /// Works until there is nothing to do.
    fn drain(&self) {
        while let Some(work) = self.next_work() {
            let done = match work {
                Work::Group(group) => self.write_group(&group),
                Work::Close(length) => self.close(length),
            };
            if let Err(error) = done {
                self.finish(End::of(&error));
            }
        }
    }

    fn next_work(&self) -> Option<Work> {
        let mut queue = self.queue.lock();
        if queue.end.is_some() {
            queue.parts = VecDeque::new();
        }
        let work = match queue.take_group() {
            group if !group.is_empty() => Some(Work::Group(group)),
            _ if queue.closing && queue.end.is_none() => Some(Work::Close(queue.appended)),
            _ => None,
        };
        queue.draining = work.is_some();
        work
    }

    fn write_group(&self, group: &[Bytes]) -> Result<(), StoreError> {
        let slices: Vec<&[u8]> = group.iter().map(|part| &part[..]).collect();
        self.file.write_all(&slices).map_err(|error| failed(self.path, "writing", error))?;
        self.sync_unfenced()?;
        let written: usize = group.iter().map(Bytes::len).sum();
        assert!(written <= MAX_GROUP, "a group of {written} bytes may tear more than {MAX_GROUP}");
        self.progress.send_modify(|progress| progress.durable = progress.durable.plus(written as u64));
        Ok(())
    }

    /// Syncs, and then makes sure that nobody has fenced the file: whoever fences it later finds the synced bytes.
    fn sync_unfenced(&self) -> Result<(), StoreError> {
        let fenced_before = self.files.mutant == Some(Mutant::FenceBeforeSync) && self.files.is_fenced(self.path);
        if self.files.mutant != Some(Mutant::SkipSync) {
            self.file.sync_data().map_err(|error| failed(self.path, "syncing", error))?;
        }
        let fenced = match self.files.mutant {
            Some(Mutant::FenceBeforeSync) => fenced_before,
            _ => self.files.is_fenced(self.path),
        };
        if fenced {
            return Err(StoreError::Fenced { path: self.path.to_string() });
        }
        Ok(())
    }

    fn close(&self, length: BytePosition) -> Result<(), StoreError> {
        assert_eq!(self.progress.borrow().durable, length, "a file is closed when all of it is durable");
        self.files.close(self.path, length)?;
        self.finish(End::Closed(length));
        Ok(())
    }

    fn finish(&self, end: End) {
        let state = match &end {
            End::Closed(length) => WriterState::Closed { length: *length },
            _ => WriterState::Broken { reason: end.refusal(self.path).to_string().into() },
        };
        self.queue.lock().end = Some(end);
        self.progress.send_modify(|progress| progress.state = state);
    }
}

impl Queue {
    /// The next whole parts that fit into one group.
    fn take_group(&mut self) -> Vec<Bytes> {
        let mut room = MAX_GROUP;
        let fitting = self.parts.iter().take_while(|part| match room.checked_sub(part.len()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        let count = fitting.count();
        self.parts.drain(..count).collect()
    }
}

impl End {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Fenced { .. } => End::Fenced,
            StoreError::NoSpace { source, .. } => End::NoSpace(source.kind()),
            error => End::Failed(error.reason_chain().into()),
        }
    }

    /// What a call gets that comes after the end.
    fn refusal(&self, path: SegmentPath) -> StoreError {
        let path = path.to_string();
        match self {
            End::Closed(length) => StoreError::Broken { path, reason: format!("it was closed at {length}") },
            End::Fenced => StoreError::Fenced { path },
            End::NoSpace(source) => StoreError::NoSpace { path, source: (*source).into() },
            End::Failed(reason) => StoreError::Broken { path, reason: reason.to_string() },
        }
    }
}
