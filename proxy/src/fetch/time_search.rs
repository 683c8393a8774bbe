//! Finds records by their time.
//!
//! The owner is asked first, for what is not CLOSED; then the CLOSED segments are searched by their records and
//! indexes. In this order nothing is missed that is closed in between. Both only say where to begin to read; the record
//! itself is found by reading on from there.

use std::sync::Arc;

use bmq_common::retry::with_deadline;
use bmq_proto::broker::{TimeHint, TimeSearch};
use bmq_proto::meta::SegmentRecord;
use bmq_proto::record_batch::{BatchError, RecordLimits, records, split_batches};
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError, TopicPartition};
use bytes::Bytes;
use tokio::time::Instant;

use super::{Fetcher, Reader};

/// Bytes read at once on the way to the record.
const READ_BYTES: usize = 1 << 20;

/// A record that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOffset {
    pub offset: Offset,
    pub timestamp_ms: i64,
    /// The epoch under which it was written, if its batch tells.
    pub epoch: Option<Epoch>,
}

impl Fetcher {
    /// The record that is looked for, if there is one below the high watermark.
    pub async fn offset_for_time(
        self: &Arc<Self>,
        partition: TopicPartition,
        search: TimeSearch,
        deadline: Instant,
    ) -> Result<Option<TimedOffset>, ServiceError> {
        let bounds = self.bounds.read(partition, deadline).await?;
        let at_owner = self.hint_of_owner(partition, search, deadline).await?;
        let in_segments = self.hint_of_segments(partition, bounds.log_start, search).await?;
        let Some(hint) = choose(search, in_segments, at_owner) else { return Ok(None) };
        let mut reader = Reader::new(Arc::clone(self), partition);
        let mut offset = hint.from.max(bounds.log_start);
        loop {
            let slice = reader.read(offset, READ_BYTES, deadline).await?;
            if slice.next_offset == offset {
                return Ok(None);
            }
            for batch in split_batches(&slice.batches) {
                let (header, bytes) = batch.map_err(|error| damaged(partition, &error))?;
                if header.max_timestamp() < hint.timestamp_ms || header.next_offset() <= offset {
                    continue;
                }
                let found = first_in_batch(&bytes, offset, hint.timestamp_ms);
                if let Some(found) = found.map_err(|error| damaged(partition, &error))? {
                    return Ok(Some(found));
                }
            }
            offset = slice.next_offset;
        }
    }

    async fn hint_of_owner(
        &self,
        partition: TopicPartition,
        search: TimeSearch,
        deadline: Instant,
    ) -> Result<Option<TimeHint>, ServiceError> {
        let mut patience = self.bounds.patience(partition, deadline);
        loop {
            let (epoch, owner) = patience.owner().await?;
            let call = owner.service.offset_for_time(partition, epoch, search);
            match with_deadline("the broker", self.config.call_timeout.get(), call).await {
                Ok(Ok(hint)) => return Ok(hint),
                Ok(Err(error)) => patience.pause_after(error).await?,
                Err(late) => patience.pause(&late.to_string()).await?,
            }
        }
    }

    /// The hint that the CLOSED segments give.
    async fn hint_of_segments(
        &self,
        partition: TopicPartition,
        log_start: Offset,
        search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        let (mut best, mut from) = (None, log_start);
        loop {
            let segments = self.lists.read(partition, from).await?.segments;
            // An open segment has no end, and nothing comes after it.
            let after = segments.last().and_then(SegmentRecord::end).map(|end| end.offset);
            let is_over = search_closed(segments, search, &mut best);
            match after {
                Some(after) if after > from && !is_over => from = after,
                _ => break,
            }
        }
        let Some((segment, timestamp_ms)) = best else { return Ok(None) };
        let index = self.segments.chunks.index(self.segments.path(partition, &segment)).await;
        // Without its index a segment is read from its start.
        let from = index.map_or(segment.base_offset, |index| index.lookup_time(timestamp_ms));
        Ok(Some(TimeHint { from, timestamp_ms }))
    }
}

/// Looks for a better segment, with the timestamp to look for in it; returns whether no later one can be better.
fn search_closed(segments: Vec<SegmentRecord>, search: TimeSearch, best: &mut Option<(SegmentRecord, i64)>) -> bool {
    for segment in segments.into_iter().filter(SegmentRecord::is_closed) {
        let Some(max) = segment.max_timestamp_ms else { continue };
        match search {
            TimeSearch::AtOrAfter(timestamp_ms) if max >= timestamp_ms => {
                *best = Some((segment, timestamp_ms));
                return true;
            }
            TimeSearch::AtOrAfter(_) => {}
            TimeSearch::Highest if best.as_ref().is_none_or(|(_, highest)| max > *highest) => {
                *best = Some((segment, max));
            }
            TimeSearch::Highest => {}
        }
    }
    false
}

/// The earlier of two places, or the one with the higher timestamp.
fn choose(search: TimeSearch, earlier: Option<TimeHint>, later: Option<TimeHint>) -> Option<TimeHint> {
    match (earlier, later, search) {
        (Some(earlier), Some(later), TimeSearch::Highest) if later.timestamp_ms > earlier.timestamp_ms => Some(later),
        (Some(earlier), _, _) => Some(earlier),
        (None, later, _) => later,
    }
}

/// The first record of a batch at or above `offset` that is not older than `timestamp_ms`.
fn first_in_batch(batch: &Bytes, offset: Offset, timestamp_ms: i64) -> Result<Option<TimedOffset>, BatchError> {
    let iter = records(batch, &RecordLimits::default())?;
    let epoch = iter.header().leader_epoch();
    for record in iter {
        let record = record?;
        if record.offset >= offset && record.timestamp >= timestamp_ms {
            return Ok(Some(TimedOffset { offset: record.offset, timestamp_ms: record.timestamp, epoch }));
        }
    }
    Ok(None)
}

fn damaged(partition: TopicPartition, error: &BatchError) -> ServiceError {
    ServiceError::not_applied(ErrorCode::Damaged, format!("a batch of partition {partition} cannot be read: {error}"))
}
