//! The part of the `Admin` service that is about consumer groups.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_kafka::ResponseError;
use bmq_proto::broker::{PartitionBounds, TimeSearch};
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommittedOffset, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    CoordinatorService, DeleteGroupRequest, DescribeGroupRequest, DescribeGroupResponse, FetchOffsetsRequest,
    GroupClient, TopicPartitionList,
};
use bmq_proto::v1::set_group_offsets_request::To;
use bmq_proto::{ErrorCode, PartitionId, ServiceError, TopicPartition, v1};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::invalid;
use crate::api::Api;
use crate::consumer_assignment::read_assignment;

/// Partitions that are looked at together.
const PARTITIONS_AT_ONCE: usize = 32;

/// How long an owner is waited for when a group is described; without its answer the rest is told.
const OWNER_DEADLINE: Duration = Duration::from_secs(2);

/// Topic and number.
type Named = (String, u32);

pub async fn list(api: &Api) -> Result<v1::ListGroupsResponse, ServiceError> {
    let listed = api.groups.all().await?.into_iter().map(|it| v1::GroupListing {
        group: it.group,
        r#type: it.r#type,
        state: it.state,
        protocol_type: it.protocol_type,
    });
    Ok(v1::ListGroupsResponse { groups: listed.collect() })
}

pub async fn describe(api: &Api, group: &str) -> Result<v1::DescribeGroupResponse, ServiceError> {
    let described = Described::of(api, group).await?;
    let committed = committed(api, group).await?;
    let mut names: Vec<Named> = committed.keys().chain(described.assigned.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    let partitions = stream::iter(names).map(async |name: Named| {
        let bounds = bounds(api, &name).await;
        let at = committed.get(&name);
        let offset = at.and_then(|at| u64::try_from(at.offset).ok());
        v1::GroupPartition {
            committed: offset,
            metadata: at.map(|at| at.metadata.clone()).unwrap_or_default(),
            log_start: bounds.map(|bounds| bounds.log_start.0),
            high_watermark: bounds.map(|bounds| bounds.high_watermark.0),
            lag: offset.zip(bounds).map(|(offset, bounds)| bounds.high_watermark.0.saturating_sub(offset)),
            member: described.assigned.get(&name).cloned(),
            topic: name.0,
            partition: name.1,
        }
    });
    let partitions = partitions.buffered(PARTITIONS_AT_ONCE).collect().await;
    let Described { listing, assignor, members, .. } = described;
    Ok(v1::DescribeGroupResponse { group: Some(listing), assignor, members, partitions })
}

pub async fn delete(api: &Api, group: &str) -> Result<v1::DeleteGroupResponse, ServiceError> {
    let answer = api.groups.delete_group(DeleteGroupRequest { group: group.to_owned() }).await?;
    check(answer.error, group)?;
    Ok(v1::DeleteGroupResponse {})
}

pub async fn set_offsets(
    api: &Api,
    request: v1::SetGroupOffsetsRequest,
) -> Result<v1::SetGroupOffsetsResponse, ServiceError> {
    let v1::SetGroupOffsetsRequest { group, topics, to, dry_run, force } = request;
    let to = to.ok_or_else(|| invalid("say where to: an offset, a time, the earliest or the latest"))?;
    if !force {
        refuse_with_members(api, &group).await?;
    }
    let before = committed(api, &group).await?;
    let selected = match topics.is_empty() {
        true => before.keys().cloned().collect(),
        false => select(api, topics).await?,
    };
    if selected.is_empty() {
        return Err(ServiceError::not_applied(
            ErrorCode::UnknownGroup,
            format!("group `{group}` has no offsets to set"),
        ));
    }
    let targets = stream::iter(selected).map(async |name: Named| {
        let (partition, after) = target(api, &name, &to).await?;
        Ok::<_, ServiceError>((name, partition, after))
    });
    let targets: Vec<(Named, TopicPartition, u64)> = targets.buffered(PARTITIONS_AT_ONCE).try_collect().await?;
    if !dry_run {
        commit(api, &group, &targets, force).await?;
    }
    let changes = targets.into_iter().map(|(name, _, after)| v1::GroupOffsetChange {
        before: before.get(&name).and_then(|at| u64::try_from(at.offset).ok()),
        topic: name.0,
        partition: name.1,
        after,
    });
    Ok(v1::SetGroupOffsetsResponse { changes: changes.collect() })
}

/// A group of either protocol.
struct Described {
    listing: v1::GroupListing,
    assignor: String,
    members: Vec<v1::GroupMember>,
    /// The member that has each partition.
    assigned: BTreeMap<Named, String>,
}

impl Described {
    async fn of(api: &Api, group: &str) -> Result<Self, ServiceError> {
        let name = group.to_owned();
        let described =
            api.groups.consumer_group_describe(ConsumerGroupDescribeRequest { group: name.clone() }).await?;
        if described.error != i32::from(ResponseError::GroupIdNotFound.code()) {
            check(described.error, group)?;
            return Ok(Self::of_consumers(name, described));
        }
        let described = api.groups.describe_group(DescribeGroupRequest { group: name.clone() }).await?;
        check(described.error, group)?;
        Ok(Self::of_classic(name, described))
    }

    fn of_consumers(group: String, described: ConsumerGroupDescribeResponse) -> Self {
        let (kind, protocol_type) = ("consumer".to_owned(), "consumer".to_owned());
        let listing = v1::GroupListing { group, r#type: kind, state: described.state, protocol_type };
        let mut assigned = BTreeMap::new();
        let mut members = Vec::with_capacity(described.members.len());
        for it in described.members {
            let TopicPartitionList { topics } = it.assignment.unwrap_or_default();
            for topic in topics {
                let named = topic.partitions.into_iter().map(|partition| (topic.topic.clone(), partition));
                assigned.extend(named.map(|name| (name, it.member.clone())));
            }
            members.push(member(it.member, it.instance, it.client));
        }
        Self { listing, assignor: described.assignor, members, assigned }
    }

    fn of_classic(group: String, described: DescribeGroupResponse) -> Self {
        let DescribeGroupResponse { state, protocol_type, protocol, members: joined, .. } = described;
        let mut assigned = BTreeMap::new();
        let mut members = Vec::with_capacity(joined.len());
        for it in joined {
            let topics = if protocol_type == "consumer" { read_assignment(it.assignment) } else { None };
            for (topic, partitions) in topics.unwrap_or_default() {
                let named = partitions.into_iter().map(|partition| (topic.clone(), partition));
                assigned.extend(named.map(|name| (name, it.member.clone())));
            }
            members.push(member(it.member, it.instance, it.client));
        }
        let listing = v1::GroupListing { group, r#type: "classic".to_owned(), state, protocol_type };
        Self { listing, assignor: protocol, members, assigned }
    }
}

fn member(member: String, instance: Option<String>, client: Option<GroupClient>) -> v1::GroupMember {
    let GroupClient { id, host } = client.unwrap_or_default();
    v1::GroupMember { member, instance, client_id: id, host }
}

/// A group that there is not has no members either.
async fn refuse_with_members(api: &Api, group: &str) -> Result<(), ServiceError> {
    match Described::of(api, group).await {
        Ok(described) if described.members.is_empty() => Ok(()),
        Ok(described) => {
            let count = described.members.len();
            let members = if count == 1 { "member" } else { "members" };
            let text = format!("group `{group}` has {count} {members}: stop them first, or force it");
            Err(ServiceError::not_applied(ErrorCode::GroupInUse, text))
        }
        Err(error) if error.code == ErrorCode::UnknownGroup => Ok(()),
        Err(error) => Err(error),
    }
}

async fn committed(api: &Api, group: &str) -> Result<BTreeMap<Named, CommittedOffset>, ServiceError> {
    let asked = FetchOffsetsRequest { group: group.to_owned(), ..FetchOffsetsRequest::default() };
    let answer = api.groups.fetch_offsets(asked).await?;
    if answer.error == i32::from(ResponseError::GroupIdNotFound.code()) {
        return Ok(BTreeMap::new());
    }
    check(answer.error, group)?;
    Ok(answer.offsets.into_iter().map(|at| ((at.topic.clone(), at.partition), at)).collect())
}

/// Where a partition stands, as its owner tells; `None` if it cannot be asked.
async fn bounds(api: &Api, (topic, number): &Named) -> Option<PartitionBounds> {
    let partition = api.directory.partition(topic, *number).await.ok()?;
    let owner = api.directory.route(partition).borrow().owner.clone()?;
    tokio::time::timeout(OWNER_DEADLINE, owner.service.bounds(partition)).await.ok()?.ok()
}

async fn select(api: &Api, topics: Vec<v1::TopicSelection>) -> Result<Vec<Named>, ServiceError> {
    let mut selected = Vec::new();
    for v1::TopicSelection { topic, partitions } in topics {
        let known = api.directory.topic(&topic).await?;
        let partitions = if partitions.is_empty() { (0..known.partitions).collect() } else { partitions };
        selected.extend(partitions.into_iter().map(|partition| (topic.clone(), partition)));
    }
    selected.sort_unstable();
    selected.dedup();
    Ok(selected)
}

/// The offset that a partition is to go on from.
async fn target(api: &Api, (topic, number): &Named, to: &To) -> Result<(TopicPartition, u64), ServiceError> {
    let partition = api.directory.partition(topic, *number).await?;
    let deadline = Instant::now() + api.config.fetch.answer_timeout.get();
    let bounds = api.fetcher.bounds.read(partition, deadline).await?;
    let (start, end) = (bounds.log_start.0, bounds.high_watermark.0);
    let offset = match *to {
        To::Earliest(_) => start,
        To::Latest(_) => end,
        To::Offset(offset) if (start..=end).contains(&offset) => offset,
        To::Offset(offset) => {
            let PartitionId(number) = partition.partition;
            let text = format!("partition {number} of topic `{topic}` has the offsets {start} to {end}, not {offset}");
            return Err(ServiceError::not_applied(ErrorCode::OutOfRange, text));
        }
        To::TimestampMs(time) => {
            let found = api.fetcher.offset_for_time(partition, TimeSearch::AtOrAfter(time), deadline).await?;
            found.map_or(end, |found| found.offset.0)
        }
    };
    Ok((partition, offset))
}

async fn commit(
    api: &Api,
    group: &str,
    targets: &[(Named, TopicPartition, u64)],
    forced: bool,
) -> Result<(), ServiceError> {
    let offset = |(name, partition, after): &(Named, TopicPartition, u64)| CommittedOffset {
        topic: name.0.clone(),
        partition: name.1,
        offset: *after as i64,
        leader_epoch: -1,
        metadata: String::new(),
        topic_id: partition.topic.0.to_vec().into(),
    };
    let asked = CommitOffsetsRequest {
        group: group.to_owned(),
        generation_or_member_epoch: -1,
        offsets: targets.iter().map(offset).collect(),
        forced,
        ..CommitOffsetsRequest::default()
    };
    let answer = api.groups.commit_offsets(asked).await?;
    check(answer.error, group)?;
    let Some(failed) = answer.partitions.first() else {
        return Ok(());
    };
    let mut error = failure(failed.error, group);
    error.message = format!("partition {} of topic `{}`: {}", failed.partition, failed.topic, error.message);
    // The others may have been set.
    Err(ServiceError::unknown(error.code, error.message))
}

fn check(error: i32, group: &str) -> Result<(), ServiceError> {
    if error == 0 { Ok(()) } else { Err(failure(error, group)) }
}

/// What Kafka's number in an answer means to a user.
fn failure(error: i32, group: &str) -> ServiceError {
    let known = i16::try_from(error).ok().and_then(ResponseError::try_from_code);
    let (code, text) = match known {
        Some(ResponseError::GroupIdNotFound) => (ErrorCode::UnknownGroup, format!("there is no group `{group}`")),
        Some(
            ResponseError::NonEmptyGroup
            | ResponseError::UnknownMemberId
            | ResponseError::IllegalGeneration
            | ResponseError::RebalanceInProgress
            | ResponseError::StaleMemberEpoch,
        ) => (ErrorCode::GroupInUse, format!("group `{group}` has members: stop them first")),
        Some(ResponseError::InvalidGroupId) => (ErrorCode::InvalidArgument, format!("`{group}` is no name of a group")),
        Some(ResponseError::UnknownTopicOrPartition) => (ErrorCode::UnknownPartition, "there is no such".to_owned()),
        Some(error) if error.is_retriable() => {
            (ErrorCode::Unavailable, format!("the coordinator of group `{group}` is not ready: {error}"))
        }
        Some(error) => (ErrorCode::Internal, format!("the coordinator of group `{group}` refused: {error}")),
        None => (ErrorCode::Internal, format!("the coordinator of group `{group}` answered {error}")),
    };
    ServiceError::not_applied(code, text)
}
