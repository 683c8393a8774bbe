//! `OffsetForLeaderEpoch`: where an epoch ends, so that a client sees whether what it read is still there.

use bmq_kafka::ResponseError;
use bmq_kafka::error::read_code;
use bmq_kafka::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use bmq_kafka::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use bmq_kafka::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use bmq_proto::Epoch;
use futures::FutureExt;
use futures::future::join_all;
use tokio::time::Instant;

use super::epochs::{EpochEnd, epoch_end};
use super::{RequestContext, places};

/// Partitions looked at together.
const AT_ONCE: usize = 32;

/// Stands for an epoch and an offset that are not there.
const UNDEFINED: i32 = -1;

pub async fn handle(
    context: &RequestContext<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for OffsetForLeaderTopic { topic, partitions, .. } in request.topics {
        let mut answers = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(AT_ONCE) {
            let together = some.iter().map(|partition| answer(context, &topic, partition).boxed());
            answers.extend(join_all(together).await);
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic).with_partitions(answers));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn answer(context: &RequestContext<'_>, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let told = EpochEndOffset::default().with_partition(asked.partition);
    match look_up(context, topic, asked).await {
        Ok(Some(EpochEnd { epoch, end })) => told.with_leader_epoch(epoch.0 as i32).with_end_offset(end.0 as i64),
        Ok(None) => told.with_leader_epoch(UNDEFINED).with_end_offset(UNDEFINED.into()),
        Err(error) => told.with_error_code(error.code()).with_leader_epoch(UNDEFINED).with_end_offset(UNDEFINED.into()),
    }
}

async fn look_up(
    context: &RequestContext<'_>,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<EpochEnd>, ResponseError> {
    let topic = places::topic(context, topic).await?;
    let place = places::partition(&topic, asked.partition)?;
    places::check_leader_epoch(context, place, asked.current_leader_epoch).await?;
    // Less than clients wait for an answer.
    let deadline = Instant::now() + context.api.config.fetch.call_timeout.get();
    let verified = context.api.fetcher.bounds.read_with_head(place, deadline).await;
    let (bounds, head) = verified.map_err(|error| read_code(&error))?;
    let Ok(epoch) = u32::try_from(asked.leader_epoch) else {
        return Ok(None);
    };
    Ok(epoch_end(&head.epoch_chain, bounds.high_watermark, Epoch(epoch)))
}
