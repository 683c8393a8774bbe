//! `OffsetFetch`: what groups have committed; of one group in old versions, of many in newer ones.

use std::collections::BTreeMap;

use bmq_kafka::error::group_code;
use bmq_kafka::messages::offset_fetch_request::OffsetFetchRequestGroup;
use bmq_kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use bmq_kafka::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::coordinator::{
    CommittedOffset, CoordinatorService, FetchOffsetsRequest, TopicPartitionName, TopicPartitionNames,
};
use futures::FutureExt;

use super::{GROUPS_AT_ONCE, RequestContext};
use crate::several::several;

/// From this version on an error may stand for the whole group.
const GROUP_ERROR_SINCE: i16 = 2;
/// From this version on a request may name many groups.
const BATCHED_SINCE: i16 = 8;
/// From this version on members of the new protocol say who they are.
const MEMBER_SINCE: i16 = 9;

/// Partitions by topic; `None` stands for all that the group has.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;
/// A partition, and what it has committed.
type Told<'a> = (i32, Option<&'a CommittedOffset>);
/// What is found of each partition.
type Found = BTreeMap<String, BTreeMap<i32, CommittedOffset>>;

pub async fn handle(context: &RequestContext<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version >= BATCHED_SINCE {
        let answer = |group| group_of(context, group).boxed();
        return OffsetFetchResponse::default().with_groups(several(request.groups, GROUPS_AT_ONCE, answer).await);
    }
    let wanted: Wanted =
        request.topics.map(|topics| topics.into_iter().map(|it| (it.name, it.partition_indexes)).collect());
    let asked = FetchOffsetsRequest { group: request.group_id.to_string(), ..FetchOffsetsRequest::default() };
    match fetch(context, asked, &wanted).await {
        Ok(found) => OffsetFetchResponse::default().with_topics(topics(&wanted, &found, 0)),
        Err(error) if context.version >= GROUP_ERROR_SINCE => OffsetFetchResponse::default().with_error_code(error),
        Err(error) => OffsetFetchResponse::default().with_topics(topics(&wanted, &Found::new(), error)),
    }
}

async fn group_of(context: &RequestContext<'_>, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let OffsetFetchRequestGroup { group_id, member_id, member_epoch, topics, .. } = group;
    let wanted: Wanted = topics.map(|topics| topics.into_iter().map(|it| (it.name, it.partition_indexes)).collect());
    let member = member_id.filter(|_| context.version >= MEMBER_SINCE).map(|member| member.to_string());
    let asked = FetchOffsetsRequest { group: group_id.to_string(), member, member_epoch, partitions: None };
    let answer = OffsetFetchResponseGroup::default().with_group_id(GroupId(group_id.0));
    match fetch(context, asked, &wanted).await {
        Ok(found) => answer.with_topics(topics_of_group(&wanted, &found)),
        Err(error) => answer.with_error_code(error),
    }
}

async fn fetch(context: &RequestContext<'_>, asked: FetchOffsetsRequest, wanted: &Wanted) -> Result<Found, i16> {
    let named = |wanted: &Vec<_>| TopicPartitionNames { partitions: names(context, wanted) };
    let partitions = wanted.as_ref().map(named);
    let answer = context.api.groups.fetch_offsets(FetchOffsetsRequest { partitions, ..asked }).await;
    let answer = answer.map_err(|error| group_code(&error).code())?;
    if answer.error != 0 {
        return Err(told_error(context.version, answer.error as i16));
    }
    let mut found = Found::new();
    for offset in answer.offsets {
        found.entry(offset.topic.clone()).or_default().insert(offset.partition as i32, offset);
    }
    Ok(found)
}

/// Old versions do not know the errors of members of the new protocol.
fn told_error(version: i16, error: i16) -> i16 {
    let is_stale = error == ResponseError::StaleMemberEpoch.code();
    if is_stale && version < MEMBER_SINCE { ResponseError::UnsupportedVersion.code() } else { error }
}

/// A partition that there cannot be has no offset either: it is answered without being asked about.
fn names(context: &RequestContext<'_>, wanted: &[(TopicName, Vec<i32>)]) -> Vec<TopicPartitionName> {
    let name = |topic: &TopicName, partition: i32| {
        let known = context.api.directory.known_topic(topic);
        let topic_id = known.map(|known| known.id.0.to_vec().into()).unwrap_or_default();
        Some(TopicPartitionName { topic: topic.to_string(), partition: u32::try_from(partition).ok()?, topic_id })
    };
    let of_topic = |(topic, partitions): &(TopicName, Vec<i32>)| -> Vec<_> {
        partitions.iter().filter_map(|partition| name(topic, *partition)).collect()
    };
    wanted.iter().flat_map(of_topic).collect()
}

/// What is told of each partition: those that were asked for, or all that there are.
fn told<'a>(wanted: &Wanted, found: &'a Found) -> Vec<(TopicName, Vec<Told<'a>>)> {
    let Some(wanted) = wanted else {
        let partitions = |of_topic: &'a BTreeMap<i32, CommittedOffset>| of_topic.iter().map(|(p, at)| (*p, Some(at)));
        let name = |topic: &str| TopicName(StrBytes::from_string(topic.to_owned()));
        return found.iter().map(|(topic, of_topic)| (name(topic), partitions(of_topic).collect())).collect();
    };
    let of_topic = |(topic, partitions): &(TopicName, Vec<i32>)| {
        let found = found.get(topic.as_str());
        let at = |partition: &i32| (*partition, found.and_then(|found| found.get(partition)));
        (topic.clone(), partitions.iter().map(at).collect())
    };
    wanted.iter().map(of_topic).collect()
}

/// Offset, leader epoch and metadata; of a partition without a commit those that say so.
fn parts(at: Option<&CommittedOffset>) -> (i64, i32, Option<StrBytes>) {
    match at {
        Some(at) => (at.offset, at.leader_epoch, Some(StrBytes::from_string(at.metadata.clone()))),
        None => (-1, -1, Some(StrBytes::default())),
    }
}

fn topics(wanted: &Wanted, found: &Found, error: i16) -> Vec<OffsetFetchResponseTopic> {
    let partition = |(index, at)| {
        let (offset, epoch, metadata) = parts(at);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
            .with_error_code(error)
    };
    let topic = |(name, partitions): (TopicName, Vec<_>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
    };
    told(wanted, found).into_iter().map(topic).collect()
}

fn topics_of_group(wanted: &Wanted, found: &Found) -> Vec<OffsetFetchResponseTopics> {
    let partition = |(index, at)| {
        let (offset, epoch, metadata) = parts(at);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(epoch)
            .with_metadata(metadata)
    };
    let topic = |(name, partitions): (TopicName, Vec<_>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
    };
    told(wanted, found).into_iter().map(topic).collect()
}
