//! What one call sees of the modelled store, behind the real trait: so the partition's own reading code runs on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bmq_proto::{BytePosition, ClusterId, FileId, TopicId};
use bmq_storage::{
    FenceOutcome, FolderPath, FoundFile, SegmentPath, SegmentStore, SegmentWriter, StoreError, StoreProperties,
};
use bytes::Bytes;
use parking_lot::Mutex;

/// One file as it is at the moment of the call.
#[derive(Debug, Clone)]
pub struct SeenFile {
    /// `None` while it cannot be read.
    pub content: Option<Bytes>,
    pub index: Option<Bytes>,
}

/// The files that a call may read, and the indexes that it writes.
#[derive(Debug, Default)]
pub struct StoreView {
    pub files: BTreeMap<FileId, SeenFile>,
    pub written: Mutex<Vec<(FileId, Bytes)>>,
}

impl StoreView {
    fn file(&self, path: SegmentPath) -> Result<&SeenFile, StoreError> {
        self.files.get(&path.file).ok_or_else(|| StoreError::NotFound { path: path.to_string() })
    }
}

fn refused<T>(operation: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Refused { path: String::new(), operation, reason: "a view is for reading".to_owned() })
}

#[async_trait]
impl SegmentStore for StoreView {
    fn properties(&self) -> StoreProperties {
        StoreProperties { open_files_readable: false, max_append_bytes: 1 << 20, max_file_bytes: None }
    }

    async fn create(&self, _: SegmentPath, _: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        refused("creating")
    }

    async fn fence(&self, _: SegmentPath) -> Result<FenceOutcome, StoreError> {
        refused("fencing")
    }

    async fn recover(&self, _: SegmentPath) -> Result<BytePosition, StoreError> {
        refused("recovering")
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        let content = self.file(path)?.content.clone();
        let content = content.ok_or_else(|| StoreError::NotClosed { path: path.to_string() })?;
        let length = content.len() as u64;
        if start > end || end.0 > length {
            return Err(StoreError::PastEnd { path: path.to_string(), length, start: start.0, end: end.0 });
        }
        Ok(content.slice(start.0 as usize..end.0 as usize))
    }

    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        let content = self.file(path)?.content.as_ref().map(|content| BytePosition(content.len() as u64));
        content.ok_or_else(|| StoreError::NotClosed { path: path.to_string() })
    }

    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
        self.written.lock().push((path.file, content));
        Ok(())
    }

    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        let index = self.files.get(&path.file).and_then(|file| file.index.clone());
        index.ok_or_else(|| StoreError::NotFound { path: path.index_path() })
    }

    async fn list(&self, _: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        refused("listing")
    }

    async fn delete(&self, _: SegmentPath) -> Result<(), StoreError> {
        refused("deleting")
    }

    async fn delete_topic(&self, _: ClusterId, _: TopicId) -> Result<(), StoreError> {
        refused("deleting")
    }
}

/// Runs code that is asynchronous only in form: nothing that it waits for is outside of it.
pub fn run_now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
