//! The contract of a segment store, which the conformance suite holds every store to.
//!
//! A segment file is created once, written by one writer, closed once, and never reopened for writing or renamed.
//!
//! Invariants:
//! * writer: `durable ≤ appended`; `durable` never goes back; after the first error it never moves again;
//! * a byte that `durable` passed is found by whoever fences the file later, whatever happened to machines in between;
//! * after `fence` returned, no write becomes durable any more: `durable` may still be seen to move, on an answer that
//!   was on its way, but never past what the fencer finds;
//! * nothing is overwritten: a name that exists is refused.

use std::sync::Arc;

use async_trait::async_trait;
use bmq_proto::{BytePosition, FileId};
use bytes::Bytes;
use tokio::sync::watch;

use crate::{FolderPath, SegmentPath, StoreError};

/// What the callers must know of a store to use it well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreProperties {
    /// Whether `read` works on a file that is still open, up to what its writer made durable.
    pub open_files_readable: bool,
    /// The most bytes that one part of an append may hold. A store may lose or tear, of an open file, only what the last
    /// unfinished appends wrote.
    pub max_append_bytes: usize,
    /// The most bytes that one file may hold, if there is a bound.
    pub max_file_bytes: Option<u64>,
}

/// A file found by listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundFile {
    pub file: FileId,
    /// What the store says of its length just now; not to be trusted while the file is open.
    pub length: u64,
}

/// What fencing found. In every case no older writer of the file succeeds any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceOutcome {
    /// The file had been closed before; `length` is final. It says nothing of what was acknowledged.
    Closed { length: BytePosition },
    /// The file was open. Missing or failing bytes below `floor` are damage, never a torn tail.
    /// Call `recover` to have the file closed.
    Open { floor: BytePosition },
}

/// A store of segment files.
#[async_trait]
pub trait SegmentStore: Send + Sync + 'static {
    fn properties(&self) -> StoreProperties;

    /// Creates the file, with `header` as its first bytes. `Ok` promises that the file exists under this name after a
    /// loss of power and that a writer is ready; the header's bytes are durable once `durable` passes them.
    /// `AlreadyExists` if the name was ever taken; any other error leaves the name unusable.
    async fn create(&self, path: SegmentPath, header: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError>;

    /// Takes the file away from whoever writes it. Returns as soon as no older writer can succeed any more.
    async fn fence(&self, path: SegmentPath) -> Result<FenceOutcome, StoreError>;

    /// Has the store close a fenced file; returns its final length when it is closed. `NotClosed` if that takes longer
    /// than a short wait of the store's own: call again.
    async fn recover(&self, path: SegmentPath) -> Result<BytePosition, StoreError>;

    /// Reads exactly `start..end` of the data file, `PastEnd` if it is shorter, `NotClosed` if it is open and the store
    /// cannot read open files.
    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError>;

    /// The length of a closed data file; `NotClosed` while open.
    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError>;

    /// Writes the index file whole and durably, replacing a damaged or older one.
    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError>;

    /// Reads the index file whole. `NotFound` if there is none.
    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError>;

    /// The segment files of a partition's folder, in no order; empty if there is no folder. Other names are left out.
    async fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError>;

    /// Deletes data and index. `Ok` also if they are not there.
    async fn delete(&self, path: SegmentPath) -> Result<(), StoreError>;

    /// Deletes a topic's folder with everything in it. `Ok` also if it is not there.
    async fn delete_topic(&self, cluster: bmq_proto::ClusterId, topic: bmq_proto::TopicId) -> Result<(), StoreError>;
}

/// How far a writer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterProgress {
    /// Every byte before this is durable.
    pub durable: BytePosition,
    pub state: WriterState,
}

/// Whether a writer goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterState {
    Healthy,
    /// For good. What lies above `durable` may or may not be in the file.
    Broken {
        reason: Arc<str>,
    },
    Closed {
        length: BytePosition,
    },
}

/// The writer of one open file: a handle to a task that owns it. Dropping every handle abandons the file; the task ends
/// by itself.
#[async_trait]
pub trait SegmentWriter: Send + Sync + 'static {
    /// Hands over bytes to be written after all earlier ones and made durable as soon as the store can: while one sync
    /// is in flight appends gather, and the next sync covers them all. Returns at once, with the position after the
    /// last byte. The caller bounds what it has outstanding. Each part is at most `max_append_bytes`, and is written
    /// whole or torn, never interleaved. Fails only if the writer is broken or closing.
    fn append(&self, parts: Vec<Bytes>) -> Result<BytePosition, StoreError>;

    /// Progress, to be watched.
    fn progress(&self) -> watch::Receiver<WriterProgress>;

    /// Writes out what is outstanding, closes the file, and returns its length. `Ok` promises that the store has closed
    /// it at exactly the appended length. Not for the append path: it may take long.
    async fn close(&self) -> Result<BytePosition, StoreError>;
}
