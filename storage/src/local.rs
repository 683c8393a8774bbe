//! Segments in a folder of this machine. Plain files under the contract's rules; see `docs/formats/segment.md`.
//!
//! Invariants:
//! * one process has the folder: it holds the lock of `<root>/LOCK` for as long as the store lives;
//! * a fence is a file beside the data file; a writer looks for it *after* each sync and before `durable` moves;
//! * a file that was not closed by its writer may be torn only in its last `MAX_GROUP` bytes;
//! * blocking calls run on blocking threads, and are not cancelled when a caller goes away.

mod end_marker;
mod files;
mod layout;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::{BytePosition, ClusterId, TopicId};
use bytes::Bytes;

use self::end_marker::EndKind;
use self::files::Files;
use self::writer::LocalWriter;
use crate::disk::{Disk, RealDisk};
use crate::{
    FenceOutcome, FolderPath, FoundFile, SegmentPath, SegmentStore, SegmentWriter, StoreError, StoreProperties,
};

/// The most bytes written between two syncs of one file, and so the most that a loss of power can tear.
pub const MAX_GROUP: usize = 4 << 20;

/// How long a disk may take for one operation before the caller is told that it did not end.
const DEADLINE: Duration = Duration::from_secs(30);

/// A rule of this store, to be broken on purpose: a test that stays green then tests nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The writer looks for a fence before it syncs instead of after.
    FenceBeforeSync,
    /// Folders are not synced when names are made in them.
    SkipFolderSync,
    /// Groups are not synced.
    SkipSync,
    /// A fence fixes the end of the file without syncing what lies before it.
    FenceWithoutSync,
}

/// Segments in a folder of this machine. Clones are handles to the same store.
#[derive(Clone)]
pub struct LocalStore {
    files: Arc<Files>,
}

impl LocalStore {
    /// Opens the folder, making it where it is missing. `Refused` if another store, in this process or another, has it.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(RealDisk), root).await
    }

    /// Opens the folder `root` of a given disk.
    pub async fn open_on(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let name = root.display().to_string();
        let files = blocking(name, "opening", move || Files::open(disk, root)).await?;
        Ok(Self { files: Arc::new(files) })
    }

    /// The same store with a rule broken. To be called before the store is used.
    #[cfg(feature = "testing")]
    pub fn with_mutant(mut self, mutant: Mutant) -> Self {
        Arc::get_mut(&mut self.files).expect("a store is given a mutant before it is shared").mutant = Some(mutant);
        self
    }

    /// Runs `work` on a blocking thread, to its end also if the caller goes away or the deadline passes.
    async fn run<T: Send + 'static>(
        &self,
        path: impl ToString,
        operation: &'static str,
        work: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = self.files.clone();
        blocking(path.to_string(), operation, move || work(&files)).await
    }
}

async fn blocking<T: Send + 'static>(
    path: String,
    operation: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(ended)) => Err(StoreError::Failed { path, operation, source: Box::new(ended) }),
        Err(_) => Err(StoreError::Deadline { path, operation, deadline: DEADLINE }),
    }
}

#[async_trait]
impl SegmentStore for LocalStore {
    fn properties(&self) -> StoreProperties {
        StoreProperties { open_files_readable: true, max_append_bytes: MAX_GROUP, max_file_bytes: None }
    }

    async fn create(&self, path: SegmentPath, header: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        let durable = BytePosition(header.len() as u64);
        let file = self.run(path, "creating", move |files| files.create(path, &header)).await?;
        Ok(Arc::new(LocalWriter::start(self.files.clone(), path, file, durable)))
    }

    /// The floor is the length less one group: a group is begun only after the one before it was synced, and the
    /// file's length covers every byte that was synced, so no more than one group at its end can be torn.
    async fn fence(&self, path: SegmentPath) -> Result<FenceOutcome, StoreError> {
        let end = self.run(path, "fencing", move |files| files.fence(path)).await?;
        Ok(match end.kind {
            EndKind::Closed => FenceOutcome::Closed { length: end.length },
            EndKind::Fenced => {
                FenceOutcome::Open { floor: BytePosition(end.length.0.saturating_sub(MAX_GROUP as u64)) }
            }
        })
    }

    /// A fence has fixed the end already; fences first where that was not done.
    async fn recover(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        self.run(path, "recovering", move |files| files.fence(path).map(|end| end.length)).await
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        self.run(path, "reading", move |files| files.read(path, start, end)).await
    }

    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        self.run(path, "asking the length", move |files| files.length(path)).await
    }

    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
        self.run(path.index_path(), "writing", move |files| files.write_index(path, &content)).await
    }

    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        self.run(path.index_path(), "reading", move |files| files.read_index(path)).await
    }

    async fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        self.run(folder, "listing", move |files| files.list(folder)).await
    }

    async fn delete(&self, path: SegmentPath) -> Result<(), StoreError> {
        self.run(path, "deleting", move |files| files.delete(path)).await
    }

    async fn delete_topic(&self, cluster: ClusterId, topic: TopicId) -> Result<(), StoreError> {
        let name = format!("{cluster}/{topic}");
        self.run(name, "deleting", move |files| files.delete_topic(cluster, topic)).await
    }
}
