//! What Kafka's admin clients do with topics.

use bmq_kafka::messages::create_partitions_request::CreatePartitionsTopic;
use bmq_kafka::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use bmq_kafka::messages::create_topics_response::CreatableTopicResult;
use bmq_kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use bmq_kafka::messages::delete_topics_request::DeleteTopicState;
use bmq_kafka::messages::describe_configs_request::DescribeConfigsResource;
use bmq_kafka::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use bmq_kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use bmq_kafka::messages::*;
use bmq_kafka::{ResponseError, Uuid};
use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::MetaService;

use crate::cluster::{Cluster, TOPIC, batch};
use crate::kafka_client::{KafkaClient, text};

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default().with_name(text(name)).with_num_partitions(partitions).with_replication_factor(-1)
}

async fn create(
    client: &mut KafkaClient,
    topics: Vec<CreatableTopic>,
    only_validate: bool,
) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default().with_topics(topics).with_validate_only(only_validate);
    client.ask(7, request).await.topics
}

fn config(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
}

#[tokio::test]
async fn topics_are_created_and_what_is_true_is_told() {
    let cluster = Cluster::start_with(|config| config.kafka.num_partitions = 5).await;
    let mut client = cluster.kafka().await;
    let with_config = topic("settings", 2).with_configs(vec![config("segment.ms", "5000")]);
    let created = create(&mut client, vec![with_config.clone(), topic("default", -1)], false).await;
    let told: Vec<_> = created.iter().map(|it| (it.error_code, it.num_partitions, it.replication_factor)).collect();
    assert_eq!(told, [(0, 2, 1), (0, 5, 1)]);
    let set = created[0].configs.as_ref().unwrap().iter().find(|it| it.name.as_str() == "segment.ms").unwrap();
    assert_eq!((set.value.as_deref(), set.config_source), (Some("5000"), 1));
    let record = cluster.meta.topic("settings").await.unwrap().unwrap();
    assert_eq!(created[0].topic_id, Uuid::from_bytes(record.id.0));

    let validated = create(&mut client, vec![topic("later", 2), with_config], true).await;
    let codes: Vec<i16> = validated.iter().map(|it| it.error_code).collect();
    assert_eq!(codes, [0, ResponseError::TopicAlreadyExists.code()]);
    assert_eq!(cluster.meta.topic("later").await.unwrap(), None);
}

#[tokio::test]
async fn wrong_topics_are_refused_each_by_its_own_code() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let assignment = |partition: i32, brokers: &[i32]| {
        let brokers = brokers.iter().copied().map(BrokerId).collect();
        CreatableReplicaAssignment::default().with_partition_index(partition).with_broker_ids(brokers)
    };
    let mut check = async |topic: CreatableTopic, expect: ResponseError| {
        let refused = create(&mut client, vec![topic], false).await;
        let message = refused[0].error_message.clone().unwrap_or_default();
        assert_eq!(refused[0].error_code, expect.code(), "{}", message.as_str());
        assert!(!message.is_empty());
    };
    check(topic("a b", 1), ResponseError::InvalidTopicException).await;
    check(topic(GROUPS_TOPIC, 1), ResponseError::InvalidRequest).await;
    check(topic(TOPIC, 1), ResponseError::TopicAlreadyExists).await;
    check(topic("t", 0), ResponseError::InvalidPartitions).await;
    check(topic("t", 10_001), ResponseError::InvalidPartitions).await;
    check(topic("t", 1).with_replication_factor(0), ResponseError::InvalidReplicationFactor).await;
    check(topic("t", 1).with_configs(vec![config("colour", "red")]), ResponseError::InvalidConfig).await;
    check(topic("t", 1).with_configs(vec![config("segment.ms", "x")]), ResponseError::InvalidConfig).await;
    let assigned = |assignments| topic("t", -1).with_assignments(assignments);
    check(assigned(vec![assignment(1, &[1])]), ResponseError::InvalidReplicaAssignment).await;
    check(assigned(vec![assignment(0, &[9])]), ResponseError::InvalidReplicaAssignment).await;
    check(assigned(vec![assignment(0, &[])]), ResponseError::InvalidReplicaAssignment).await;
    check(assigned(vec![assignment(0, &[1, 1])]), ResponseError::InvalidReplicaAssignment).await;

    let twice = create(&mut client, vec![topic("t", 1), topic("t", 1)], false).await;
    assert!(twice.iter().all(|it| it.error_code == ResponseError::InvalidRequest.code()));
    assert_eq!(cluster.meta.topic("t").await.unwrap(), None);
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let created = create(&mut client, vec![topic("one", 1), topic("other", 1)], false).await;
    let named = |name: &str| DeleteTopicState::default().with_name(Some(text(name)));
    let with_id = |id: Uuid| DeleteTopicState::default().with_name(None).with_topic_id(id);
    let unknown = Uuid::from_bytes([9; 16]);
    let topics = vec![
        named("one"),
        with_id(created[1].topic_id),
        named("none"),
        with_id(unknown),
        named(GROUPS_TOPIC),
        named(TOPIC).with_topic_id(unknown),
    ];
    let deleted = client.ask(6, DeleteTopicsRequest::default().with_topics(topics)).await.responses;
    let codes: Vec<i16> = deleted.iter().map(|it| it.error_code).collect();
    let expect = [
        0,
        0,
        ResponseError::UnknownTopicOrPartition.code(),
        ResponseError::UnknownTopicId.code(),
        ResponseError::InvalidRequest.code(),
        ResponseError::InvalidRequest.code(),
    ];
    assert_eq!(codes, expect);
    assert_eq!(deleted[1].name.as_ref().unwrap().as_str(), "other");
}

#[tokio::test]
async fn topics_grow_and_only_grow() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let mut grow = async |name: &str, count: i32, validate_only: bool| {
        let topic = CreatePartitionsTopic::default().with_name(text(name)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_validate_only(validate_only);
        client.ask(3, request).await.results[0].error_code
    };
    let partitions = async || cluster.meta.topic(TOPIC).await.unwrap().unwrap().partitions;
    assert_eq!((grow(TOPIC, 4, true).await, partitions().await), (0, 1));
    assert_eq!((grow(TOPIC, 4, false).await, partitions().await), (0, 4));
    for count in [4, 3, 0, -1, 10_001] {
        assert_eq!(grow(TOPIC, count, false).await, ResponseError::InvalidPartitions.code(), "{count}");
    }
    assert_eq!(grow("none", 4, false).await, ResponseError::UnknownTopicOrPartition.code());
    assert_eq!(grow(GROUPS_TOPIC, 4, false).await, ResponseError::InvalidRequest.code());
}

fn changes(resource_type: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> AlterConfigsResource {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| {
        let value = value.map(text);
        AlterableConfig::default().with_name(text(name)).with_config_operation(*operation).with_value(value)
    };
    AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(changes.iter().map(change).collect())
}

#[tokio::test]
async fn settings_are_changed_one_by_one() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let mut alter = async |resource: AlterConfigsResource, validate_only: bool| {
        let request =
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(validate_only);
        client.ask(1, request).await.responses[0].error_code
    };
    let config = async || cluster.meta.topic(TOPIC).await.unwrap().unwrap().config;
    let set = changes(2, TOPIC, &[("segment.ms", 0, Some("5000")), ("segment.bytes", 0, Some("1048576"))]);
    assert_eq!((alter(set.clone(), true).await, config().await.len()), (0, 0));
    assert_eq!((alter(set, false).await, config().await.len()), (0, 2));
    assert_eq!(alter(changes(2, TOPIC, &[("segment.ms", 1, None)]), false).await, 0);
    assert_eq!(config().await.into_iter().collect::<Vec<_>>(), [("segment.bytes".to_owned(), "1048576".to_owned())]);

    let mut check = async |resource: AlterConfigsResource, expect: ResponseError| {
        assert_eq!(alter(resource, false).await, expect.code());
    };
    check(changes(2, TOPIC, &[("colour", 0, Some("red"))]), ResponseError::InvalidConfig).await;
    check(changes(2, TOPIC, &[("segment.ms", 0, Some("soon"))]), ResponseError::InvalidConfig).await;
    check(changes(2, TOPIC, &[("segment.ms", 2, Some("1"))]), ResponseError::InvalidConfig).await;
    check(changes(2, TOPIC, &[("segment.ms", 0, None)]), ResponseError::InvalidRequest).await;
    check(changes(2, TOPIC, &[("segment.ms", 9, None)]), ResponseError::InvalidRequest).await;
    let twice = [("segment.ms", 0, Some("5000")), ("segment.ms", 1, None)];
    check(changes(2, TOPIC, &twice), ResponseError::InvalidRequest).await;
    check(changes(2, "none", &[]), ResponseError::UnknownTopicOrPartition).await;
    check(changes(2, GROUPS_TOPIC, &[]), ResponseError::InvalidRequest).await;
    check(changes(4, "1", &[]), ResponseError::InvalidRequest).await;
    check(changes(77, "1", &[]), ResponseError::InvalidRequest).await;
}

#[tokio::test]
async fn settings_are_described_with_their_sources() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let set = changes(2, TOPIC, &[("segment.ms", 0, Some("5000"))]);
    client.ask(1, IncrementalAlterConfigsRequest::default().with_resources(vec![set])).await;
    let resource = |kind: i8, name: &str, keys: Option<&[&str]>| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(keys.map(|keys| keys.iter().copied().map(text).collect()))
    };
    let resources = vec![
        resource(2, TOPIC, Some(&["segment.ms", "segment.bytes"])),
        resource(4, "1", None),
        resource(2, "none", None),
        resource(4, "2", None),
    ];
    let request = DescribeConfigsRequest::default()
        .with_resources(resources)
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let results = client.ask(4, request).await.results;
    let of_topic = &results[0].configs;
    assert_eq!(of_topic.len(), 2);
    let set = of_topic.iter().find(|it| it.name.as_str() == "segment.ms").unwrap();
    assert_eq!((set.value.as_deref(), set.config_source, set.read_only), (Some("5000"), 1, false));
    let sources: Vec<i8> = set.synonyms.iter().map(|it| it.source).collect();
    assert_eq!(sources, [1, 5]);
    assert!(set.documentation.as_ref().is_some_and(|text| !text.is_empty()));
    let default = of_topic.iter().find(|it| it.name.as_str() == "segment.bytes").unwrap();
    assert_eq!(default.config_source, 5);
    assert!(results[1].configs.iter().any(|it| it.name.as_str() == "num.partitions" && it.read_only));
    assert_eq!(results[2].error_code, ResponseError::UnknownTopicOrPartition.code());
    assert_eq!(results[3].error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn topics_are_told_page_by_page() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    create(&mut client, vec![topic("many", 5)], false).await;
    let mut cursor = None;
    let mut pages = Vec::new();
    loop {
        let names = ["many", TOPIC, "none"].map(|name| TopicRequest::default().with_name(text(name)));
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(names.into())
            .with_response_partition_limit(3)
            .with_cursor(cursor);
        let answer = client.ask(0, request).await;
        let shown = |it: &describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic| {
            let numbers: Vec<i32> = it.partitions.iter().map(|it| it.partition_index).collect();
            (it.name.as_ref().unwrap().to_string(), it.error_code, numbers)
        };
        pages.push(answer.topics.iter().map(shown).collect::<Vec<_>>());
        let Some(next) = answer.next_cursor else { break };
        cursor = Some(Cursor::default().with_topic_name(next.topic_name).with_partition_index(next.partition_index));
    }
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let expect = [
        vec![("many".to_owned(), 0, vec![0, 1, 2])],
        vec![("many".to_owned(), 0, vec![3, 4]), ("none".to_owned(), unknown, vec![])],
        vec![(TOPIC.to_owned(), 0, vec![0])],
    ];
    assert_eq!(pages, expect);
}

#[tokio::test]
async fn records_are_deleted_at_their_owner() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    for value in ["a", "b", "c"] {
        cluster.append(value).await;
    }
    let mut delete = async |topic: &str, partition: i32, before: i64| {
        let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(text(topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = client.ask(2, request).await;
        let partition = &answer.topics[0].partitions[0];
        (partition.low_watermark, partition.error_code)
    };
    assert_eq!(delete(TOPIC, 0, 2).await, (2, 0));
    assert_eq!(delete(TOPIC, 0, 1).await, (2, 0), "it never goes back");
    assert_eq!(delete(TOPIC, 0, -1).await, (3, 0), "all that is visible");
    assert_eq!(delete(TOPIC, 0, 9).await, (-1, ResponseError::OffsetOutOfRange.code()));
    assert_eq!(delete(TOPIC, 0, -2).await, (-1, ResponseError::OffsetOutOfRange.code()));
    assert_eq!(delete(TOPIC, 7, 0).await, (-1, ResponseError::UnknownTopicOrPartition.code()));
    assert_eq!(delete("none", 0, 0).await, (-1, ResponseError::UnknownTopicOrPartition.code()));
}

#[tokio::test]
async fn producers_are_told_by_their_owner() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    cluster.logs.with(cluster.partition, |log| log.append(&batch(b"a", Some((7, 4)))));
    let topic = describe_producers_request::TopicRequest::default().with_name(text(TOPIC));
    let request = DescribeProducersRequest::default().with_topics(vec![topic.with_partition_indexes(vec![0, 9])]);
    let partitions = client.ask(0, request).await.topics.remove(0).partitions;
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id, producer.producer_epoch, producer.last_sequence), (ProducerId(7), 0, 4));
    assert_eq!(partitions[1].error_code, ResponseError::UnknownTopicOrPartition.code());
}
