//! Reads of Kafka clients.

use std::time::Duration;

use bmq_kafka::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use bmq_kafka::messages::fetch_response::PartitionData;
use bmq_kafka::messages::{FetchRequest, FetchResponse};
use bmq_kafka::{ResponseError, Uuid};
use bmq_proto::Offset;
use bmq_proto::coordinator::GROUPS_TOPIC;
use tokio::time::Instant;

use crate::cluster::{Cluster, TOPIC, values_of};
use crate::kafka_client::{KafkaClient, text};

/// The newest version that names topics by name.
const VERSION: i16 = 12;

fn partition(offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
}

fn request(partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic::default().with_topic(text(TOPIC)).with_partitions(partitions);
    let topics = if topic.partitions.is_empty() { Vec::new() } else { vec![topic] };
    FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(topics)
}

fn only(response: &FetchResponse) -> &PartitionData {
    assert_eq!(response.error_code, 0);
    &response.responses[0].partitions[0]
}

fn values(data: &PartitionData) -> Vec<String> {
    values_of(data.records.as_ref().expect("records are there, if only empty"))
}

async fn fetch(client: &mut KafkaClient, request: FetchRequest) -> PartitionData {
    only(&client.ask(VERSION, request).await).clone()
}

async fn cluster_with(values: &[&str]) -> Cluster {
    let cluster = Cluster::start().await;
    for value in values {
        cluster.append(value).await;
    }
    cluster
}

#[tokio::test]
async fn batches_are_read_at_each_version() {
    let cluster = cluster_with(&["a", "b", "c"]).await;
    let mut client = cluster.kafka().await;
    for version in 4..=18 {
        let mut request = request(vec![partition(1)]);
        if version >= 13 {
            let topic = request.topics.remove(0);
            request.topics.push(topic.with_topic(text("")).with_topic_id(Uuid::from_bytes(cluster.partition.topic.0)));
        }
        let response = client.ask(version, request).await;
        let data = only(&response);
        assert_eq!(values(data), ["b", "c"], "v{version}");
        assert_eq!((data.error_code, data.high_watermark, data.last_stable_offset), (0, 3, 3));
        assert_eq!(data.aborted_transactions.as_ref().map_or(0, Vec::len), 0);
    }
}

#[tokio::test]
async fn one_batch_comes_whatever_the_limits_say() {
    let cluster = cluster_with(&["a", "b"]).await;
    let mut client = cluster.kafka().await;
    let small = request(vec![partition(0).with_partition_max_bytes(1)]).with_max_bytes(1);
    assert_eq!(values(&fetch(&mut client, small).await), ["a"]);
}

#[tokio::test]
async fn a_long_poll_is_answered_when_data_comes_or_its_time_is_over() {
    let cluster = cluster_with(&["a"]).await;
    let mut client = cluster.kafka().await;
    // At the end: empty after the wait.
    let begun = Instant::now();
    let empty = fetch(&mut client, request(vec![partition(1)]).with_max_wait_ms(60)).await;
    assert_eq!((empty.error_code, empty.high_watermark, values(&empty)), (0, 1, Vec::new()));
    assert!(begun.elapsed() >= Duration::from_millis(60));

    client.send(VERSION, &request(vec![partition(1)]).with_max_wait_ms(30_000)).await;
    cluster.append("b").await;
    let data = only(&client.receive::<FetchRequest>(VERSION).await).clone();
    assert_eq!(values(&data), ["b"]);

    // More bytes than one batch has.
    let many = request(vec![partition(2)]).with_max_wait_ms(30_000).with_min_bytes(150);
    client.send(VERSION, &many).await;
    for value in ["c", "d", "e"] {
        cluster.append(value).await;
    }
    let data = only(&client.receive::<FetchRequest>(VERSION).await).clone();
    assert!(data.records.as_ref().unwrap().len() >= 150 && values(&data)[0] == "c", "{data:?}");
}

#[tokio::test]
async fn offsets_outside_are_refused_with_the_bounds() {
    let cluster = cluster_with(&["a", "b"]).await;
    cluster.logs.with(cluster.partition, |log| log.start = Offset(1));
    let mut client = cluster.kafka().await;
    for offset in [0, 3, -5] {
        let data = fetch(&mut client, request(vec![partition(offset)])).await;
        assert_eq!(data.error_code, ResponseError::OffsetOutOfRange.code(), "{offset}");
        if offset >= 0 {
            assert_eq!((data.log_start_offset, data.high_watermark), (1, 2));
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let cluster = cluster_with(&["a"]).await;
    let mut client = cluster.kafka().await;
    let named = |name: &str| {
        let topic = FetchTopic::default().with_topic(text(name)).with_partitions(vec![partition(0)]);
        request(Vec::new()).with_topics(vec![topic])
    };
    let code = |data: PartitionData| data.error_code;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(code(fetch(&mut client, named("nothing")).await), unknown);
    assert_eq!(code(fetch(&mut client, request(vec![partition(0).with_partition(4)])).await), unknown);
    let internal = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(code(fetch(&mut client, named(GROUPS_TOPIC)).await), internal);
    let by_id = client.ask(13, named("")).await;
    assert_eq!(only(&by_id).error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn leader_epochs_are_compared() {
    let cluster = cluster_with(&["a"]).await;
    cluster.give_to(1);
    cluster.append("b").await;
    let mut client = cluster.kafka().await;
    let epoch = cluster.logs.with(cluster.partition, |log| log.epoch.0 as i32);
    let mut check = async |claimed: i32, expect: i16| {
        let data = fetch(&mut client, request(vec![partition(0).with_current_leader_epoch(claimed)])).await;
        assert_eq!(data.error_code, expect, "epoch {claimed}");
    };
    check(epoch, 0).await;
    check(epoch - 1, ResponseError::FencedLeaderEpoch.code()).await;
    check(epoch + 1, ResponseError::UnknownLeaderEpoch.code()).await;
    // Under the first epoch one record was written: who has read more of it has read something else.
    let diverging = fetch(&mut client, request(vec![partition(2).with_last_fetched_epoch(epoch - 1)])).await;
    assert_eq!((diverging.diverging_epoch.epoch, diverging.diverging_epoch.end_offset), (epoch - 1, 1));
    assert!(values(&diverging).is_empty());
}

#[tokio::test]
async fn a_session_is_told_what_changed() {
    let cluster = cluster_with(&["a"]).await;
    let mut client = cluster.kafka().await;
    let begin = request(vec![partition(0), partition(0).with_partition(9)]).with_session_epoch(0);
    let begun = client.ask(VERSION, begin).await;
    let session = begun.session_id;
    assert!(session > 0 && begun.responses[0].partitions.len() == 2);

    // The unknown partition is told each time; the other one not, since its client has read on and nothing came.
    let next = request(vec![partition(1)]).with_session_id(session).with_session_epoch(1);
    let told = client.ask(VERSION, next).await;
    let partitions: Vec<i32> = told.responses[0].partitions.iter().map(|it| it.partition_index).collect();
    assert_eq!((told.session_id, partitions), (session, vec![9]));

    let forget = ForgottenTopic::default().with_topic(text(TOPIC)).with_partitions(vec![9]);
    let next = request(Vec::new()).with_session_id(session).with_session_epoch(2);
    let told = client.ask(VERSION, next.with_forgotten_topics_data(vec![forget])).await;
    assert!(told.responses.is_empty());

    // Another connection may go on.
    cluster.append("b").await;
    let mut other = cluster.kafka().await;
    let next = request(Vec::new()).with_session_id(session).with_session_epoch(3).with_max_wait_ms(10_000);
    assert_eq!(values(only(&other.ask(VERSION, next.clone()).await)), ["b"]);
    let code = |response: FetchResponse| response.error_code;
    assert_eq!(code(client.ask(VERSION, next).await), ResponseError::InvalidFetchSessionEpoch.code());
    let unknown = request(Vec::new()).with_session_id(session ^ 1).with_session_epoch(1);
    assert_eq!(code(client.ask(VERSION, unknown).await), ResponseError::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn a_client_that_leaves_is_not_waited_for() {
    let cluster = cluster_with(&["a"]).await;
    let mut client = cluster.kafka().await;
    client.send(VERSION, &request(vec![partition(1)]).with_max_wait_ms(30_000)).await;
    client.close_sending().await;
    client.closed().await;
}
