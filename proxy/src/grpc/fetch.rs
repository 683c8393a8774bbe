//! `Fetch`: a stream of batches from many partitions, as fast as the client gives credit.
//!
//! Each partition has a cursor, which waits for data, takes credit, reads, and answers. Bounds: what cursors have read
//! and not sent is at most the credit; a cursor that cannot read holds none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bmq_common::Backoff;
use bmq_proto::broker::PartitionBounds;
use bmq_proto::rpc::status::{error_detail, to_public_status};
use bmq_proto::v1::{fetch_request, fetch_response};
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError, v1};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Status, Streaming};
use tracing::debug;

use super::credit::FetchCredit;
use super::poll::resolve;
use super::{Api, broken_stream, invalid, shutting_down};
use crate::fetch::Reader;
use crate::fetch::ring::Slice;

type Answers = mpsc::Sender<Result<v1::FetchResponse, Status>>;

/// How long a cursor may hold credit while it tries to read.
const HOLD_CREDIT: Duration = Duration::from_secs(1);

/// Serves one stream to its end.
pub async fn run(api: Arc<Api>, frames: Streaming<v1::FetchRequest>, answers: Answers) {
    let _level = api.metrics.fetch_stream_open();
    let served = tokio::select! {
        served = serve(&api, frames, &answers) => served,
        () = answers.closed() => return,
        () = api.shutdown().begun() => Err(shutting_down()),
    };
    if let Err(error) = served {
        debug!(%error, "a fetch stream ends");
        // The client may have gone meanwhile.
        let _ = answers.send(Err(to_public_status(&error))).await;
    }
}

async fn serve(api: &Api, mut frames: Streaming<v1::FetchRequest>, answers: &Answers) -> Result<(), ServiceError> {
    let open = tokio::time::timeout(api.config.fetch.answer_timeout.get(), first_frame(&mut frames)).await;
    let open = open.map_err(|_| ServiceError::not_applied(ErrorCode::Timeout, "no `open` frame came"))??;
    let terms = Terms::of(api, &open)?;
    let credit = FetchCredit::new(open.credit_bytes, api.config.fetch.max_credit_bytes.0);
    let sent = AtomicBool::new(false);
    let standings: Vec<Standing> = open.positions.iter().map(Standing::new).collect();
    let mut cursors: FuturesUnordered<_> = open
        .positions
        .into_iter()
        .zip(&standings)
        .map(|(position, standing)| {
            let cursor = Cursor { api, terms, credit: &credit, answers, sent: &sent, standing };
            Box::pin(cursor.run(position.position))
        })
        .collect();

    let mut heartbeat = tokio::time::interval(api.config.fetch.heartbeat_interval.get());
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let mut client_speaks = true;
    loop {
        tokio::select! {
            finished = cursors.next() => match finished {
                Some(()) => {}
                // Every partition has failed.
                None => return Ok(()),
            },
            frame = frames.next(), if client_speaks => match frame {
                Some(Ok(request)) => credit.add(more_credit(request)?),
                Some(Err(status)) => return Err(broken_stream(&status)),
                None => client_speaks = false,
            },
            _ = heartbeat.tick() => {
                if !sent.swap(false, Ordering::Relaxed) {
                    send_heartbeat(api, &standings, answers);
                }
            }
        }
    }
}

async fn first_frame(frames: &mut Streaming<v1::FetchRequest>) -> Result<v1::FetchOpen, ServiceError> {
    match frames.next().await {
        Some(Ok(v1::FetchRequest { frame: Some(fetch_request::Frame::Open(open)) })) => Ok(open),
        Some(Ok(_)) => Err(invalid("the first frame of a fetch stream must be `open`")),
        Some(Err(status)) => Err(broken_stream(&status)),
        None => Err(invalid("the fetch stream ended before its `open` frame")),
    }
}

fn more_credit(request: v1::FetchRequest) -> Result<u64, ServiceError> {
    match request.frame {
        Some(fetch_request::Frame::Credit(v1::FetchCredit { bytes })) => Ok(bytes),
        _ => Err(invalid("only `credit` frames may follow `open`")),
    }
}

/// Tells the bounds of all partitions, unless the client has answers waiting that it does not read.
fn send_heartbeat(api: &Api, standings: &[Standing], answers: &Answers) {
    let bounds = standings.iter().filter_map(|standing| standing.bounds(api)).collect();
    let frame = fetch_response::Frame::Heartbeat(v1::FetchHeartbeat { bounds });
    let _ = answers.try_send(Ok(v1::FetchResponse { frame: Some(frame) }));
}

/// What the client asked for, for all partitions.
#[derive(Clone, Copy)]
struct Terms {
    min_bytes: u64,
    max_wait: Duration,
    max_bytes: usize,
}

impl Terms {
    fn of(api: &Api, open: &v1::FetchOpen) -> Result<Self, ServiceError> {
        let config = &api.config.fetch;
        if open.positions.is_empty() {
            return Err(invalid("a fetch stream needs at least one position"));
        }
        if open.positions.len() > config.max_positions as usize {
            let (found, limit) = (open.positions.len(), config.max_positions);
            return Err(invalid(format!("a fetch stream reads at most {limit} partitions, not {found}")));
        }
        let limit = config.max_bytes.0 as usize;
        let max_bytes = if open.max_bytes == 0 { limit } else { limit.min(open.max_bytes as usize) };
        let max_wait = Duration::from_millis(open.max_wait_ms.into()).min(config.max_wait.get());
        Ok(Self { min_bytes: u64::from(open.min_bytes).min(max_bytes as u64), max_wait, max_bytes })
    }
}

/// Where one partition of the stream stands.
struct Standing {
    topic: String,
    number: u32,
    /// `None` until the partition was read, and after it failed.
    seen: Mutex<Option<(bmq_proto::TopicPartition, PartitionBounds)>>,
}

impl Standing {
    fn new(position: &v1::PartitionPosition) -> Self {
        Self { topic: position.topic.clone(), number: position.partition, seen: Mutex::new(None) }
    }

    fn bounds(&self, api: &Api) -> Option<v1::PartitionBounds> {
        let (partition, mut bounds) = (*self.seen.lock())?;
        if let Some(told) = api.fetcher.tails.look(partition, |tail| tail.bounds()).flatten()
            && told.high_watermark >= bounds.high_watermark
        {
            bounds = told;
        }
        Some(v1::PartitionBounds {
            topic: self.topic.clone(),
            partition: self.number,
            log_start: bounds.log_start.0,
            high_watermark: bounds.high_watermark.0,
            epoch: bounds.epoch.0,
        })
    }
}

/// One partition of the stream, at work.
struct Cursor<'a> {
    api: &'a Api,
    terms: Terms,
    credit: &'a FetchCredit,
    answers: &'a Answers,
    sent: &'a AtomicBool,
    standing: &'a Standing,
}

impl Cursor<'_> {
    /// Reads on until the partition cannot; then says why.
    async fn run(self, position: Option<v1::Position>) {
        let Err(error) = self.read_on(position).await else {
            return;
        };
        *self.standing.seen.lock() = None;
        let (topic, partition) = (self.standing.topic.clone(), self.standing.number);
        let failed = v1::FetchFailed { topic, partition, error: Some(error_detail(&error)) };
        self.tell(fetch_response::Frame::Failed(failed)).await;
    }

    /// Returns with an error that no waiting mends, or when the client has gone.
    async fn read_on(&self, position: Option<v1::Position>) -> Result<(), ServiceError> {
        let mut patience = Backoff::new(self.api.config.fetch.retry_first.get(), self.api.config.fetch.retry_max.get());
        let place = loop {
            match self.api.directory.partition(&self.standing.topic, self.standing.number).await {
                Ok(place) => break place,
                Err(error) => self.pause_after(error, &mut patience).await?,
            }
        };
        let mut reader = Reader::new(Arc::clone(&self.api.fetcher), place);
        let mut offset = loop {
            let deadline = Instant::now() + self.api.config.fetch.answer_timeout.get();
            match resolve(&mut reader, position, deadline).await {
                Ok(offset) => break offset,
                Err(error) => self.pause_after(error, &mut patience).await?,
            }
        };
        loop {
            if reader.is_at_end(offset) {
                self.wait_for_data(&mut reader, offset).await;
            }
            let grant = self.credit.take(self.terms.max_bytes).await;
            let read = reader.read(offset, grant.bytes(), Instant::now() + HOLD_CREDIT).await;
            let bounds = reader.bounds();
            *self.standing.seen.lock() = Some((place, bounds));
            match read {
                Ok(slice) if slice.batches.is_empty() && slice.next_offset == offset => {
                    drop(grant);
                    self.wait_for_data(&mut reader, offset).await;
                }
                Ok(slice) => {
                    grant.spend(slice.batches.len());
                    offset = slice.next_offset;
                    patience.reset();
                    if !self.answer(slice, bounds).await {
                        return Ok(());
                    }
                }
                Err(error) => {
                    drop(grant);
                    self.pause_after(error, &mut patience).await?;
                }
            }
        }
    }

    /// Waits for the first byte, then for as many as the client wants, but not too long.
    async fn wait_for_data(&self, reader: &mut Reader, offset: Offset) {
        reader.wait(offset, 1, None).await;
        if self.terms.min_bytes > 1 && !self.terms.max_wait.is_zero() {
            reader.wait(offset, self.terms.min_bytes, Some(Instant::now() + self.terms.max_wait)).await;
        }
    }

    async fn pause_after(&self, error: ServiceError, patience: &mut Backoff) -> Result<(), ServiceError> {
        let may_mend = matches!(
            error.code,
            ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::Busy | ErrorCode::NotOwner | ErrorCode::Fenced
        );
        if !may_mend {
            return Err(error);
        }
        tokio::time::sleep(patience.next(&self.api.random)).await;
        Ok(())
    }

    async fn answer(&self, slice: Slice, bounds: PartitionBounds) -> bool {
        let PartitionBounds { epoch: Epoch(_), log_start, high_watermark } = bounds;
        self.tell(fetch_response::Frame::Batches(v1::FetchedBatches {
            topic: self.standing.topic.clone(),
            partition: self.standing.number,
            batches: slice.batches,
            next_offset: slice.next_offset.0,
            high_watermark: high_watermark.max(slice.next_offset).0,
            log_start: log_start.0,
        }))
        .await
    }

    /// Returns whether the client is still there.
    async fn tell(&self, frame: fetch_response::Frame) -> bool {
        self.sent.store(true, Ordering::Relaxed);
        self.answers.send(Ok(v1::FetchResponse { frame: Some(frame) })).await.is_ok()
    }
}
