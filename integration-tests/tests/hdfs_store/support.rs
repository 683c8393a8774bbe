//! A store over the shared cluster, and a writer that is never without a sync in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bmq_common::{ByteSize, HumanDuration};
use bmq_integration_tests::hdfs_cluster::HdfsCluster;
use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bmq_storage::hdfs::{HdfsConfig, HdfsStore};
use bmq_storage::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use bmq_storage::{FolderPath, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterProgress, WriterState};
use bytes::Bytes;
use tokio::sync::MutexGuard;

/// What a deadline may be missed by on a busy machine.
pub const GRACE: Duration = Duration::from_secs(2);
/// Longer than anything that is waited for takes.
pub const LONG: Duration = Duration::from_secs(40);

/// The cluster, held for one test, and a store on it.
pub struct Bench {
    pub cluster: MutexGuard<'static, HdfsCluster>,
    pub store: HdfsStore,
    pub config: HdfsConfig,
    folder: FolderPath,
}

impl Bench {
    /// A store below a root of its own.
    pub async fn new(root: &str) -> Self {
        let cluster = HdfsCluster::shared().await;
        let config = HdfsConfig {
            block_size: ByteSize::mib(32),
            operation_deadline: HumanDuration::secs(3),
            ..HdfsConfig::at(cluster.url(root))
        };
        let store = HdfsStore::connect(config.clone()).await.unwrap();
        let partition = TopicPartition { topic: TopicId::random(), partition: PartitionId(0) };
        let folder = FolderPath::new(ClusterId::random(), partition);
        Self { cluster, store, config, folder }
    }

    pub fn folder(&self) -> FolderPath {
        self.folder
    }

    pub fn path(&self, nonce: u64) -> SegmentPath {
        self.folder.segment(FileId { epoch: Epoch(1), nonce })
    }

    /// A second store on the same root, as another broker has.
    pub async fn other_store(&self) -> HdfsStore {
        HdfsStore::connect(self.config.clone()).await.unwrap()
    }

    /// The absolute path on HDFS.
    pub fn absolute(&self, path: SegmentPath) -> String {
        let root = self.config.url.splitn(4, '/').nth(3).unwrap();
        format!("/{root}/{path}")
    }

    pub async fn create(&self, nonce: u64) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        let path = self.path(nonce);
        self.store.create(path, SegmentHeader::of(path).encode()).await
    }

    /// Creates files under new names until one is ready; the nonce of that one with its writer.
    pub async fn create_ready(&self, nonces: std::ops::Range<u64>) -> (u64, Arc<dyn SegmentWriter>) {
        for nonce in nonces {
            let Ok(writer) = self.create(nonce).await else { continue };
            if is_durable(&*writer, BytePosition(1)).await {
                return (nonce, writer);
            }
        }
        panic!("no name of many could be created");
    }
}

/// Waits until everything before `position` is durable; false if the writer breaks first.
pub async fn is_durable(writer: &dyn SegmentWriter, position: BytePosition) -> bool {
    let mut progress = writer.progress();
    let reached = |seen: &WriterProgress| seen.durable >= position || seen.state != WriterState::Healthy;
    let seen = tokio::time::timeout(LONG, progress.wait_for(reached)).await;
    seen.expect("a writer makes progress or breaks").unwrap().durable >= position
}

/// Waits until the writer is broken, and returns its last progress.
pub async fn until_broken(writer: &dyn SegmentWriter) -> WriterProgress {
    let mut progress = writer.progress();
    let broken = progress.wait_for(|seen| matches!(seen.state, WriterState::Broken { .. }));
    let seen = tokio::time::timeout(LONG, broken).await.expect("the writer breaks").unwrap();
    seen.clone()
}

/// The byte that every test writes at this position.
pub fn pattern(position: u64) -> u8 {
    (position % 251) as u8
}

pub fn pattern_bytes(from: u64, bytes: u64) -> Bytes {
    (from..from + bytes).map(pattern).collect::<Vec<_>>().into()
}

/// Appends to a new file, one append after the other was acknowledged, until the writer breaks. So a sync is always in
/// flight when a fault strikes. Returns the last acknowledged position, and when the writer broke.
pub async fn append_until_broken(writer: Arc<dyn SegmentWriter>, bytes: u64) -> (BytePosition, Instant) {
    let mut end = BytePosition(SEGMENT_HEADER_LEN as u64);
    loop {
        match writer.append(vec![pattern_bytes(end.0, bytes)]) {
            Ok(position) => end = position,
            Err(StoreError::Refused { reason, .. }) => panic!("the fault came too late for this file: {reason}"),
            Err(_) => break,
        }
        if !is_durable(&*writer, end).await {
            break;
        }
    }
    (until_broken(&*writer).await.durable, Instant::now())
}

/// Recovers the file as a new owner does, and returns its length.
pub async fn recover(store: &HdfsStore, path: SegmentPath) -> BytePosition {
    let started = Instant::now();
    loop {
        match store.recover(path).await {
            Ok(length) => return length,
            Err(StoreError::NotClosed { .. }) if started.elapsed() < LONG => {}
            Err(error) => panic!("recovery of {path}: {error}"),
        }
    }
}

/// Checks that the file holds what was written, up to its end.
pub async fn check_content(store: &HdfsStore, path: SegmentPath, length: BytePosition) {
    let bytes = store.read(path, BytePosition::ZERO, length).await.unwrap();
    SegmentHeader::check(&bytes, path).unwrap();
    let wrong = (512..length.0).find(|at| bytes[*at as usize] != pattern(*at));
    assert_eq!(wrong, None, "{path} of {length} bytes");
}
