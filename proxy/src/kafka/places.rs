//! Which partition a client means, and whether it knows who leads it.

use std::sync::Arc;

use bmq_kafka::ResponseError;
use bmq_kafka::error::read_code;
use bmq_proto::meta::TopicRecord;
use bmq_proto::{Epoch, ErrorCode, PartitionId, TopicId, TopicPartition};

use super::RequestContext;
use super::fetch_session::TopicKey;

/// The topic that a client names, as far as this proxy knows without asking.
pub fn known_topic(context: &RequestContext<'_>, topic: &TopicKey) -> Result<Arc<TopicRecord>, ResponseError> {
    let directory = &context.api.directory;
    match topic {
        TopicKey::Name(name) => directory.known_topic(name).ok_or(ResponseError::UnknownTopicOrPartition),
        TopicKey::Id(id) => directory.topic_by_id(TopicId(*id)).ok_or(ResponseError::UnknownTopicId),
    }
}

/// The topic that a client names; one that this proxy does not know is looked up.
pub async fn topic(context: &RequestContext<'_>, name: &str) -> Result<Arc<TopicRecord>, ResponseError> {
    let found = context.api.directory.topic(name).await;
    found.map_err(|error| match error.code {
        // A name that no topic can have.
        ErrorCode::InvalidArgument => ResponseError::InvalidTopicException,
        _ => read_code(&error),
    })
}

/// One partition of a topic whose records clients may read.
pub fn partition(topic: &TopicRecord, number: i32) -> Result<TopicPartition, ResponseError> {
    if topic.is_internal() {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    match u32::try_from(number) {
        Ok(number) if number < topic.partitions => {
            Ok(TopicPartition { topic: topic.id, partition: PartitionId(number) })
        }
        _ => Err(ResponseError::UnknownTopicOrPartition),
    }
}

/// Compares the epoch under which a client believes the partition to be led with the one known here. A negative one
/// means that the client does not care.
pub async fn check_leader_epoch(
    context: &RequestContext<'_>,
    partition: TopicPartition,
    claimed: i32,
) -> Result<(), ResponseError> {
    let Ok(claimed) = u32::try_from(claimed).map(Epoch) else {
        return Ok(());
    };
    let directory = &context.api.directory;
    if claimed > directory.epoch(partition) {
        // The client may have heard of it at another proxy.
        context.api.fetcher.bounds.refresh(partition).await.map_err(|error| read_code(&error))?;
    }
    match claimed.cmp(&directory.epoch(partition)) {
        std::cmp::Ordering::Less => Err(ResponseError::FencedLeaderEpoch),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(ResponseError::UnknownLeaderEpoch),
    }
}
