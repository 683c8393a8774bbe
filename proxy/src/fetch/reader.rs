//! Reads batches at an offset, from wherever the plan says, and waits for them where there are none yet.

use std::sync::Arc;

use bmq_common::retry::with_deadline;
use bmq_proto::broker::{OwnerBatches, OwnerRead, PartitionBounds, TimeSearch};
use bmq_proto::meta::SegmentRecord;
use bmq_proto::record_batch::split_batches;
use bmq_proto::{Epoch, ErrorCode, FileId, Offset, ServiceError, TopicPartition};
use bmq_storage::StoreError;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::bounds::{Patience, VerifiedBounds};
use super::chunk_cache::SharedError;
use super::follower::{TailReader, Tails};
use super::plan::{Known, Plan, plan};
use super::ring::Slice;
use super::segment_cursor::{SegmentCursor, SegmentReads};
use super::segment_list::SegmentLists;
use super::tail::Tail;
use super::time_search::TimedOffset;
use crate::config::FetchConfig;
use crate::directory::{Directory, Route};
use crate::metrics::{ProxyMetrics, Source};

/// What all readers share.
pub struct Fetcher {
    pub config: FetchConfig,
    pub directory: Arc<Directory>,
    pub tails: Arc<Tails>,
    pub bounds: VerifiedBounds,
    pub lists: SegmentLists,
    pub segments: Arc<SegmentReads>,
    pub metrics: ProxyMetrics,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Whole batches back to back; empty if there is nothing at the offset yet.
    pub batches: Bytes,
    /// Where to go on.
    pub next_offset: Offset,
    /// As known here: never ahead of the truth.
    pub bounds: PartitionBounds,
}

/// How much to read, and how long to wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Appetite {
    pub min_bytes: usize,
    pub max_bytes: usize,
    /// Until when to wait for `min_bytes`.
    pub wait_until: Instant,
    /// Until when what is there must be read.
    pub deadline: Instant,
}

/// One reader of one partition, with its place in the storage.
pub struct Reader {
    fetcher: Arc<Fetcher>,
    partition: TopicPartition,
    cursor: Option<SegmentCursor>,
    tail: Option<TailReader>,
    bounds: PartitionBounds,
    /// Whether the owner told the bounds; otherwise they are what the head record says, which lags.
    is_told: bool,
    /// A file that was not there when it was read last. It may have been dropped meanwhile; the metadata tells.
    missing: Option<FileId>,
}

impl Reader {
    pub fn new(fetcher: Arc<Fetcher>, partition: TopicPartition) -> Self {
        let bounds = PartitionBounds { epoch: Epoch::NONE, log_start: Offset::ZERO, high_watermark: Offset::ZERO };
        Self { fetcher, partition, cursor: None, tail: None, bounds, is_told: false, missing: None }
    }

    /// The newest bounds that this reader has seen.
    pub fn bounds(&mut self) -> PartitionBounds {
        if let Some(told) = self.fetcher.tails.look(self.partition, |tail| tail.bounds()).flatten() {
            self.learn(told);
        }
        self.bounds
    }

    /// The newest bounds that an owner told, if one did.
    pub fn told_bounds(&mut self) -> Option<PartitionBounds> {
        let bounds = self.bounds();
        self.is_told.then_some(bounds)
    }

    /// The bounds, for certain, at some moment after this call.
    pub async fn verified_bounds(&mut self, deadline: Instant) -> Result<PartitionBounds, ServiceError> {
        let bounds = self.fetcher.bounds.read(self.partition, deadline).await?;
        self.learn(bounds);
        Ok(bounds)
    }

    /// The record with a time that is looked for, if there is one.
    pub async fn find(&self, search: TimeSearch, deadline: Instant) -> Result<Option<TimedOffset>, ServiceError> {
        self.fetcher.offset_for_time(self.partition, search, deadline).await
    }

    /// Reads at `offset` until `min_bytes` are there, `max_bytes` are reached, or the wait is over.
    pub async fn read_and_wait(&mut self, offset: Offset, appetite: Appetite) -> Result<Fetched, ServiceError> {
        let Appetite { min_bytes, max_bytes, wait_until, deadline } = appetite;
        let mut gathered = Gathered { parts: Vec::new(), bytes: 0, next_offset: offset };
        loop {
            let deadline = deadline.max(Instant::now() + self.fetcher.config.retry_max.get());
            let slice = match self.read(gathered.next_offset, max_bytes - gathered.bytes, deadline).await {
                Ok(slice) => slice,
                // What was read is good, whatever comes after it.
                Err(_) if gathered.bytes > 0 => break,
                Err(error) => return Err(error),
            };
            let nothing = slice.batches.is_empty();
            // Only the first batch may pass the limit.
            if gathered.bytes > 0 && gathered.bytes + slice.batches.len() > max_bytes {
                break;
            }
            gathered.add(slice);
            if gathered.bytes >= min_bytes.max(1) || gathered.bytes >= max_bytes || Instant::now() >= wait_until {
                break;
            }
            if nothing {
                let more = (min_bytes - gathered.bytes.min(min_bytes)) as u64;
                self.wait(gathered.next_offset, more, Some(wait_until)).await;
            }
        }
        let bounds = self.bounds();
        let next_offset = gathered.next_offset;
        Ok(Fetched { batches: gathered.finish(), next_offset, bounds })
    }

    /// Waits until `min_bytes` more can be read at `offset`, or it is worth to look; `false` if `until` came first.
    pub async fn wait(&mut self, offset: Offset, min_bytes: u64, until: Option<Instant>) -> bool {
        let is_followed = self.fetcher.tails.look(self.partition, |_| ()).is_some();
        if !is_followed {
            self.tail = None;
        }
        let tail = self.tail.get_or_insert_with(|| self.fetcher.tails.join(self.partition, offset));
        tail.wait(offset, min_bytes, until).await
    }

    /// Whether the tail knows that there is nothing at `offset` yet.
    pub fn is_at_end(&self, offset: Offset) -> bool {
        let epoch = self.fetcher.directory.epoch(self.partition);
        let live = self.fetcher.tails.look(self.partition, |tail| tail.live(epoch)).flatten();
        live.is_some_and(|tail| tail.high_watermark == offset)
    }

    /// Reads what there is at `offset`: at least one batch, or nothing exactly at the high watermark.
    pub async fn read(&mut self, offset: Offset, max_bytes: usize, deadline: Instant) -> Result<Slice, ServiceError> {
        if let Some(slice) = self.read_ring(offset, max_bytes) {
            return Ok(slice);
        }
        let mut patience = self.fetcher.bounds.patience(self.partition, deadline);
        // A list that was just read is not read again for the same answer.
        let mut loaded = false;
        loop {
            let route = patience.route()?;
            match self.plan(offset, &route) {
                Plan::FromRing => {
                    if let Some(slice) = self.read_ring(offset, max_bytes) {
                        return Ok(slice);
                    }
                }
                Plan::AtEnd => return Ok(Slice { batches: Bytes::new(), next_offset: offset }),
                Plan::LoadSegments if !loaded => {
                    loaded = true;
                    if let Err(error) = self.fetcher.lists.load(self.partition, offset).await {
                        patience.pause_after(error).await?;
                        loaded = false;
                    }
                }
                Plan::FromSegment(segment) => {
                    if let Some(slice) = self.read_segment(&segment, offset, max_bytes, &mut patience).await? {
                        return Ok(slice);
                    }
                    loaded = false;
                }
                Plan::CheckRange => {
                    self.check_range(offset, deadline).await?;
                    if let Some(slice) = self.read_owner(offset, max_bytes, &mut patience).await? {
                        return Ok(slice);
                    }
                    loaded = false;
                }
                Plan::FromOwner | Plan::LoadSegments => {
                    if let Some(slice) = self.read_owner(offset, max_bytes, &mut patience).await? {
                        return Ok(slice);
                    }
                    loaded = false;
                }
            }
        }
    }

    fn read_ring(&self, offset: Offset, max_bytes: usize) -> Option<Slice> {
        let epoch = self.fetcher.directory.epoch(self.partition);
        let read = |tail: &Tail| tail.live(epoch).and_then(|_| tail.read(offset, max_bytes));
        let slice = self.fetcher.tails.look(self.partition, read).flatten()?;
        self.fetcher.metrics.read_answered(Source::Ring, slice.batches.len());
        Some(slice)
    }

    fn plan(&mut self, offset: Offset, route: &Route) -> Plan {
        let (log_start, high_watermark) = (route.log_start, route.sealed_end);
        self.raise(PartitionBounds { epoch: route.epoch, log_start, high_watermark });
        let tail = self.fetcher.tails.look(self.partition, |tail| tail.live(route.epoch)).flatten();
        let segments = self.fetcher.lists.get(self.partition);
        let (head_version, sealed_end) = (route.version, route.sealed_end);
        plan(offset, Known { tail: tail.as_ref(), head_version, sealed_end, segments: segments.as_deref() })
    }

    /// Reads a CLOSED segment; nothing if the metadata must be read again first.
    async fn read_segment(
        &mut self,
        segment: &SegmentRecord,
        offset: Offset,
        max_bytes: usize,
        patience: &mut Patience,
    ) -> Result<Option<Slice>, ServiceError> {
        match self.read_from_cursor(segment, offset, max_bytes).await {
            Ok(slice) => {
                self.fetcher.metrics.read_answered(Source::Segment, slice.batches.len());
                self.missing = None;
                Ok(Some(slice))
            }
            Err(error) => {
                self.cursor = None;
                self.fetcher.lists.forget(self.partition);
                let gone = matches!(*error, StoreError::NotFound { .. });
                if gone && self.missing.replace(segment.file) == Some(segment.file) {
                    // The metadata was read again, and still names it: a dropped file is kept for longer than that.
                    let text = format!("{error}, although the metadata names it");
                    return Err(ServiceError::not_applied(ErrorCode::Damaged, text));
                }
                if !gone && !error.is_retriable() {
                    return Err(ServiceError::from(&*error));
                }
                patience.pause(&error.to_string()).await?;
                Ok(None)
            }
        }
    }

    async fn read_from_cursor(
        &mut self,
        segment: &SegmentRecord,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<Slice, SharedError> {
        let end = segment.end().expect("a closed segment has an end");
        let mut cursor = match self.cursor.take().filter(|cursor| cursor.is_at(segment, offset)) {
            Some(cursor) => cursor,
            None => self.fetcher.segments.open(self.partition, segment, end, offset).await?,
        };
        let slice = cursor.read(offset, max_bytes).await?;
        self.cursor = Some(cursor);
        Ok(slice)
    }

    /// Asks the owner; nothing if it has to be tried again, after a pause.
    async fn read_owner(
        &mut self,
        offset: Offset,
        max_bytes: usize,
        patience: &mut Patience,
    ) -> Result<Option<Slice>, ServiceError> {
        let (epoch, owner) = patience.owner().await?;
        let max_bytes = u32::try_from(max_bytes).unwrap_or(u32::MAX);
        let call = owner.service.read(OwnerRead { partition: self.partition, epoch, offset, max_bytes });
        let answer = match with_deadline("the broker", self.fetcher.config.call_timeout.get(), call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.code == ErrorCode::OutOfRange => {
                self.check_range(offset, patience.deadline()).await?;
                patience.pause("the owner and the metadata disagree on where the partition ends").await?;
                return Ok(None);
            }
            Ok(Err(error)) => {
                patience.pause_after(error).await?;
                // What the watch has not told yet may lead elsewhere.
                if let Err(error) = self.fetcher.bounds.refresh(self.partition).await {
                    patience.pause_after(error).await?;
                }
                return Ok(None);
            }
            Err(late) => {
                patience.pause(&late.to_string()).await?;
                return Ok(None);
            }
        };
        if answer.bounds.epoch < self.fetcher.directory.epoch(self.partition).max(self.bounds.epoch) {
            patience.pause("the partition moved while it was read").await?;
            return Ok(None);
        }
        self.learn(answer.bounds);
        self.fetcher.metrics.read_answered(Source::Owner, answer.batches.len());
        check_answer(offset, answer).map(Some)
    }

    /// `OutOfRange` if the offset certainly lies outside the log.
    async fn check_range(&mut self, offset: Offset, deadline: Instant) -> Result<(), ServiceError> {
        let PartitionBounds { log_start, high_watermark, .. } = self.verified_bounds(deadline).await?;
        if offset < log_start || offset > high_watermark {
            let text = format!("offset {offset} lies outside of the log, which holds {log_start} to {high_watermark}");
            return Err(ServiceError::not_applied(ErrorCode::OutOfRange, text));
        }
        Ok(())
    }

    fn learn(&mut self, told: PartitionBounds) {
        self.is_told = true;
        self.raise(told);
    }

    fn raise(&mut self, told: PartitionBounds) {
        self.bounds = PartitionBounds {
            epoch: self.bounds.epoch.max(told.epoch),
            log_start: self.bounds.log_start.max(told.log_start),
            high_watermark: self.bounds.high_watermark.max(told.high_watermark),
        };
    }
}

/// Takes an owner's answer only if it is whole batches that hold the offset, below the high watermark.
fn check_answer(offset: Offset, answer: OwnerBatches) -> Result<Slice, ServiceError> {
    let wrong = |what: &str| {
        let text = format!("the partition's owner answered {what} at offset {offset}");
        ServiceError::not_applied(ErrorCode::Internal, text)
    };
    let OwnerBatches { bounds, batches } = answer;
    let mut next_offset = offset;
    for batch in split_batches(&batches) {
        let (header, _) = batch.map_err(|error| wrong(&format!("bytes that are no batches ({error})")))?;
        if header.next_offset() <= next_offset {
            return Err(wrong("batches that go back"));
        }
        next_offset = header.next_offset();
    }
    if next_offset > bounds.high_watermark {
        return Err(wrong("batches above the high watermark"));
    }
    Ok(Slice { batches, next_offset })
}

/// Slices on their way into one answer; a single one is not copied.
struct Gathered {
    parts: Vec<Bytes>,
    bytes: usize,
    next_offset: Offset,
}

impl Gathered {
    fn add(&mut self, slice: Slice) {
        self.next_offset = slice.next_offset;
        self.bytes += slice.batches.len();
        if !slice.batches.is_empty() {
            self.parts.push(slice.batches);
        }
    }

    fn finish(mut self) -> Bytes {
        if self.parts.len() <= 1 {
            return self.parts.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        self.parts.iter().for_each(|part| whole.extend_from_slice(part));
        whole.freeze()
    }
}
