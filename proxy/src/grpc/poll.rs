//! `Poll`: one read with a long poll, for scripts. Opens the batches, so that scripts need not.

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::broker::TimeSearch;
use bmq_proto::record_batch::{Record, RecordLimits, records, split_batches, verify_crc};
use bmq_proto::v1::position::At;
use bmq_proto::{ErrorCode, Offset, ServiceError, v1};
use tokio::time::Instant;

use super::pack::refused;
use super::{Api, invalid, shutting_down};
use crate::fetch::Fetched;
use crate::fetch::reader::{Appetite, Reader};

/// The most that the records of one answer may have when they are opened.
const OPENED_BYTES: usize = 16 << 20;

pub async fn poll(api: &Api, request: v1::PollRequest) -> Result<v1::PollResponse, ServiceError> {
    tokio::select! {
        answer = read(api, request) => answer,
        () = api.shutdown().begun() => Err(shutting_down()),
    }
}

async fn read(api: &Api, request: v1::PollRequest) -> Result<v1::PollResponse, ServiceError> {
    let v1::PollRequest { topic, partition, position, min_bytes, max_wait_ms, max_bytes } = request;
    let config = &api.config.fetch;
    let place = api.directory.partition(&topic, partition).await?;
    let mut reader = Reader::new(Arc::clone(&api.fetcher), place);
    let now = Instant::now();
    let deadline = now + config.answer_timeout.get();
    let offset = resolve(&mut reader, position, deadline).await?;

    let limit = config.max_bytes.0 as usize;
    let max_bytes = if max_bytes == 0 { limit } else { limit.min(max_bytes as usize) };
    let wait = Duration::from_millis(max_wait_ms.into()).min(config.max_wait.get());
    let min_bytes = (min_bytes as usize).min(max_bytes);
    let fetched =
        reader.read_and_wait(offset, Appetite { min_bytes, max_bytes, wait_until: now + wait, deadline }).await?;
    open(offset, max_bytes, fetched)
}

/// The offset of a position. `earliest` and `latest` are told only by the partition's owner, verified.
pub(super) async fn resolve(
    reader: &mut Reader,
    position: Option<v1::Position>,
    deadline: Instant,
) -> Result<Offset, ServiceError> {
    match position.and_then(|position| position.at) {
        Some(At::Offset(offset)) if offset > i64::MAX as u64 => Err(invalid(format!("{offset} is not an offset"))),
        Some(At::Offset(offset)) => Ok(Offset(offset)),
        Some(At::Earliest(_)) => Ok(reader.verified_bounds(deadline).await?.log_start),
        Some(At::Latest(_)) => Ok(reader.verified_bounds(deadline).await?.high_watermark),
        Some(At::TimestampMs(timestamp_ms)) => {
            match reader.find(TimeSearch::AtOrAfter(timestamp_ms), deadline).await? {
                Some(found) => Ok(found.offset),
                None => Ok(reader.verified_bounds(deadline).await?.high_watermark),
            }
        }
        None => Err(invalid("a position is missing: `offset`, `earliest`, `latest` or `timestamp_ms`")),
    }
}

/// Opens batches into records from `offset` on: at least one record, until about `max_bytes` are opened.
fn open(offset: Offset, max_bytes: usize, fetched: Fetched) -> Result<v1::PollResponse, ServiceError> {
    let Fetched { batches, next_offset, bounds } = fetched;
    let mut answer = v1::PollResponse {
        records: Vec::new(),
        next_offset: next_offset.0,
        high_watermark: bounds.high_watermark.0,
        log_start: bounds.log_start.0,
    };
    let limits = RecordLimits { max_decompressed_bytes: OPENED_BYTES, ..Default::default() };
    let mut opened_bytes = 0;
    for batch in split_batches(&batches) {
        let (header, batch) = batch.map_err(damaged)?;
        verify_crc(&batch).map_err(damaged)?;
        if header.is_control() {
            continue;
        }
        for record in records(&batch, &limits).map_err(refused)? {
            let record = record.map_err(refused)?;
            if record.offset < offset {
                continue;
            }
            if opened_bytes >= max_bytes {
                answer.next_offset = record.offset.0;
                return Ok(answer);
            }
            opened_bytes += record.key.as_ref().map_or(0, |key| key.len());
            opened_bytes += record.value.as_ref().map_or(0, |value| value.len());
            opened_bytes += RECORD_OVERHEAD_BYTES;
            answer.records.push(polled_record(record));
        }
    }
    Ok(answer)
}

/// What a record adds to an answer beside key and value.
const RECORD_OVERHEAD_BYTES: usize = 32;

fn polled_record(record: Record) -> v1::PolledRecord {
    let header = |(key, value): (bytes::Bytes, Option<bytes::Bytes>)| v1::Header {
        key: String::from_utf8_lossy(&key).into_owned(),
        value,
    };
    v1::PolledRecord {
        offset: record.offset.0,
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(header).collect(),
    }
}

fn damaged(error: bmq_proto::record_batch::BatchError) -> ServiceError {
    ServiceError::not_applied(ErrorCode::Damaged, format!("what was read is damaged: {error}"))
}
