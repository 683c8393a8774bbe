//! Chunks of CLOSED segments in memory, each loaded once however many readers ask for it.
//!
//! ```text
//!   cursors ─▶ cache ──miss──▶ one load per chunk ─▶ store
//!                └ index of the file: says what the chunk's checksum must be
//! ```
//! A CLOSED file never changes, so what is cached is never stale, and is keyed by the file alone. The cache is bounded
//! by bytes; one that was read once by somebody catching up does not displace those that are read again and again, and
//! the ends of partitions are not here at all but in their rings.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_proto::BytePosition;
use bmq_storage::index::CHUNK_LEN;
use bmq_storage::{SegmentIndex, SegmentPath, SegmentStore, StoreError};
use bytes::Bytes;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::metrics::ProxyMetrics;

/// Encoded bytes of the indexes kept.
const INDEX_BYTES: u64 = 64 << 20;

/// What all who asked for one load are told, if it failed.
pub type SharedError = Arc<StoreError>;

/// One chunk of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkId {
    pub path: SegmentPath,
    pub number: u32,
}

impl ChunkId {
    /// The chunk that holds a position.
    pub fn at(path: SegmentPath, position: BytePosition) -> Self {
        Self { path, number: u32::try_from(position.0 / CHUNK_LEN as u64).expect("no segment is that long") }
    }

    /// Where the chunk begins.
    pub fn start(self) -> BytePosition {
        BytePosition(u64::from(self.number) * CHUNK_LEN as u64)
    }

    pub fn next(self) -> Self {
        Self { path: self.path, number: self.number + 1 }
    }
}

/// A chunk's bytes, up to the segment's end.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub bytes: Bytes,
    /// They are what the index says. Otherwise there is no index, or it says something else, and each batch has to
    /// prove itself.
    pub is_checked: bool,
    /// They are not what the index says.
    pub is_damaged: bool,
}

/// What a cursor knows of the file that it reads.
#[derive(Debug, Clone)]
pub struct FileEnd {
    pub position: BytePosition,
    pub index: Option<Arc<SegmentIndex>>,
}

/// See the head of the file.
pub struct ChunkCache {
    store: Arc<dyn SegmentStore>,
    deadline: Duration,
    /// Nothing is kept without room.
    chunks: Option<Cache<ChunkId, Chunk>>,
    indexes: Cache<SegmentPath, (Arc<SegmentIndex>, u32)>,
    /// Loads ahead of their readers that may be under way.
    ahead: Arc<Semaphore>,
    metrics: ProxyMetrics,
}

impl ChunkCache {
    /// `ahead_bytes` bounds what may be under way ahead of its readers; `deadline` is that of one read of a file.
    pub fn new(
        store: Arc<dyn SegmentStore>,
        cache_bytes: u64,
        ahead_bytes: u64,
        deadline: Duration,
        metrics: ProxyMetrics,
    ) -> Self {
        let chunk_weight = |_: &ChunkId, chunk: &Chunk| u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let index_weight = |_: &SegmentPath, (_, bytes): &(Arc<SegmentIndex>, u32)| *bytes;
        Self {
            store,
            deadline,
            chunks: (cache_bytes > 0).then(|| Cache::builder().weigher(chunk_weight).max_capacity(cache_bytes).build()),
            indexes: Cache::builder().weigher(index_weight).max_capacity(INDEX_BYTES).build(),
            ahead: Arc::new(Semaphore::new((ahead_bytes as usize / CHUNK_LEN).min(Semaphore::MAX_PERMITS))),
            metrics,
        }
    }

    /// A file's index; an error also if it is damaged.
    pub async fn index(&self, path: SegmentPath) -> Result<Arc<SegmentIndex>, SharedError> {
        let load = async {
            let bytes = self.in_time(path, "index read", self.store.read_index(path)).await?;
            let index = SegmentIndex::decode(&bytes, path).inspect_err(|error| {
                warn!(%error, "a segment's index is damaged, reading its data without it");
            })?;
            Ok((Arc::new(index), u32::try_from(bytes.len()).unwrap_or(u32::MAX)))
        };
        self.indexes.try_get_with(path, load).await.map(|(index, _)| index)
    }

    /// A chunk, from memory or loaded.
    pub async fn chunk(&self, id: ChunkId, end: &FileEnd) -> Result<Chunk, SharedError> {
        let Some(chunks) = &self.chunks else { return self.load(id, end).await.map_err(Arc::new) };
        let mut loaded = false;
        let load = async {
            loaded = true;
            self.load(id, end).await
        };
        let chunk = chunks.try_get_with(id, load).await?;
        if chunk.is_damaged {
            // The next one to ask may be answered by another replica.
            chunks.invalidate(&id).await;
        }
        if !loaded {
            self.metrics.chunk_hit();
        }
        Ok(chunk)
    }

    /// Begins to load a chunk that will be wanted soon, if it is not there and there is room for that.
    pub fn load_ahead(self: &Arc<Self>, id: ChunkId, end: &FileEnd) -> Option<AbortOnDropHandle<()>> {
        let chunks = self.chunks.clone()?;
        if id.start() >= end.position || chunks.contains_key(&id) {
            return None;
        }
        let room = Arc::clone(&self.ahead).try_acquire_owned().ok()?;
        let (cache, end) = (Arc::clone(self), end.clone());
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let load = async { cache.load(id, &end).await };
            // Whoever comes to need the chunk tries again, and is told.
            if let Err(error) = chunks.try_get_with(id, load).await {
                warn!(%error, "reading ahead failed");
            }
            drop(room);
        })))
    }

    async fn load(&self, id: ChunkId, end: &FileEnd) -> Result<Chunk, StoreError> {
        let stop = id.next().start().min(end.position);
        let bytes = self.in_time(id.path, "read", self.store.read(id.path, id.start(), stop)).await?;
        self.metrics.chunk_loaded(bytes.len());
        let index = end.index.as_ref().filter(|index| index.end_position == end.position);
        let checked = index.map(|index| index.check_chunk(id.number as usize, &bytes));
        if let Some(Err(error)) = &checked {
            let (file, chunk) = (id.path.data_path(), id.number);
            warn!(file, chunk, %error, "a segment is damaged; what is intact of it can still be read");
            self.metrics.chunk_damaged();
        }
        let (is_checked, is_damaged) = (matches!(checked, Some(Ok(()))), matches!(checked, Some(Err(_))));
        Ok(Chunk { bytes, is_checked, is_damaged })
    }

    async fn in_time<T>(
        &self,
        path: SegmentPath,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let deadline = self.deadline;
        let late = |_| StoreError::Deadline { path: path.data_path(), operation, deadline };
        with_deadline(operation, deadline, call).await.map_err(late)?
    }
}
