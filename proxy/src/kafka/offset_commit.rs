//! `OffsetCommit`: where a group goes on, partition by partition.

use std::collections::HashMap;

use bmq_kafka::error::group_code;
use bmq_kafka::messages::offset_commit_request::OffsetCommitRequestTopic;
use bmq_kafka::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use bmq_kafka::messages::{OffsetCommitRequest, OffsetCommitResponse};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::ErrorCode;
use bmq_proto::coordinator::{CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, CoordinatorService};

use super::RequestContext;

/// From this version on members of the new protocol may commit; older ones do not know the errors that are theirs.
const MEMBER_EPOCH_SINCE: i16 = 9;

/// Which error each partition has.
type Errors = HashMap<(String, i32), i16>;

pub async fn handle(context: &RequestContext<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let (offsets, mut refused) = take_offsets(context, &request.topics).await;
    if offsets.is_empty() {
        return answer(&request.topics, |topic, partition| refused.remove(&key(topic, partition)).unwrap_or(0));
    }
    let asked = CommitOffsetsRequest {
        group: request.group_id.to_string(),
        generation_or_member_epoch: request.generation_id_or_member_epoch,
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(|instance| instance.to_string()),
        offsets,
        forced: false,
        // -1 stands for as long as the coordinator's settings say.
        retention_ms: u64::try_from(request.retention_time_ms).ok(),
    };
    let of_all = match context.api.groups.commit_offsets(asked).await {
        Ok(CommitOffsetsResponse { error, partitions }) => {
            refused.extend(partitions.into_iter().map(|it| ((it.topic, it.partition as i32), it.error as i16)));
            told_error(context.version, error as i16)
        }
        Err(error) => group_code(&error).code(),
    };
    answer(&request.topics, |topic, partition| refused.remove(&key(topic, partition)).unwrap_or(of_all))
}

/// The offsets of partitions that there are, and an error for each of the others.
async fn take_offsets(
    context: &RequestContext<'_>,
    topics: &[OffsetCommitRequestTopic],
) -> (Vec<CommittedOffset>, Errors) {
    let (mut offsets, mut refused) = (Vec::new(), Errors::new());
    for topic in topics {
        let known = context.api.directory.topic(&topic.name).await;
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let topic_id = match &known {
                Ok(known) if (0..i64::from(known.partitions)).contains(&i64::from(index)) => known.id,
                Ok(_) => {
                    refused.insert(key(&topic.name, index), ResponseError::UnknownTopicOrPartition.code());
                    continue;
                }
                Err(error) => {
                    refused.insert(key(&topic.name, index), topic_error(error));
                    continue;
                }
            };
            offsets.push(CommittedOffset {
                topic: topic.name.to_string(),
                partition: index as u32,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_ref().map(StrBytes::to_string).unwrap_or_default(),
                topic_id: topic_id.0.to_vec().into(),
            });
        }
    }
    (offsets, refused)
}

/// A name that no topic can have is that of no topic.
fn topic_error(error: &bmq_proto::ServiceError) -> i16 {
    match error.code {
        ErrorCode::InvalidArgument => ResponseError::UnknownTopicOrPartition.code(),
        _ => group_code(error).code(),
    }
}

fn told_error(version: i16, error: i16) -> i16 {
    let is_stale = error == ResponseError::StaleMemberEpoch.code();
    if is_stale && version < MEMBER_EPOCH_SINCE { ResponseError::UnsupportedVersion.code() } else { error }
}

fn key(topic: &str, partition: i32) -> (String, i32) {
    (topic.to_owned(), partition)
}

fn answer(topics: &[OffsetCommitRequestTopic], mut error: impl FnMut(&str, i32) -> i16) -> OffsetCommitResponse {
    let mut topic_of = |topic: &OffsetCommitRequestTopic| {
        let partition = |index: i32| {
            let error = error(&topic.name, index);
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error)
        };
        let partitions = topic.partitions.iter().map(|it| it.partition_index).map(partition).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    };
    OffsetCommitResponse::default().with_topics(topics.iter().map(&mut topic_of).collect())
}
