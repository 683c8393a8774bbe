//! `ListOffsets`: the first and the last offset, and the offset of a time.

use std::sync::Arc;

use bmq_kafka::ResponseError;
use bmq_kafka::error::read_code;
use bmq_kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use bmq_kafka::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use bmq_kafka::messages::{ListOffsetsRequest, ListOffsetsResponse};
use bmq_proto::broker::TimeSearch;
use bmq_proto::{Epoch, Offset, TopicPartition};
use futures::FutureExt;
use futures::future::join_all;
use tokio::time::Instant;

use super::{RequestContext, places};

/// Partitions looked at together.
const AT_ONCE: usize = 32;

/// What a client may ask for instead of a time.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Stands for what is not there.
const NONE: i64 = -1;

pub async fn handle(context: &RequestContext<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    // Less than clients wait for an answer.
    let deadline = Instant::now() + context.api.config.fetch.call_timeout.get();
    let mut topics = Vec::with_capacity(request.topics.len());
    for ListOffsetsTopic { name, partitions, .. } in request.topics {
        let mut answers = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(AT_ONCE) {
            let together = some.iter().map(|partition| answer(context, &name, partition, deadline).boxed());
            answers.extend(join_all(together).await);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(name).with_partitions(answers));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn answer(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
    deadline: Instant,
) -> ListOffsetsPartitionResponse {
    let (error_code, found) = match look_up(context, topic, asked, deadline).await {
        Ok(found) => (0, found),
        Err(error) => (error.code(), Found::NOTHING),
    };
    // The field came with version 4.
    let leader_epoch = if context.version >= 4 { found.epoch.map_or(-1, |epoch| epoch.0 as i32) } else { -1 };
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(error_code)
        .with_timestamp(found.timestamp_ms)
        .with_offset(found.offset)
        .with_leader_epoch(leader_epoch)
}

/// What one partition is answered with.
struct Found {
    offset: i64,
    timestamp_ms: i64,
    epoch: Option<Epoch>,
}

impl Found {
    const NOTHING: Found = Found { offset: NONE, timestamp_ms: NONE, epoch: None };

    fn at(offset: Offset, epoch: Option<Epoch>) -> Self {
        Self { offset: offset.0 as i64, timestamp_ms: NONE, epoch }
    }
}

async fn look_up(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &ListOffsetsPartition,
    deadline: Instant,
) -> Result<Found, ResponseError> {
    let topic = places::topic(context, topic).await?;
    let place = places::partition(&topic, asked.partition_index)?;
    places::check_leader_epoch(context, place, asked.current_leader_epoch).await?;
    match asked.timestamp {
        LATEST => {
            let bounds = context.api.fetcher.bounds.read(place, deadline).await.map_err(|error| read_code(&error))?;
            Ok(Found::at(bounds.high_watermark, Some(bounds.epoch)))
        }
        // All that there is is local: nothing is moved to a second tier.
        EARLIEST | EARLIEST_LOCAL => earliest(context, place, deadline).await,
        LATEST_TIERED => Ok(Found::NOTHING),
        MAX_TIMESTAMP => by_time(context, place, TimeSearch::Highest, deadline).await,
        timestamp if timestamp >= 0 => by_time(context, place, TimeSearch::AtOrAfter(timestamp), deadline).await,
        _ => Err(ResponseError::UnsupportedVersion),
    }
}

async fn earliest(
    context: &RequestContext<'_>,
    place: TopicPartition,
    deadline: Instant,
) -> Result<Found, ResponseError> {
    let verified = context.api.fetcher.bounds.read_with_head(place, deadline).await;
    let (bounds, head) = verified.map_err(|error| read_code(&error))?;
    let written_under = head.epoch_chain.iter().rev().find(|entry| entry.start <= bounds.log_start);
    Ok(Found::at(bounds.log_start, written_under.map(|entry| entry.epoch)))
}

async fn by_time(
    context: &RequestContext<'_>,
    place: TopicPartition,
    search: TimeSearch,
    deadline: Instant,
) -> Result<Found, ResponseError> {
    let fetcher: &Arc<_> = &context.api.fetcher;
    let found = fetcher.offset_for_time(place, search, deadline).await.map_err(|error| read_code(&error))?;
    Ok(found.map_or(Found::NOTHING, |found| Found {
        offset: found.offset.0 as i64,
        timestamp_ms: found.timestamp_ms,
        epoch: found.epoch,
    }))
}
