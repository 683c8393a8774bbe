//! Segments on HDFS.
//!
//! ```text
//! HdfsStore ── create ──▶ HdfsWriter ── its task ──▶ one FileWriter of the client library ──▶ three DataNodes
//!     │                        └─ broken or dropped ─▶ janitor ── lease recovery by another client ──▶ NameNode
//!     ├── fence, recover ── the fencing client ──▶ NameNode
//!     └── read, list, delete ── the reading client ──▶ NameNode, DataNodes
//! ```
//! Invariants:
//! * no call waits longer than its deadline, and none takes its caller along when the client library panics;
//! * every file that this store opened for writing is closed by its writer, or recovered by the janitor;
//! * a file is never appended to after it was closed, never created over another one, and has one block.
//!
//! What HDFS and the client library do that makes this necessary is told where it is handled, and shown on real daemons
//! by the tests in `integration-tests/tests/hdfs_store`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::{Random, Shutdown, Tasks};
use bmq_proto::{BytePosition, ClusterId, TopicId};
use bytes::Bytes;
use hdfs_native::file::FileWriter;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

mod clients;
mod config;
mod core;
mod counters;
mod failure;
mod index_file;
mod janitor;
mod reading;
mod start;
mod writer;

pub use config::{HdfsConfig, InvalidHdfsConfig};
pub use counters::{Count, HdfsCounters};

use crate::{
    FenceOutcome, FolderPath, FoundFile, SegmentPath, SegmentStore, SegmentWriter, StoreError, StoreProperties,
};
use clients::Clients;
use core::Core;
use failure::{Failure, guarded};
use janitor::{Janitor, OpenFile};
use reading::Readers;
use writer::{HdfsWriter, MAX_APPEND_BYTES};

/// Creations that may be without an answer at once.
const CREATIONS_LIMIT: usize = 256;
/// How long an answer to a creation is waited for after its caller has given up, to know what there is to clean.
const LATE_CREATION: Duration = Duration::from_secs(60);
/// Folders remembered as made; past this, all are forgotten and made again.
const FOLDERS_REMEMBERED: usize = 100_000;
/// Between two questions whether a file is closed.
const RECOVERY_POLL: Duration = Duration::from_millis(75);
/// How often `recover` asks before it says that it takes longer.
const RECOVERY_POLLS: u32 = 5;
/// How often `delete` asks: a file still open is better closed first, which takes its writer's pipeline down.
const RECOVERY_POLLS_BEFORE_DELETE: u32 = 40;

/// Segments on HDFS.
pub struct HdfsStore {
    core: Arc<Core>,
    readers: Readers,
    folders: Mutex<HashSet<FolderPath>>,
    creations: Arc<Semaphore>,
    /// The janitor's, the writers' and late creations'.
    tasks: Tasks,
}

impl HdfsStore {
    /// Connects, makes the root if it is missing, and refuses an HDFS or a folder that the store cannot work with.
    pub async fn connect(config: HdfsConfig) -> Result<Self, StoreError> {
        let refuse = |reason: String| StoreError::Refused { path: config.url.clone(), operation: "connecting", reason };
        config.validate().map_err(|invalid| refuse(invalid.to_string()))?;
        let location = config.location().map_err(|invalid| refuse(invalid.to_string()))?;
        let clients = Clients::build(&config, &location).map_err(|error| refuse(failure::with_causes(&error)))?;
        let (clients, counters) = (Arc::new(clients), Arc::new(HdfsCounters::default()));
        let tasks = Tasks::new(Shutdown::new());
        let deadline = config.operation_deadline.get();
        let janitor = Janitor::start(&tasks, Arc::clone(&clients), Arc::clone(&counters), deadline);
        let core = Core { config, root: location.root, clients, counters, janitor, random: Random::from_os() };
        start::prepare(&core).await?;
        Ok(Self {
            core: Arc::new(core),
            readers: Readers::default(),
            folders: Mutex::default(),
            creations: Arc::new(Semaphore::new(CREATIONS_LIMIT)),
            tasks,
        })
    }

    /// What the store counts of itself.
    pub fn counters(&self) -> Arc<HdfsCounters> {
        Arc::clone(&self.core.counters)
    }

    /// Waits until no file of this store is open: its writer closed it, or was dropped or broke and the file was
    /// recovered. At most for `deadline`; whether that was reached. Called before the process ends, it spares the next
    /// owner the wait.
    pub async fn settle(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.core.janitor.idle()).await.is_ok()
    }

    /// Makes a partition's folder unless that was done before.
    async fn ensure_folder(&self, folder: FolderPath) -> Result<(), StoreError> {
        if self.folders.lock().contains(&folder) {
            return Ok(());
        }
        let made = self.core.make_folder(self.core.absolute(folder)).await;
        made.map_err(|failure| failure.at(folder, "making the folder"))?;
        let mut folders = self.folders.lock();
        if folders.len() >= FOLDERS_REMEMBERED {
            folders.clear();
        }
        folders.insert(folder);
        Ok(())
    }

    /// Has the NameNode create the file. The call goes on after its deadline and after its caller: only when its
    /// answer is known is it known whether there is a file to be thrown away.
    async fn create_file(&self, path: SegmentPath) -> Result<(FileWriter, OpenFile), StoreError> {
        let Ok(permit) = Arc::clone(&self.creations).try_acquire_owned() else {
            let reason = format!("{CREATIONS_LIMIT} creations are without an answer");
            return Err(StoreError::Refused { path: path.to_string(), operation: "creating", reason });
        };
        let (answer, answered) = oneshot::channel();
        let core = Arc::clone(&self.core);
        self.tasks.spawn("hdfs-create", async move {
            let _permit = permit;
            let (client, file, options) = (core.clients.writing(), core.absolute(path), core.write_options());
            let mut open = core.janitor.open_file(file.clone());
            let created = guarded(LATE_CREATION, async move { client.create(&file, options).await }).await;
            if created.as_ref().is_err_and(Failure::is_refusal) {
                open.leave();
            }
            // If nobody hears the answer, what it holds is dropped, and so the file is cleaned away.
            let _ = answer.send(created.map(|file| (file, open)));
        });
        let deadline = self.core.config.create_deadline.get();
        let created = match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(created)) => created,
            Ok(Err(_)) => Err(Failure::Panicked("the creation ended without an answer".to_owned())),
            Err(_) => Err(Failure::Deadline(deadline)),
        };
        created.map_err(|failure| failure.at(path, "creating"))
    }

    /// Asks until the file is closed, or often enough. Whether it is.
    async fn poll_until_closed(&self, path: SegmentPath, polls: u32) -> Result<bool, StoreError> {
        for poll in 0..polls {
            if poll > 0 {
                tokio::time::sleep(RECOVERY_POLL).await;
            }
            match self.core.recover_lease(path).await {
                Ok(true) => return Ok(true),
                Ok(false) | Err(StoreError::NotClosed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    async fn delete_file(&self, below_root: String) -> Result<(), StoreError> {
        let (client, file) = (self.core.clients.reading.clone(), self.core.absolute(&below_root));
        match self.core.call(async move { client.delete(&file, true).await }).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_not_found() => Ok(()),
            Err(failure) => Err(failure.at(below_root, "deleting")),
        }
    }
}

#[async_trait]
impl SegmentStore for HdfsStore {
    fn properties(&self) -> StoreProperties {
        StoreProperties {
            open_files_readable: false,
            max_append_bytes: MAX_APPEND_BYTES,
            max_file_bytes: Some(self.core.config.block_size.bytes()),
        }
    }

    async fn create(&self, path: SegmentPath, header: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        self.ensure_folder(path.folder).await?;
        let mut created = self.create_file(path).await;
        if matches!(created, Err(StoreError::NotFound { .. })) {
            // Somebody deleted the folder since.
            self.folders.lock().remove(&path.folder);
            self.ensure_folder(path.folder).await?;
            created = self.create_file(path).await;
        }
        let counters = &self.core.counters;
        let (file, mut open) = created.inspect_err(|_| counters.create_failures.increment())?;
        counters.creates.increment();
        open.keep();
        Ok(Arc::new(HdfsWriter::start(&self.core, &self.tasks, path, header, file, open)))
    }

    async fn fence(&self, path: SegmentPath) -> Result<FenceOutcome, StoreError> {
        if !self.core.recover_lease(path).await? {
            let floor = BytePosition(self.core.status(path).await?.length as u64);
            // Only a length read while the file was open is a floor, and recovery may have closed it meanwhile.
            if !self.core.recover_lease(path).await? {
                return Ok(FenceOutcome::Open { floor });
            }
        }
        // Closed: before, or at once because no DataNode held a byte of it. Either way nobody writes it any more.
        let length = BytePosition(self.core.status(path).await?.length as u64);
        Ok(FenceOutcome::Closed { length })
    }

    async fn recover(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        if !self.poll_until_closed(path, RECOVERY_POLLS).await? {
            return Err(StoreError::NotClosed { path: path.to_string() });
        }
        Ok(BytePosition(self.core.status(path).await?.length as u64))
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        self.readers.read(&self.core, path, start, end).await
    }

    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        self.readers.length(&self.core, path).await
    }

    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
        index_file::write(&self.core, path, content).await
    }

    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        index_file::read(&self.core, path).await
    }

    async fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        let (client, absolute) = (self.core.clients.reading.clone(), self.core.absolute(folder));
        match self.core.call(async move { client.list_status(&absolute, false).await }).await {
            Ok(found) => Ok(found.into_iter().filter_map(segment_file).collect()),
            Err(failure) if failure.is_not_found() => Ok(Vec::new()),
            Err(failure) => Err(failure.at(folder, "listing")),
        }
    }

    async fn delete(&self, path: SegmentPath) -> Result<(), StoreError> {
        self.readers.forget(path);
        match self.poll_until_closed(path, RECOVERY_POLLS_BEFORE_DELETE).await {
            Ok(_) => self.delete_file(path.data_path()).await?,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.delete_file(path.index_path()).await
    }

    async fn delete_topic(&self, cluster: ClusterId, topic: TopicId) -> Result<(), StoreError> {
        self.readers.forget_topic(topic);
        self.folders.lock().retain(|folder| folder.topic() != topic);
        self.delete_file(format!("{cluster}/{topic}")).await
    }
}

/// The segment that a listed file is the data of, if it is one.
fn segment_file(status: hdfs_native::client::FileStatus) -> Option<FoundFile> {
    let name = status.path.rsplit('/').next()?.strip_suffix(".log")?;
    if status.isdir {
        return None;
    }
    Some(FoundFile { file: name.parse().ok()?, length: status.length as u64 })
}
