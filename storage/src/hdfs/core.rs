//! What every part of the HDFS store needs: settings, clients, counters, and where things stand.

use std::sync::Arc;

use bmq_common::Random;
use hdfs_native::client::FileStatus;
use hdfs_native::{HdfsError, WriteOptions};

use super::clients::Clients;
use super::config::HdfsConfig;
use super::counters::HdfsCounters;
use super::failure::{Failure, guarded};
use super::janitor::Janitor;
use crate::{SegmentPath, StoreError};

/// Permission of new folders, as `rwxr-xr-x`.
const FOLDER_PERMISSION: u32 = 0o755;

pub(super) struct Core {
    pub config: HdfsConfig,
    /// The root folder's absolute path, without a slash at its end.
    pub root: String,
    pub clients: Arc<Clients>,
    pub counters: Arc<HdfsCounters>,
    pub janitor: Janitor,
    /// For names that nobody else has.
    pub random: Random,
}

impl Core {
    /// The absolute path of something below the root.
    pub fn absolute(&self, below_root: impl std::fmt::Display) -> String {
        format!("{}/{below_root}", self.root)
    }

    /// Where files stand that are not finished; they get their name by being renamed.
    pub fn unfinished_folder(&self) -> String {
        self.absolute(".tmp")
    }

    /// A new name in that folder.
    pub fn unfinished_file(&self, kind: &str) -> String {
        format!("{}/{kind}-{:016x}", self.unfinished_folder(), self.random.next_u64())
    }

    /// How every file is created: never over another one, and never a folder with it, since folders that were deleted
    /// must not come back by themselves.
    pub fn write_options(&self) -> WriteOptions {
        WriteOptions::default()
            .overwrite(false)
            .create_parent(false)
            .replication(self.config.replication)
            .block_size(self.config.block_size.bytes())
    }

    /// A call under the deadline of all calls.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, HdfsError>> + Send + 'static,
    ) -> Result<T, Failure> {
        guarded(self.config.operation_deadline.get(), call).await
    }

    /// What the NameNode says of a segment's data file.
    pub async fn status(&self, path: SegmentPath) -> Result<FileStatus, StoreError> {
        let (client, file) = (self.clients.reading.clone(), self.absolute(path));
        let status = self.call(async move { client.get_file_info(&file).await }).await;
        status.map_err(|failure| failure.at(path, "reading the status"))
    }

    /// Makes a folder and those above it. `Ok` also if it is there.
    pub async fn make_folder(&self, absolute: String) -> Result<(), Failure> {
        let client = self.clients.reading.clone();
        self.call(async move { client.mkdirs(&absolute, FOLDER_PERMISSION, true).await }).await
    }

    /// One call of lease recovery: whether the file is closed. From the first call on nobody else can write it.
    pub async fn recover_lease(&self, path: SegmentPath) -> Result<bool, StoreError> {
        let (client, file) = (self.clients.fencing.clone(), self.absolute(path));
        match self.call(async move { client.recover_lease(&file).await }).await {
            Ok(closed) => Ok(closed),
            // Its last block is written out and waits for enough replicas to be reported.
            Err(failure) if failure.is_already_exists() => Err(StoreError::NotClosed { path: path.to_string() }),
            Err(failure) => Err(failure.at(path, "recovering the lease")),
        }
    }
}
