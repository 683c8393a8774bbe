//! Every admin and group request is answered at every version, in a form that clients can read.

use bmq_kafka::messages::*;
use bmq_kafka::supported::SUPPORTED;
use kafka_protocol::protocol::Request;

use crate::cluster::{Cluster, TOPIC};
use crate::fake_coordinator::{CLASSIC, CONSUMER};
use crate::kafka_client::{KafkaClient, text};

/// Asks at each version that is advertised; the client panics at an answer that cannot be read.
async fn at_each_version<R: Request>(client: &mut KafkaClient, make: impl Fn(i16) -> R) -> Vec<R::Response> {
    let api = SUPPORTED.iter().find(|api| api.key as i16 == R::KEY).expect("it is advertised");
    let mut answers = Vec::new();
    for version in api.min_version..=api.max_version {
        answers.push(client.ask(version, make(version)).await);
    }
    answers
}

#[tokio::test]
async fn group_requests_are_answered_at_each_version() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let found = at_each_version(&mut client, |version| match version {
        0..4 => FindCoordinatorRequest::default().with_key(text("g")),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
    });
    for found in found.await {
        assert_eq!((found.error_code, found.coordinators.iter().all(|it| it.error_code == 0)), (0, true));
    }
    for member in ["", "m-1"] {
        at_each_version(&mut client, |_| {
            JoinGroupRequest::default()
                .with_group_id(text("g"))
                .with_session_timeout_ms(10_000)
                .with_member_id(text(member))
        })
        .await;
    }
    let synced = at_each_version(&mut client, |version| {
        let request = SyncGroupRequest::default().with_group_id(text("g"));
        match version {
            5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
            _ => request,
        }
    });
    assert!(synced.await.iter().all(|it| it.error_code == 0 && !it.assignment.is_empty()));
    at_each_version(&mut client, |_| HeartbeatRequest::default().with_group_id(text("g"))).await;
    at_each_version(&mut client, |_| LeaveGroupRequest::default().with_group_id(text("g"))).await;
    at_each_version(&mut client, |_| ListGroupsRequest::default()).await;
    for group in [CLASSIC, "none"] {
        let groups = || vec![text(group)];
        at_each_version(&mut client, |_| DescribeGroupsRequest::default().with_groups(groups())).await;
        at_each_version(&mut client, |_| DeleteGroupsRequest::default().with_groups_names(groups())).await;
    }
    for group in [CONSUMER, "none"] {
        let groups = || vec![text(group)];
        at_each_version(&mut client, |_| ConsumerGroupDescribeRequest::default().with_group_ids(groups())).await;
    }
    at_each_version(&mut client, |_| ConsumerGroupHeartbeatRequest::default().with_group_id(text("g"))).await;
}

#[tokio::test]
async fn offset_requests_are_answered_at_each_version() {
    use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
    use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics};

    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let committed = at_each_version(&mut client, |_| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
        let topic = OffsetCommitRequestTopic::default().with_name(text(TOPIC)).with_partitions(vec![partition]);
        OffsetCommitRequest::default().with_group_id(text("g")).with_topics(vec![topic])
    });
    assert!(committed.await.iter().all(|it| it.topics[0].partitions[0].error_code == 0));
    let fetched = at_each_version(&mut client, |version| {
        if version < 8 {
            let topic = OffsetFetchRequestTopic::default().with_name(text(TOPIC)).with_partition_indexes(vec![0, 5]);
            return OffsetFetchRequest::default().with_group_id(text("g")).with_topics(Some(vec![topic]));
        }
        let topic = OffsetFetchRequestTopics::default().with_name(text(TOPIC)).with_partition_indexes(vec![0, 5]);
        let group = OffsetFetchRequestGroup::default().with_group_id(text("g")).with_topics(Some(vec![topic]));
        OffsetFetchRequest::default().with_groups(vec![group])
    });
    for fetched in fetched.await {
        let old = fetched.topics.iter().flat_map(|it| &it.partitions).map(|it| it.committed_offset);
        let batched = fetched.groups.iter().flat_map(|it| &it.topics).flat_map(|it| &it.partitions);
        let offsets: Vec<i64> = old.chain(batched.map(|it| it.committed_offset)).collect();
        assert_eq!(offsets, [7, -1]);
    }
    at_each_version(&mut client, |_| OffsetDeleteRequest::default().with_group_id(text("g"))).await;
}

#[tokio::test]
async fn admin_requests_are_answered_at_each_version() {
    use create_partitions_request::CreatePartitionsTopic;
    use create_topics_request::CreatableTopic;
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use delete_topics_request::DeleteTopicState;
    use describe_configs_request::DescribeConfigsResource;
    use describe_topic_partitions_request::TopicRequest;
    use incremental_alter_configs_request::AlterConfigsResource;

    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let created = at_each_version(&mut client, |version| {
        let topic = CreatableTopic::default().with_name(text(&format!("t-{version}"))).with_num_partitions(2);
        CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(3)])
    });
    assert!(created.await.iter().all(|it| it.topics[0].error_code == 0));
    at_each_version(&mut client, |_| {
        let topic = CreatePartitionsTopic::default().with_name(text("none")).with_count(9);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    })
    .await;
    let described = at_each_version(&mut client, |_| {
        let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
        DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)])
    });
    assert!(described.await.iter().all(|it| !it.results[0].configs.is_empty()));
    at_each_version(&mut client, |_| {
        let resource = AlterConfigsResource::default().with_resource_type(2).with_resource_name(text("none"));
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    })
    .await;
    let deleted = at_each_version(&mut client, |_| {
        let partition = DeleteRecordsPartition::default().with_offset(0);
        let topic = DeleteRecordsTopic::default().with_name(text(TOPIC)).with_partitions(vec![partition]);
        DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
    });
    assert!(deleted.await.iter().all(|it| it.topics[0].partitions[0].error_code == 0));
    let clusters = at_each_version(&mut client, |_| DescribeClusterRequest::default()).await;
    assert!(clusters.iter().all(|it| it.error_code == 0 && it.brokers.len() == 1));
    at_each_version(&mut client, |_| {
        let topic = describe_producers_request::TopicRequest::default().with_name(text(TOPIC));
        DescribeProducersRequest::default().with_topics(vec![topic.with_partition_indexes(vec![0])])
    })
    .await;
    at_each_version(&mut client, |_| DescribeLogDirsRequest::default().with_topics(None)).await;
    at_each_version(&mut client, |_| {
        let topic = TopicRequest::default().with_name(text(TOPIC));
        DescribeTopicPartitionsRequest::default().with_topics(vec![topic]).with_response_partition_limit(10)
    })
    .await;
    let deleted = at_each_version(&mut client, |version| match version {
        0..6 => DeleteTopicsRequest::default().with_topic_names(vec![text(&format!("t-{}", version + 1))]),
        _ => {
            let topic = DeleteTopicState::default().with_name(Some(text("t-7")));
            DeleteTopicsRequest::default().with_topics(vec![topic])
        }
    });
    assert!(deleted.await.iter().all(|it| it.responses[0].error_code == 0));
}
