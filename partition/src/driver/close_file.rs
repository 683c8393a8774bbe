//! Closing a sealed segment's file: by its writer if that is sound, else by recovery; then check it, then its index.

use std::sync::Arc;

use bmq_proto::BytePosition;
use bmq_proto::meta::SegmentRecord;
use bmq_storage::{FenceOutcome, FolderPath, SegmentPath, SegmentStore, SegmentWriter, WriterState};
use bytes::Bytes;

use crate::machine::StoreFault;
use crate::recovery_scan;

pub(super) async fn run(
    store: &dyn SegmentStore,
    folder: FolderPath,
    writer: Option<Arc<dyn SegmentWriter>>,
    segment: &SegmentRecord,
    index: Option<Bytes>,
    earlier: Vec<SegmentRecord>,
) -> Result<Option<i64>, StoreFault> {
    let path = folder.segment(segment.file);
    let end = segment.end().ok_or_else(|| StoreFault::Damaged(format!("{path} is not sealed")))?;
    let length = close(store, path, writer).await?;
    if length < end.position {
        return Err(StoreFault::Damaged(format!("{path} was closed at {length}, it was sealed at {}", end.position)));
    }
    let index = match index {
        Some(index) => index,
        None => recovery_scan::make_index(store, folder, segment, earlier).await?,
    };
    let max_timestamp_ms = recovery_scan::max_timestamp_ms(&index, path)?;
    store.write_index(path, index).await.map_err(super::noted)?;
    Ok(max_timestamp_ms)
}

async fn close(
    store: &dyn SegmentStore,
    path: SegmentPath,
    writer: Option<Arc<dyn SegmentWriter>>,
) -> Result<BytePosition, StoreFault> {
    let sound = |writer: &Arc<dyn SegmentWriter>| writer.progress().borrow().state == WriterState::Healthy;
    if let Some(writer) = writer.filter(sound) {
        match writer.close().await {
            Ok(length) => return Ok(length),
            Err(error) => tracing::warn!(%path, %error, "closing failed, recovering the file instead"),
        }
    }
    match store.fence(path).await.map_err(super::noted)? {
        FenceOutcome::Closed { length } => Ok(length),
        FenceOutcome::Open { .. } => store.recover(path).await.map_err(super::noted),
    }
}
