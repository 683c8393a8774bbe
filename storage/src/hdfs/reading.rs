//! Reading data files, through readers that are kept.
//!
//! A reader knows where the blocks of its file are. That is asked once per file and not once per read; after an error
//! the file is opened anew, since blocks move.
//!
//! The client library's reader sees nothing of a block that is still being written, and panics when asked past what it
//! sees. So a file counts as closed if what the reader sees is all that the NameNode knows; a file of which the
//! NameNode knows no byte at all counts as open, because the two cannot be told apart.

use std::collections::HashMap;
use std::sync::Arc;

use bmq_proto::{BytePosition, TopicId};
use bytes::Bytes;
use hdfs_native::file::FileReader;
use parking_lot::Mutex;

use super::core::Core;
use super::failure::{Failure, guarded};
use crate::{SegmentPath, StoreError};

/// Readers kept; the one used longest ago goes first.
const READERS_KEPT: usize = 256;

/// The readers kept.
#[derive(Default)]
pub(super) struct Readers {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    readers: HashMap<SegmentPath, (Arc<FileReader>, u64)>,
    /// Grows with every use; stands in for the time of it.
    uses: u64,
}

impl Readers {
    /// Reads exactly `start..end` of a closed file.
    pub(super) async fn read(
        &self,
        core: &Core,
        path: SegmentPath,
        start: BytePosition,
        end: BytePosition,
    ) -> Result<Bytes, StoreError> {
        if let Some(reader) = self.kept(path).filter(|reader| reaches(reader, end)) {
            match read_range(core, reader, start, end).await {
                Ok(bytes) => return Ok(bytes),
                Err(_) => core.counters.reads_reopened.increment(),
            }
        }
        self.forget(path);
        let reader = open(core, core.absolute(path)).await.map_err(|failure| failure.at(path, "opening"))?;
        if !reaches(&reader, end) || start > end {
            let length = closed_length(core, path, &reader).await?;
            return Err(StoreError::PastEnd { path: path.to_string(), length, start: start.0, end: end.0 });
        }
        let bytes = read_range(core, Arc::clone(&reader), start, end).await;
        let bytes = bytes.map_err(|failure| failure.at(path, "reading"))?;
        self.keep(path, reader);
        Ok(bytes)
    }

    /// The length of a closed file.
    pub(super) async fn length(&self, core: &Core, path: SegmentPath) -> Result<BytePosition, StoreError> {
        let reader = open(core, core.absolute(path)).await.map_err(|failure| failure.at(path, "opening"))?;
        closed_length(core, path, &reader).await.map(BytePosition)
    }

    pub(super) fn forget(&self, path: SegmentPath) {
        self.kept.lock().readers.remove(&path);
    }

    pub(super) fn forget_topic(&self, topic: TopicId) {
        self.kept.lock().readers.retain(|path, _| path.folder.topic() != topic);
    }

    fn kept(&self, path: SegmentPath) -> Option<Arc<FileReader>> {
        let mut kept = self.kept.lock();
        kept.uses += 1;
        let now = kept.uses;
        let (reader, used) = kept.readers.get_mut(&path)?;
        *used = now;
        Some(Arc::clone(reader))
    }

    fn keep(&self, path: SegmentPath, reader: Arc<FileReader>) {
        let mut kept = self.kept.lock();
        if kept.readers.len() >= READERS_KEPT {
            let oldest = kept.readers.iter().min_by_key(|(_, (_, used))| *used).map(|(path, _)| *path);
            oldest.map(|path| kept.readers.remove(&path));
        }
        kept.uses += 1;
        let now = kept.uses;
        kept.readers.insert(path, (reader, now));
    }
}

/// Whether `read_range` may be asked up to `end`.
fn reaches(reader: &FileReader, end: BytePosition) -> bool {
    end.0 <= reader.file_length() as u64
}

/// Opens a file by its absolute path.
pub(super) async fn open(core: &Core, file: String) -> Result<Arc<FileReader>, Failure> {
    let client = core.clients.reading.clone();
    core.call(async move { client.read(&file).await }).await.map(Arc::new)
}

/// Reads what `reader` is known to reach.
pub(super) async fn read_range(
    core: &Core,
    reader: Arc<FileReader>,
    start: BytePosition,
    end: BytePosition,
) -> Result<Bytes, Failure> {
    assert!(start <= end && reaches(&reader, end), "asked for {start}..{end} of {} bytes", reader.file_length());
    let bytes = end.since(start) as usize;
    let read = guarded(core.config.operation_deadline.get(), async move {
        let read = reader.read_range(start.0 as usize, bytes).await?;
        // The library ends a stream early without an error when a DataNode does.
        if read.len() != bytes {
            let text = format!("asked for {bytes} bytes, got {}", read.len());
            return Err(hdfs_native::HdfsError::DataTransferError(text));
        }
        Ok(read)
    });
    read.await
}

async fn closed_length(core: &Core, path: SegmentPath, reader: &FileReader) -> Result<u64, StoreError> {
    let known = core.status(path).await?.length as u64;
    if known == 0 || known != reader.file_length() as u64 {
        return Err(StoreError::NotClosed { path: path.to_string() });
    }
    Ok(known)
}
