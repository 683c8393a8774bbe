//! Segments in memory, for tests. Every append is durable at once; files close, fence and hide their content while
//! they are open as those of the other stores do.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bmq_proto::{BytePosition, ClusterId, TopicId};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    FenceOutcome, FolderPath, FoundFile, SegmentPath, SegmentStore, SegmentWriter, StoreError, StoreProperties,
    WriterProgress, WriterState,
};

const MAX_APPEND_BYTES: usize = 4 << 20;

/// Segments in memory. Clones are handles to the same store.
#[derive(Clone)]
pub struct MemoryStore {
    segments: Arc<Mutex<HashMap<SegmentPath, Segment>>>,
    open_files_readable: bool,
}

#[derive(Default)]
struct Segment {
    /// `None` for an index without a data file.
    file: Option<Arc<File>>,
    index: Option<Bytes>,
}

struct File {
    path: SegmentPath,
    content: Mutex<Content>,
    progress: watch::Sender<WriterProgress>,
}

struct Content {
    bytes: BytesMut,
    condition: Condition,
}

/// `Open → Fenced → Closed`, or `Open → Closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Open,
    Fenced,
    Closed,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store whose open files cannot be read, as on HDFS.
    pub fn new() -> Self {
        Self { segments: Arc::default(), open_files_readable: false }
    }

    /// An empty store whose open files can be read, as on a local disk.
    pub fn with_readable_open_files() -> Self {
        Self { open_files_readable: true, ..Self::new() }
    }

    /// Flips one bit of a data file, as a failing disk does.
    pub fn flip_bit(&self, path: SegmentPath, position: BytePosition) -> Result<(), StoreError> {
        let file = self.file(path)?;
        let bytes = &mut file.content.lock().bytes;
        let at = usize::try_from(position.0).ok().filter(|at| *at < bytes.len());
        let at = at.ok_or_else(|| past_end(path, bytes.len(), position, position.plus(1)))?;
        bytes[at] ^= 1;
        Ok(())
    }

    fn file(&self, path: SegmentPath) -> Result<Arc<File>, StoreError> {
        let segments = self.segments.lock();
        let file = segments.get(&path).and_then(|segment| segment.file.clone());
        file.ok_or_else(|| StoreError::NotFound { path: path.to_string() })
    }
}

#[async_trait]
impl SegmentStore for MemoryStore {
    fn properties(&self) -> StoreProperties {
        StoreProperties {
            open_files_readable: self.open_files_readable,
            max_append_bytes: MAX_APPEND_BYTES,
            max_file_bytes: None,
        }
    }

    async fn create(&self, path: SegmentPath, header: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        let mut segments = self.segments.lock();
        let slot = &mut segments.entry(path).or_default().file;
        if slot.is_some() {
            return Err(StoreError::AlreadyExists { path: path.to_string() });
        }
        let durable = BytePosition(header.len() as u64);
        let file = Arc::new(File {
            path,
            content: Mutex::new(Content { bytes: BytesMut::from(&header[..]), condition: Condition::Open }),
            progress: watch::Sender::new(WriterProgress { durable, state: WriterState::Healthy }),
        });
        *slot = Some(file.clone());
        Ok(Arc::new(MemoryWriter { file }))
    }

    async fn fence(&self, path: SegmentPath) -> Result<FenceOutcome, StoreError> {
        let file = self.file(path)?;
        let mut content = file.content.lock();
        let length = content.length();
        if content.condition == Condition::Closed {
            return Ok(FenceOutcome::Closed { length });
        }
        content.condition = Condition::Fenced;
        file.break_writer();
        Ok(FenceOutcome::Open { floor: length })
    }

    async fn recover(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        let file = self.file(path)?;
        let mut content = file.content.lock();
        content.condition = Condition::Closed;
        file.break_writer();
        Ok(content.length())
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        let file = self.file(path)?;
        let content = file.content.lock();
        if content.condition != Condition::Closed && !self.open_files_readable {
            return Err(StoreError::NotClosed { path: path.to_string() });
        }
        if start > end || end > content.length() {
            return Err(past_end(path, content.bytes.len(), start, end));
        }
        Ok(Bytes::copy_from_slice(&content.bytes[start.0 as usize..end.0 as usize]))
    }

    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        let file = self.file(path)?;
        let content = file.content.lock();
        match content.condition {
            Condition::Closed => Ok(content.length()),
            Condition::Open | Condition::Fenced => Err(StoreError::NotClosed { path: path.to_string() }),
        }
    }

    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
        self.segments.lock().entry(path).or_default().index = Some(content);
        Ok(())
    }

    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        let index = self.segments.lock().get(&path).and_then(|segment| segment.index.clone());
        index.ok_or_else(|| StoreError::NotFound { path: path.index_path() })
    }

    async fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        let segments = self.segments.lock();
        let here = segments.iter().filter(|(path, _)| path.folder == folder);
        let found = here.filter_map(|(path, segment)| {
            let length = segment.file.as_ref()?.content.lock().length().0;
            Some(FoundFile { file: path.file, length })
        });
        Ok(found.collect())
    }

    async fn delete(&self, path: SegmentPath) -> Result<(), StoreError> {
        if let Some(Segment { file: Some(file), .. }) = self.segments.lock().remove(&path) {
            file.remove();
        }
        Ok(())
    }

    async fn delete_topic(&self, cluster: ClusterId, topic: TopicId) -> Result<(), StoreError> {
        self.segments.lock().retain(|path, segment| {
            let stays = path.folder.cluster != cluster || path.folder.topic() != topic;
            if let (false, Some(file)) = (stays, &segment.file) {
                file.remove();
            }
            stays
        });
        Ok(())
    }
}

impl Content {
    fn length(&self) -> BytePosition {
        BytePosition(self.bytes.len() as u64)
    }
}

impl File {
    /// Ends the writer of a file that has left the store.
    fn remove(&self) {
        let _content = self.content.lock();
        self.break_writer();
    }

    /// Ends the writer if it is still going. To be called with the content locked, so that no append is under way.
    fn break_writer(&self) {
        self.progress.send_if_modified(|progress| {
            let healthy = progress.state == WriterState::Healthy;
            if healthy {
                let reason = StoreError::Fenced { path: self.path.to_string() }.to_string();
                progress.state = WriterState::Broken { reason: reason.into() };
            }
            healthy
        });
    }

    /// Refuses what comes after the writer's end.
    fn check_writer(&self) -> Result<(), StoreError> {
        let path = self.path.to_string();
        match &self.progress.borrow().state {
            WriterState::Healthy => Ok(()),
            WriterState::Broken { .. } => Err(StoreError::Fenced { path }),
            WriterState::Closed { length } => {
                Err(StoreError::Broken { path, reason: format!("it was closed at {length}") })
            }
        }
    }
}

struct MemoryWriter {
    file: Arc<File>,
}

#[async_trait]
impl SegmentWriter for MemoryWriter {
    fn append(&self, parts: Vec<Bytes>) -> Result<BytePosition, StoreError> {
        let path = self.file.path;
        if let Some(part) = parts.iter().find(|part| part.len() > MAX_APPEND_BYTES) {
            let reason =
                format!("a part of {} bytes is over the {MAX_APPEND_BYTES} that one append may hold", part.len());
            return Err(StoreError::Refused { path: path.to_string(), operation: "appending", reason });
        }
        let mut content = self.file.content.lock();
        self.file.check_writer()?;
        for part in parts {
            content.bytes.extend_from_slice(&part);
        }
        let durable = content.length();
        self.file.progress.send_modify(|progress| progress.durable = durable);
        Ok(durable)
    }

    fn progress(&self) -> watch::Receiver<WriterProgress> {
        self.file.progress.subscribe()
    }

    async fn close(&self) -> Result<BytePosition, StoreError> {
        let mut content = self.file.content.lock();
        let length = content.length();
        if self.file.progress.borrow().state == (WriterState::Closed { length }) {
            return Ok(length);
        }
        self.file.check_writer()?;
        content.condition = Condition::Closed;
        self.file.progress.send_modify(|progress| progress.state = WriterState::Closed { length });
        Ok(length)
    }
}

fn past_end(path: SegmentPath, length: usize, start: BytePosition, end: BytePosition) -> StoreError {
    StoreError::PastEnd { path: path.to_string(), length: length as u64, start: start.0, end: end.0 }
}
