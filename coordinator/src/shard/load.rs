//! Loading a shard: reads its partition from the log start to the high watermark, and makes the state anew.
//!
//! The partition was just recovered, so all of it stands in sealed segments. Those that are not closed yet are waited
//! for: their closing is already on its way.

use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_proto::broker::PartitionBounds;
use bmq_proto::meta::{PartitionView, SegmentRecord};
use bmq_proto::record_batch::split_batches;
use bmq_proto::{BytePosition, Offset};
use bmq_storage::FolderPath;
use bytes::Bytes;

use super::ShardState;
use super::driver::ShardContext;
use super::replay::{NewState, Replay, ReplaySizes};

/// Read from a file at once: well above the longest batch.
const READ_BYTES: u64 = 4 << 20;
/// Segments asked for at once.
const SEGMENTS_AT_ONCE: usize = 64;

/// Why a shard cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("another owner has claimed the shard")]
    Superseded,
    /// Trying again will not help.
    #[error("what is stored cannot be read: {0}")]
    Damaged(String),
}

/// Loads the state that `bounds` enclose. Tries again for as long as that may help.
pub async fn load<S: ShardState>(
    context: &ShardContext,
    bounds: PartitionBounds,
    new_state: &NewState<S>,
) -> Result<(S, ReplaySizes), LoadError> {
    let mut loading = Loading {
        context,
        bounds,
        replay: Replay::new(new_state),
        next: bounds.log_start,
        backoff: Backoff::new(Duration::from_millis(10), Duration::from_millis(500)),
    };
    while loading.next < bounds.high_watermark {
        let view = context.meta.segments_from(context.partition, loading.next, SEGMENTS_AT_ONCE).await;
        match view {
            Ok(view) => loading.take_segments(&view).await?,
            Err(error) => {
                tracing::warn!(partition = %context.partition, %error, "segments are not known, asking again");
                loading.pause().await;
            }
        }
    }
    Ok(loading.replay.finish())
}

struct Loading<'a, S> {
    context: &'a ShardContext,
    bounds: PartitionBounds,
    replay: Replay<'a, S>,
    next: Offset,
    backoff: Backoff,
}

impl<S: ShardState> Loading<'_, S> {
    async fn pause(&mut self) {
        tokio::time::sleep(self.backoff.next(&self.context.random)).await;
    }

    /// Reads the segments that are closed, up to the first that is not.
    async fn take_segments(&mut self, view: &PartitionView) -> Result<(), LoadError> {
        if view.head.epoch != self.bounds.epoch {
            return Err(LoadError::Superseded);
        }
        let before = self.next;
        for segment in &view.segments {
            let Some(end) = segment.end().filter(|_| segment.is_closed()) else { break };
            if end.offset > self.next {
                self.read_segment(segment, end.position).await?;
            }
        }
        match self.next > before {
            true => self.backoff.reset(),
            false => self.pause().await,
        }
        Ok(())
    }

    async fn read_segment(&mut self, segment: &SegmentRecord, end: BytePosition) -> Result<(), LoadError> {
        let path = FolderPath::new(self.context.cluster, self.context.partition).segment(segment.file);
        let mut position = segment.start_position;
        while position < end {
            let stop = position.plus(READ_BYTES).min(end);
            match self.context.store.read(path, position, stop).await {
                Ok(bytes) => {
                    let taken = self.take_batches(&bytes, stop == end);
                    let taken = taken.map_err(|error| LoadError::Damaged(format!("{path}, {error}")))?;
                    position = position.plus(taken as u64);
                }
                Err(error) => {
                    let error = bmq_proto::ServiceError::from(&error);
                    tracing::warn!(%path, %error, "a shard's segment was not read, trying again");
                    self.pause().await;
                }
            }
        }
        Ok(())
    }

    /// Takes the whole batches in `bytes`, and says how many bytes they are.
    fn take_batches(&mut self, bytes: &Bytes, is_end: bool) -> Result<usize, String> {
        let mut taken = 0;
        for batch in split_batches(bytes) {
            let (header, batch) = match batch {
                Ok(batch) => batch,
                Err(error) if error.is_corrupt() || is_end || taken == 0 => return Err(error.to_string()),
                Err(_) => break,
            };
            taken += batch.len();
            if header.next_offset() > self.next {
                self.replay.take_batch(&header, &batch, self.next)?;
                self.next = header.next_offset();
            }
        }
        Ok(taken)
    }
}
