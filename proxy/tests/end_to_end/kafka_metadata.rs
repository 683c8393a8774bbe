//! What Kafka clients are told of the cluster, its topics, and where partitions begin and end.

use bmq_kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use bmq_kafka::messages::metadata_request::MetadataRequestTopic;
use bmq_kafka::messages::metadata_response::MetadataResponseTopic;
use bmq_kafka::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use bmq_kafka::messages::{
    ApiVersionsRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
};
use bmq_kafka::{ResponseError, Uuid};
use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::{MetaService, NodeKind, SessionRecord};
use bmq_proto::{Incarnation, NodeId, Offset};

use crate::cluster::{Cluster, TOPIC};
use crate::kafka_client::{KafkaClient, text};

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic::default().with_name(Some(text(name)))
}

async fn describe(client: &mut KafkaClient, topic: MetadataRequestTopic) -> MetadataResponseTopic {
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
    client.ask(12, request).await.topics.remove(0)
}

fn names(response: &MetadataResponse) -> Vec<String> {
    response.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect()
}

#[tokio::test]
async fn versions_are_told_at_each_version() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("test"))
            .with_client_software_version(text("1.0"));
        let told = client.ask(version, request).await;
        assert!(told.error_code == 0 && told.api_keys.len() > 20, "v{version}");
    }
    let nameless = client.ask(3, ApiVersionsRequest::default()).await;
    assert_eq!(nameless.error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn topics_are_told_at_each_version() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    for version in 0..=13 {
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let told = client.ask(version, MetadataRequest::default().with_topics(all)).await;
        assert_eq!(names(&told), [GROUPS_TOPIC, TOPIC], "v{version}");
        let topic = &told.topics[1];
        assert_eq!((told.brokers.len(), topic.error_code, topic.partitions.len()), (1, 0, 1));
        assert_eq!(topic.partitions[0].leader_id, told.brokers[0].node_id);
        if version >= 1 {
            assert_eq!((told.topics[0].is_internal, topic.is_internal), (true, false));
            assert_eq!(told.controller_id, told.brokers[0].node_id);
        }
        if version >= 10 {
            assert_eq!(topic.topic_id, Uuid::from_bytes(cluster.partition.topic.0));
        }
    }
    let none = client.ask(9, MetadataRequest::default().with_topics(Some(Vec::new()))).await;
    assert!(none.topics.is_empty() && none.cluster_id.is_some());
}

#[tokio::test]
async fn other_proxies_are_brokers_if_they_have_the_listener() {
    let cluster = Cluster::start().await;
    let proxy = |node: u32, listener: &str| SessionRecord {
        kind: NodeKind::Proxy,
        node: NodeId(node),
        incarnation: Incarnation(1),
        address: String::new(),
        endpoints: [(listener.to_owned(), format!("proxy-{node}:9092"))].into(),
    };
    cluster.meta.put_session(proxy(7, "PLAIN"));
    cluster.meta.put_session(proxy(8, "ELSEWHERE"));
    let mut client = cluster.kafka().await;
    loop {
        let told = client.ask(12, MetadataRequest::default().with_topics(Some(Vec::new()))).await;
        let brokers: Vec<_> = told.brokers.iter().map(|it| (it.node_id.0, it.host.to_string(), it.port)).collect();
        // The watch may not have told of it yet.
        if brokers.len() == 1 {
            continue;
        }
        assert_eq!(brokers[1], (7, "proxy-7".to_owned(), 9092));
        assert_eq!(brokers.len(), 2);
        return;
    }
}

#[tokio::test]
async fn topics_that_are_not_there_are_created_if_both_sides_want_it() {
    let cluster = Cluster::start_with(|config| config.kafka.auto_create_topics = true).await;
    let mut client = cluster.kafka().await;
    let unwanted = MetadataRequest::default().with_topics(Some(vec![named("new")]));
    let told = client.ask(12, unwanted.with_allow_auto_topic_creation(false)).await;
    assert_eq!(told.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
    let created = describe(&mut client, named("new")).await;
    assert_eq!((created.error_code, created.partitions.len()), (0, 3));
    let record = cluster.meta.topic("new").await.unwrap().unwrap();
    assert_eq!(created.topic_id, Uuid::from_bytes(record.id.0));
    let invalid = describe(&mut client, named("a/b")).await;
    assert_eq!(invalid.error_code, ResponseError::InvalidTopicException.code());

    let cluster = Cluster::start().await;
    let told = describe(&mut cluster.kafka().await, named("new")).await;
    assert_eq!(told.error_code, ResponseError::UnknownTopicOrPartition.code());
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_bytes([3; 16]));
    let told = describe(&mut cluster.kafka().await, by_id).await;
    assert_eq!(told.error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn the_ends_of_a_partition() {
    let cluster = Cluster::start().await;
    for value in ["a", "b", "c"] {
        cluster.append(value).await;
    }
    cluster.logs.with(cluster.partition, |log| log.start = Offset(1));
    let mut client = cluster.kafka().await;
    for version in 1..=10 {
        let mut check = async |timestamp: i64, expect: i64| {
            let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
            let topic = ListOffsetsTopic::default().with_name(text(TOPIC)).with_partitions(vec![partition]);
            let told = client.ask(version, ListOffsetsRequest::default().with_topics(vec![topic])).await;
            let told = &told.topics[0].partitions[0];
            assert_eq!((told.error_code, told.offset), (0, expect), "v{version} {timestamp}");
        };
        check(-1, 3).await;
        check(-2, 1).await;
        check(-4, 1).await;
        check(-5, -1).await;
        check(i64::MAX, -1).await;
    }
}

#[tokio::test]
async fn epochs_end_where_the_next_begins() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    cluster.give_to(1);
    cluster.append("b").await;
    let mut client = cluster.kafka().await;
    let newest = cluster.logs.with(cluster.partition, |log| log.epoch.0 as i32);
    for version in 2..=4 {
        let mut check = async |asked: i32, expect: (i32, i64)| {
            let partition = OffsetForLeaderPartition::default().with_leader_epoch(asked).with_current_leader_epoch(-1);
            let topic = OffsetForLeaderTopic::default().with_topic(text(TOPIC)).with_partitions(vec![partition]);
            let told = client.ask(version, OffsetForLeaderEpochRequest::default().with_topics(vec![topic])).await;
            let told = &told.topics[0].partitions[0];
            assert_eq!((told.error_code, told.leader_epoch, told.end_offset), (0, expect.0, expect.1), "epoch {asked}");
        };
        check(newest - 1, (newest - 1, 1)).await;
        check(newest, (newest, 2)).await;
        check(newest + 1, (-1, -1)).await;
        check(-1, (-1, -1)).await;
    }
}
