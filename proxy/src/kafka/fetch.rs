//! `Fetch`: batches of many partitions, as stored, with a long poll and fetch sessions.

use std::sync::Arc;
use std::time::Duration;

use bmq_kafka::error::read_code;
use bmq_kafka::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use bmq_kafka::messages::fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData};
use bmq_kafka::messages::{BrokerId, FetchRequest, FetchResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes, Uuid};
use bmq_proto::{Epoch, Offset, TopicPartition};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::debug;

use super::epochs::{EpochEnd, epoch_end};
use super::fetch_session::{FetchPlan, PartitionKey, SessionError, SessionRequest, Told, TopicKey, Wanted};
use super::gather::{Appetite, Part, gather};
use super::{RequestContext, places};
use crate::api::with_share;

/// The first version that names topics by their ids.
const BY_ID: i16 = 13;

/// The isolation level of readers that see only committed transactions.
const READ_COMMITTED: i8 = 1;

/// An answer is not made smaller than this when the budget for fetch answers is used up.
const LEAST_BYTES: usize = 64 << 10;

/// Stands for a bound that is not known.
const UNKNOWN: i64 = -1;

pub async fn handle(context: &RequestContext<'_>, request: FetchRequest) -> FetchResponse {
    let config = &context.api.config;
    let positions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if positions > config.fetch.max_positions as usize {
        debug!(positions, client = context.client.client_id, "a fetch of too many partitions");
        return FetchResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(config.fetch.max_wait.get());
    let limit = config.kafka.max_fetch_bytes.0 as usize;
    let wanted_bytes = limit.min(request.max_bytes.max(0) as usize);
    let terms = Terms {
        min_bytes: (request.min_bytes.max(0) as usize).min(wanted_bytes),
        max_bytes: wanted_bytes,
        wait_until: Instant::now() + wait,
        read_committed: request.isolation_level == READ_COMMITTED,
    };
    let sessions = &context.api.kafka.fetch_sessions;
    let asked = session_request(context.version, request);
    let planned = sessions.lock().plan(asked, context.api.clock.now());
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return FetchResponse::default().with_error_code(session_code(error).code()),
    };
    let answers = read(context, &plan, terms).await;
    select(context, plan, answers)
}

fn session_code(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::WrongEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::OtherNaming => ResponseError::FetchSessionTopicIdError,
    }
}

/// What the client asked for, for all partitions together.
#[derive(Clone, Copy)]
struct Terms {
    min_bytes: usize,
    max_bytes: usize,
    wait_until: Instant,
    read_committed: bool,
}

fn session_request(version: i16, request: FetchRequest) -> SessionRequest {
    let by_id = version >= BY_ID;
    // The session outlives the request, whose bytes the name would keep alive.
    let key = |topic: &TopicName, topic_id: Uuid| match by_id {
        true => TopicKey::Id(topic_id.into_bytes()),
        false => TopicKey::Name(Arc::from(topic.as_str())),
    };
    let mut wanted = Vec::new();
    for FetchTopic { topic, topic_id, partitions, .. } in request.topics {
        let topic = key(&topic, topic_id);
        wanted.extend(partitions.into_iter().map(|partition| {
            (PartitionKey { topic: topic.clone(), partition: partition.partition }, wanted_of(&partition))
        }));
    }
    let mut forgotten = Vec::new();
    for ForgottenTopic { topic, topic_id, partitions, .. } in request.forgotten_topics_data {
        let topic = key(&topic, topic_id);
        forgotten.extend(partitions.into_iter().map(|partition| PartitionKey { topic: topic.clone(), partition }));
    }
    let FetchRequest { session_id, session_epoch, .. } = request;
    SessionRequest { session_id, session_epoch, by_id, wanted, forgotten }
}

fn wanted_of(partition: &FetchPartition) -> Wanted {
    Wanted {
        fetch_offset: partition.fetch_offset,
        max_bytes: partition.partition_max_bytes,
        current_leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
    }
}

/// A partition on its way into the answer.
enum Reading {
    Part(TopicPartition, Part),
    Answered(PartitionData),
}

/// Reads what the plan says; the answers go with its partitions.
async fn read(context: &RequestContext<'_>, plan: &FetchPlan, terms: Terms) -> Vec<PartitionData> {
    let mut readings = Vec::with_capacity(plan.partitions.len());
    let mut readers = context.client.readers.lock().await;
    for (key, wanted) in &plan.partitions {
        readings.push(match check(context, key, wanted).await {
            Ok(Checked::Readable(place, offset)) => {
                let reader = readers.take(&context.api.fetcher, place);
                Reading::Part(place, Part::new(reader, offset, wanted.max_bytes.max(0) as usize))
            }
            Ok(Checked::Diverging(end)) => Reading::Answered(diverging(key.partition, end)),
            Err(error) => Reading::Answered(failed(key.partition, error)),
        });
    }
    let has_answer = readings.iter().any(|reading| matches!(reading, Reading::Answered(_)));
    let (max_bytes, mut share) = take_share(context, terms.max_bytes);
    let appetite = Appetite {
        // What is wrong is told at once.
        min_bytes: if has_answer { 0 } else { terms.min_bytes.min(max_bytes) },
        max_bytes,
        wait_until: terms.wait_until,
    };
    gather_readings(&mut readings, appetite, context).await;

    let now = Instant::now();
    let answers = plan.partitions.iter().zip(readings).map(|((key, _), reading)| match reading {
        Reading::Answered(answer) => answer,
        Reading::Part(place, mut part) => {
            let answer = part_answer(key.partition, &mut part, &mut share, terms.read_committed);
            readers.put_back(place, part.reader, now);
            answer
        }
    });
    let answers = answers.collect();
    readers.sweep(now);
    answers
}

async fn gather_readings(readings: &mut [Reading], appetite: Appetite, context: &RequestContext<'_>) {
    let parts = readings.iter_mut().filter_map(|reading| match reading {
        Reading::Part(_, part) => Some(part),
        Reading::Answered(_) => None,
    });
    let mut parts: Vec<&mut Part> = parts.collect();
    tokio::select! {
        () = gather(&mut parts, appetite, &context.client.gone) => {}
        () = context.api.shutdown().begun() => {}
    }
}

/// Takes part of what all fetch answers may hold. If that is used up the answer gets smaller, but it is never empty for
/// that reason: who does not read its answers does not keep others waiting.
fn take_share(context: &RequestContext<'_>, wanted: usize) -> (usize, Option<OwnedSemaphorePermit>) {
    let mut bytes = wanted;
    loop {
        let permits = u32::try_from(bytes).expect("the limit of a fetch answer is below 4 GiB");
        if let Ok(share) = Arc::clone(&context.api.kafka.fetch_budget).try_acquire_many_owned(permits) {
            return (bytes, Some(share));
        }
        if bytes <= LEAST_BYTES {
            return (bytes, None);
        }
        bytes = (bytes / 2).max(LEAST_BYTES);
    }
}

enum Checked {
    Readable(TopicPartition, Offset),
    /// The client read something else under the epoch that it names.
    Diverging(EpochEnd),
}

async fn check(context: &RequestContext<'_>, key: &PartitionKey, wanted: &Wanted) -> Result<Checked, ResponseError> {
    let topic = places::known_topic(context, &key.topic)?;
    let place = places::partition(&topic, key.partition)?;
    places::check_leader_epoch(context, place, wanted.current_leader_epoch).await?;
    let offset = u64::try_from(wanted.fetch_offset).map_err(|_| ResponseError::OffsetOutOfRange)?;
    let Ok(last_fetched) = u32::try_from(wanted.last_fetched_epoch) else {
        return Ok(Checked::Readable(place, Offset(offset)));
    };
    let deadline = Instant::now() + context.api.config.fetch.call_timeout.get();
    let verified = context.api.fetcher.bounds.read_with_head(place, deadline).await;
    let (bounds, head) = verified.map_err(|error| read_code(&error))?;
    match epoch_end(&head.epoch_chain, bounds.high_watermark, Epoch(last_fetched)) {
        Some(end) if end.epoch.0 < last_fetched || end.end < Offset(offset) => Ok(Checked::Diverging(end)),
        Some(_) => Ok(Checked::Readable(place, Offset(offset))),
        None => Err(ResponseError::OffsetOutOfRange),
    }
}

fn blank(partition: i32) -> PartitionData {
    PartitionData::default()
        .with_partition_index(partition)
        .with_high_watermark(UNKNOWN)
        .with_last_stable_offset(UNKNOWN)
        .with_log_start_offset(UNKNOWN)
        .with_preferred_read_replica(BrokerId(-1))
        .with_records(Some(Default::default()))
}

fn failed(partition: i32, error: ResponseError) -> PartitionData {
    blank(partition).with_error_code(error.code())
}

fn diverging(partition: i32, end: EpochEnd) -> PartitionData {
    let end = EpochEndOffset::default().with_epoch(end.epoch.0 as i32).with_end_offset(end.end.0 as i64);
    blank(partition).with_diverging_epoch(end)
}

/// What a partition is answered with. The batches hold their part of the answer's share until they are written.
fn part_answer(
    partition: i32,
    part: &mut Part,
    share: &mut Option<OwnedSemaphorePermit>,
    read_committed: bool,
) -> PartitionData {
    // A high watermark that is too low makes clients believe that they have read everything; unknown does not.
    let (high_watermark, log_start) = match part.reader.told_bounds() {
        // What was read is below the high watermark, also if the bounds were learnt before.
        Some(bounds) => (bounds.high_watermark.max(part.next_offset_read()).0 as i64, bounds.log_start.0 as i64),
        None => (UNKNOWN, UNKNOWN),
    };
    let answer = blank(partition)
        .with_high_watermark(high_watermark)
        .with_last_stable_offset(high_watermark)
        .with_log_start_offset(log_start)
        .with_aborted_transactions(read_committed.then(Vec::new));
    match &part.error {
        Some(error) => {
            debug!(partition, %error, "a partition could not be read");
            answer.with_error_code(read_code(error).code())
        }
        None => {
            let batches = part.take_batches();
            let split = |share: &mut OwnedSemaphorePermit| share.split(batches.len().min(share.num_permits()));
            let held = share.as_mut().and_then(split).filter(|_| !batches.is_empty());
            answer.with_records(Some(match held {
                Some(share) => with_share(batches, share),
                None => batches,
            }))
        }
    }
}

/// Leaves away what the client's session knows already, and puts partitions of one topic together.
fn select(context: &RequestContext<'_>, plan: FetchPlan, answers: Vec<PartitionData>) -> FetchResponse {
    let told: Vec<Told> = answers.iter().map(told).collect();
    let topics: Vec<TopicKey> = plan.partitions.iter().map(|(key, _)| key.topic.clone()).collect();
    let fresh = context.api.random.below(i32::MAX as u64 - 1) as i32 + 1;
    let now = context.api.clock.now();
    let selection = context.api.kafka.fetch_sessions.lock().select(plan, &told, fresh, now);
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut current = None;
    for ((answer, topic), is_told) in answers.into_iter().zip(topics).zip(selection.is_told) {
        if !is_told {
            continue;
        }
        if current.as_ref() != Some(&topic) {
            responses.push(topic_message(&topic));
            current = Some(topic);
        }
        let last = responses.last_mut().expect("one was just pushed");
        last.partitions.push(answer);
    }
    // The field came with version 7, as sessions did.
    let session_id = if context.version >= 7 { selection.session_id } else { 0 };
    FetchResponse::default().with_session_id(session_id).with_responses(responses)
}

fn told(answer: &PartitionData) -> Told {
    Told {
        high_watermark: answer.high_watermark,
        log_start: answer.log_start_offset,
        has_records: answer.records.as_ref().is_some_and(|records| !records.is_empty()),
        is_odd: answer.error_code != 0 || answer.diverging_epoch != EpochEndOffset::default(),
    }
}

fn topic_message(topic: &TopicKey) -> FetchableTopicResponse {
    match topic {
        TopicKey::Name(name) => {
            FetchableTopicResponse::default().with_topic(TopicName(StrBytes::from_string(name.to_string())))
        }
        TopicKey::Id(id) => FetchableTopicResponse::default().with_topic_id(Uuid::from_bytes(*id)),
    }
}
