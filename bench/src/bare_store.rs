//! The denominator: the bare store, writing groups of a given size to a given number of files, one group in flight per
//! file, as fast as it can. Nothing of the queue is in the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bmq_storage::segment::SegmentHeader;
use bmq_storage::{FolderPath, SegmentPath, SegmentStore, SegmentWriter, WriterState};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::watch;

use crate::latency::Latencies;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BareLoad {
    pub files: u32,
    /// Bytes made durable by each sync.
    pub group_bytes: usize,
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct BareOutcome {
    pub bytes: u64,
    pub elapsed: Duration,
    pub latencies: Latencies,
}

/// Writes below a cluster id of its own, which is removed afterwards, also after a failure.
pub async fn run(store: Arc<dyn SegmentStore>, load: BareLoad) -> anyhow::Result<BareOutcome> {
    let (cluster, topic) = (ClusterId::random(), TopicId::random());
    let path = |file: u32| {
        let partition = TopicPartition { topic, partition: PartitionId(file) };
        FolderPath { cluster, partition }.segment(FileId { epoch: Epoch(1), nonce: u64::from(file) })
    };
    let outcome = write_all(&store, (0..load.files).map(path).collect(), load).await;
    let removed = store.delete_topic(cluster, topic).await.context("could not remove the files of the bare store");
    let outcome = outcome?;
    removed?;
    Ok(outcome)
}

async fn write_all(
    store: &Arc<dyn SegmentStore>,
    paths: Vec<SegmentPath>,
    load: BareLoad,
) -> anyhow::Result<BareOutcome> {
    let group = group_parts(load.group_bytes, store.properties().max_append_bytes);
    let create = |path: SegmentPath| store.create(path, SegmentHeader::of(path).encode());
    let writers = try_join_all(paths.into_iter().map(create)).await.context("could not create the files")?;
    let begun = Instant::now();
    let end = begun + load.duration;
    let each = writers.iter().map(|writer| tokio::spawn(write_until(Arc::clone(writer), group.clone(), end)));
    let mut outcome = BareOutcome { bytes: 0, elapsed: Duration::ZERO, latencies: Latencies::default() };
    for written in try_join_all(each).await.context("a writer panicked")? {
        let latencies = written?;
        outcome.bytes += latencies.count() * load.group_bytes as u64;
        outcome.latencies.add(&latencies);
    }
    outcome.elapsed = begun.elapsed();
    try_join_all(writers.iter().map(|writer| writer.close())).await.context("could not close the files")?;
    Ok(outcome)
}

/// The same bytes each time: no store looks into them. Cut where one append may hold no more.
fn group_parts(group_bytes: usize, max_append_bytes: usize) -> Vec<Bytes> {
    let group = Bytes::from(vec![0x5a; group_bytes]);
    let starts = (0..group_bytes).step_by(max_append_bytes.max(1));
    starts.map(|start| group.slice(start..group_bytes.min(start.saturating_add(max_append_bytes)))).collect()
}

async fn write_until(writer: Arc<dyn SegmentWriter>, group: Vec<Bytes>, end: Instant) -> anyhow::Result<Latencies> {
    let mut progress = writer.progress();
    let mut latencies = Latencies::default();
    while Instant::now() < end {
        let begun = Instant::now();
        let position = writer.append(group.clone()).context("could not append")?;
        durable(&mut progress, position).await?;
        latencies.record(begun.elapsed());
    }
    Ok(latencies)
}

async fn durable(
    progress: &mut watch::Receiver<bmq_storage::WriterProgress>,
    position: BytePosition,
) -> anyhow::Result<()> {
    let reached = progress
        .wait_for(|now| now.durable >= position || now.state != WriterState::Healthy)
        .await
        .context("the writer went away")?;
    match &reached.state {
        _ if reached.durable >= position => Ok(()),
        WriterState::Broken { reason } => bail!("the writer broke: {reason}"),
        WriterState::Closed { .. } | WriterState::Healthy => bail!("the writer closed before its time"),
    }
}

#[cfg(test)]
mod tests {
    use bmq_storage::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn writes_to_a_store_and_leaves_nothing() {
        let store = Arc::new(MemoryStore::new());
        let load = BareLoad { files: 3, group_bytes: 1_000, duration: Duration::from_millis(20) };
        let outcome = run(store, load).await.unwrap();
        assert!(outcome.bytes >= 3_000 && outcome.elapsed >= load.duration);
        assert_eq!(outcome.bytes, outcome.latencies.count() * 1_000);
    }

    #[test]
    fn groups_are_cut_to_what_an_append_takes() {
        let lengths = |bytes, max| group_parts(bytes, max).iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(lengths(10, 4), [4, 4, 2]);
        assert_eq!(lengths(4, 4), [4]);
        assert_eq!(lengths(3, usize::MAX), [3]);
    }
}
