//! Consumer groups of Kafka clients: to the coordinator and back.

use bmq_kafka::ResponseError;
use bmq_kafka::messages::leave_group_request::MemberIdentity;
use bmq_kafka::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use bmq_kafka::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use bmq_kafka::messages::offset_fetch_request::OffsetFetchRequestGroup;
use bmq_kafka::messages::*;
use bmq_proto::{ErrorCode, ServiceError};

use crate::cluster::{Cluster, TOPIC, in_time};
use crate::fake_coordinator::{CLASSIC, CONSUMER};
use crate::kafka_client::{KafkaClient, text};

fn join(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(text(group))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
}

fn heartbeat(group: &str) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(text(group)).with_member_id(text("m-1")).with_generation_id(3)
}

async fn commit(client: &mut KafkaClient, topic: &str, partition: i32, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(4)
        .with_committed_metadata(Some(text("note")));
    let topic = OffsetCommitRequestTopic::default().with_name(text(topic)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default().with_group_id(text("g")).with_topics(vec![topic]);
    client.ask(9, request).await.topics[0].partitions[0].error_code
}

#[tokio::test]
async fn a_new_member_is_told_its_id_and_joins_with_it() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let first = client.ask(9, join("g", "")).await;
    assert_eq!((first.error_code, first.member_id.as_str()), (ResponseError::MemberIdRequired.code(), "m-1"));
    let joined = client.ask(9, join("g", "m-1")).await;
    assert_eq!((joined.error_code, joined.generation_id, joined.leader.as_str()), (0, 3, "m-1"));
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("static"));
    let call = cluster.coordinator.last_call();
    assert!(call.contains("rebalance_timeout_ms: 60000") && call.contains("/127.0.0.1"), "{call}");
    // The oldest version knows one time-out only, and no ids before joining.
    let joined = client.ask(0, join("g", "").with_rebalance_timeout_ms(-1)).await;
    assert_eq!(joined.error_code, 0);
    let call = cluster.coordinator.last_call();
    assert!(call.contains("rebalance_timeout_ms: 10000") && call.contains("require_known_member: false"), "{call}");
}

#[tokio::test]
async fn a_member_that_waits_keeps_nobody_else_waiting() {
    let cluster = Cluster::start().await;
    let (mut waiting, mut other) = (cluster.kafka().await, cluster.kafka().await);
    cluster.coordinator.complete.send_replace(false);
    waiting.send(9, &join("g", "m-1")).await;
    let beat = other.ask(4, heartbeat("g")).await;
    assert_eq!(beat.error_code, ResponseError::RebalanceInProgress.code());
    cluster.coordinator.complete.send_replace(true);
    assert_eq!(waiting.receive::<JoinGroupRequest>(9).await.error_code, 0);
}

#[tokio::test]
async fn coordinators_that_moved_are_looked_for() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    // What was certainly not done is done again, without a word to the client.
    cluster.coordinator.refuse(ServiceError::not_applied(ErrorCode::NotOwner, "not mine"));
    cluster.coordinator.refuse(ServiceError::not_applied(ErrorCode::Unavailable, "recovering"));
    assert_eq!(commit(&mut client, TOPIC, 0, 7).await, 0);
    assert_eq!(cluster.coordinator.calls.lock().len(), 3);
    // What may have been done is the client's to repeat.
    cluster.coordinator.refuse(ServiceError::unknown(ErrorCode::Unavailable, "lost"));
    assert_eq!(commit(&mut client, TOPIC, 0, 8).await, ResponseError::NotCoordinator.code());
    assert_eq!(cluster.coordinator.calls.lock().len(), 4);
}

#[tokio::test]
async fn a_shard_without_an_owner_is_waited_for() {
    let cluster = Cluster::start_with(|config| config.metadata_timeout = bmq_common::HumanDuration::millis(300)).await;
    let mut client = cluster.kafka().await;
    assert_eq!(commit(&mut client, TOPIC, 0, 7).await, 0);
    cluster.coordinator_owns_groups(false);
    let lost = client.ask(4, heartbeat("g")).await;
    assert_eq!(lost.error_code, ResponseError::NotCoordinator.code());
    client.send(4, &heartbeat("g")).await;
    cluster.coordinator_owns_groups(true);
    let beat = in_time(client.receive::<HeartbeatRequest>(4)).await;
    assert_eq!(beat.error_code, ResponseError::RebalanceInProgress.code());
}

#[tokio::test]
async fn offsets_come_back_as_they_were_committed() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    assert_eq!(commit(&mut client, TOPIC, 0, 42).await, 0);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(commit(&mut client, TOPIC, 1, 42).await, unknown);
    assert_eq!(commit(&mut client, TOPIC, -1, 42).await, unknown);
    assert_eq!(commit(&mut client, "none", 0, 42).await, unknown);
    assert_eq!(commit(&mut client, "no name", 0, 42).await, unknown);

    let all = OffsetFetchRequestGroup::default().with_group_id(text("g")).with_topics(None);
    let none = OffsetFetchRequestGroup::default().with_group_id(text("other")).with_topics(None);
    let fetched = client.ask(9, OffsetFetchRequest::default().with_groups(vec![all, none])).await;
    let partition = &fetched.groups[0].topics[0].partitions[0];
    let told = (partition.committed_offset, partition.committed_leader_epoch, partition.metadata.as_deref());
    assert_eq!(told, (42, 4, Some("note")));
    assert!(fetched.groups[1].topics.is_empty());

    cluster.coordinator.refuse(ServiceError::unknown(ErrorCode::Internal, "broken"));
    let group = OffsetFetchRequestGroup::default().with_group_id(text("g")).with_topics(None);
    let failed = client.ask(9, OffsetFetchRequest::default().with_groups(vec![group])).await;
    assert_ne!(failed.groups[0].error_code, 0);
}

#[tokio::test]
async fn offsets_are_forgotten_partition_by_partition() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let partitions = [0, 1, -1].map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
    let topic = OffsetDeleteRequestTopic::default().with_name(text(TOPIC)).with_partitions(partitions.into());
    let request = OffsetDeleteRequest::default().with_group_id(text("g")).with_topics(vec![topic]);
    let answer = client.ask(0, request).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|it| it.error_code).collect();
    let subscribed = ResponseError::GroupSubscribedToTopic.code();
    assert_eq!(codes, [0, subscribed, ResponseError::UnknownTopicOrPartition.code()]);
}

#[tokio::test]
async fn members_leave_one_by_one_or_together() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let unknown = ResponseError::UnknownMemberId.code();
    let old = LeaveGroupRequest::default().with_group_id(text("g")).with_member_id(text("m-1"));
    assert_eq!(client.ask(2, old).await.error_code, unknown, "its own error is the answer's");
    let member = |name: &str| MemberIdentity::default().with_member_id(text(name));
    let new = LeaveGroupRequest::default().with_group_id(text("g")).with_members(vec![member("a"), member("b")]);
    let left = client.ask(5, new).await;
    assert_eq!((left.error_code, left.members.len(), left.members[1].error_code), (0, 2, unknown));
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let mut list = async |types: &[&str], states: &[&str]| -> Vec<String> {
        let texts = |all: &[&str]| all.iter().copied().map(text).collect();
        let request = ListGroupsRequest::default().with_types_filter(texts(types)).with_states_filter(texts(states));
        client.ask(5, request).await.groups.into_iter().map(|it| it.group_id.to_string()).collect()
    };
    assert_eq!(list(&[], &[]).await, [CLASSIC, CONSUMER]);
    assert_eq!(list(&["Classic"], &["stable"]).await, [CLASSIC]);
    assert!(list(&[], &["Empty"]).await.is_empty());

    let groups = vec![text(CLASSIC), text("none")];
    let request = DescribeGroupsRequest::default().with_groups(groups.clone()).with_include_authorized_operations(true);
    let described = client.ask(6, request).await.groups;
    assert_eq!((described[0].error_code, described[0].members.len()), (0, 1));
    assert!(described[0].authorized_operations > 0);
    assert_eq!(described[1].error_code, ResponseError::GroupIdNotFound.code());
    let older = client.ask(5, DescribeGroupsRequest::default().with_groups(groups)).await.groups;
    assert_eq!((older[1].error_code, older[1].group_state.as_str()), (0, "Dead"));

    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![text(CONSUMER), text(CLASSIC)]);
    let described = client.ask(1, request).await.groups;
    let member = &described[0].members[0];
    assert_eq!((member.member_type, member.assignment.topic_partitions[0].topic_name.as_str()), (1, TOPIC));
    assert_eq!(described[1].error_code, ResponseError::GroupIdNotFound.code());

    let request = DeleteGroupsRequest::default().with_groups_names(vec![text("idle"), text(CLASSIC)]);
    let deleted = client.ask(2, request).await.results;
    assert_eq!((deleted[0].error_code, deleted[1].error_code), (0, ResponseError::NonEmptyGroup.code()));
}

#[tokio::test]
async fn every_group_has_a_proxy_and_transactions_have_none() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let mut find = async |kind: i8| {
        let keys = vec![text("one"), text("other")];
        let request = FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(keys);
        client.ask(6, request).await.coordinators
    };
    for found in find(0).await {
        assert_eq!((found.error_code, found.node_id, found.host.as_str()), (0, BrokerId(1), "127.0.0.1"));
    }
    let refused = ResponseError::TransactionalIdAuthorizationFailed.code();
    assert!(find(1).await.iter().all(|it| it.error_code == refused && it.error_message.is_some()));
    assert!(find(7).await.iter().all(|it| it.error_code == ResponseError::InvalidRequest.code()));
}
