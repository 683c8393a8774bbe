//! Batches of Kafka clients, with each value of acks.

use bmq_kafka::ResponseError;
use bmq_kafka::Uuid;
use bmq_kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use bmq_kafka::messages::produce_response::PartitionProduceResponse;
use bmq_kafka::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use bmq_proto::coordinator::GROUPS_TOPIC;
use bytes::Bytes;

use crate::cluster::{Cluster, TOPIC, batch, in_time};
use crate::kafka_client::{KafkaClient, text};

/// The newest version that names topics by name.
const VERSION: i16 = 12;

fn request(acks: i16, topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(text(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(vec![topic])
}

fn to_topic(acks: i16, records: Bytes) -> ProduceRequest {
    request(acks, TOPIC, 0, records)
}

fn only(response: &ProduceResponse) -> &PartitionProduceResponse {
    &response.responses[0].partition_responses[0]
}

async fn produce(client: &mut KafkaClient, request: ProduceRequest) -> PartitionProduceResponse {
    only(&client.ask(VERSION, request).await).clone()
}

#[tokio::test]
async fn batches_arrive_untouched_at_each_version() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    for version in 3..VERSION + 1 {
        let sent = batch(format!("v{version}").as_bytes(), None);
        let response = client.ask(version, to_topic(-1, sent.clone())).await;
        let answer = only(&response);
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(version - 3)), "v{version}");
        assert_eq!(answer.log_append_time_ms, -1);
        let stored = cluster.logs.with(cluster.partition, |log| log.batches.last().unwrap().1.clone());
        // Offset and leader epoch are the owner's; the rest is the producer's.
        assert_eq!((&stored[8..12], &stored[16..]), (&sent[8..12], &sent[16..]));
    }
    let mut by_id = to_topic(-1, batch(b"by id", None));
    by_id.topic_data[0] = by_id.topic_data[0].clone().with_topic_id(Uuid::from_bytes(cluster.partition.topic.0));
    assert_eq!(only(&client.ask(13, by_id).await).error_code, 0);
    let unknown = to_topic(-1, batch(b"none", None));
    assert_eq!(only(&client.ask(13, unknown).await).error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn pipelined_requests_keep_their_order_over_a_move() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    // The first owner does not answer: what was sent to it is not known to be applied.
    cluster.brokers[0].answering.send_replace(false);
    for number in 0..5 {
        let batch = batch(format!("{number}").as_bytes(), Some((9, number)));
        client.send(VERSION, &to_topic(-1, batch)).await;
    }
    let mut received = cluster.brokers[0].received.subscribe();
    in_time(received.wait_for(|received| *received > 0)).await.unwrap();
    cluster.give_to(1);
    cluster.brokers[0].break_streams();
    for number in 0..5 {
        let response = client.receive::<ProduceRequest>(VERSION).await;
        assert_eq!((only(&response).error_code, only(&response).base_offset), (0, number));
    }
    assert_eq!(cluster.values(), ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_request_sees_what_those_before_it_did() {
    use bmq_kafka::messages::ListOffsetsRequest;
    use bmq_kafka::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    client.send(VERSION, &to_topic(-1, batch(b"a", None))).await;
    client.send(VERSION, &to_topic(0, batch(b"without an answer", None))).await;
    client.send(VERSION, &to_topic(-1, batch(b"b", None))).await;
    let latest = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(text(TOPIC)).with_partitions(vec![latest]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    client.send(6, &request).await;
    assert_eq!(only(&client.receive::<ProduceRequest>(VERSION).await).base_offset, 0);
    client.skip_one();
    assert_eq!(only(&client.receive::<ProduceRequest>(VERSION).await).base_offset, 2);
    assert_eq!(client.receive::<ListOffsetsRequest>(6).await.topics[0].partitions[0].offset, 3);
}

#[tokio::test]
async fn a_batch_sent_again_is_answered_with_the_offset_of_the_first() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    let given = client.ask(5, InitProducerIdRequest::default().with_transactional_id(None)).await;
    assert_eq!((given.error_code, given.producer_epoch), (0, 0));
    let again = batch(b"once", Some((given.producer_id.0, 0)));
    for _ in 0..2 {
        let answer = produce(&mut client, to_topic(-1, again.clone())).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    }
    assert_eq!(cluster.values(), ["once"]);
    let transactional = InitProducerIdRequest::default().with_transactional_id(Some(text("t")));
    let refused = client.ask(5, transactional).await;
    assert_eq!(refused.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_by_its_own_code() {
    let cluster = Cluster::start_with(|config| config.produce.max_batch_bytes = bmq_common::ByteSize::kib(4)).await;
    let mut client = cluster.kafka().await;
    let good = batch(b"good", None);
    let mut check = async |request: ProduceRequest, expect: ResponseError| {
        let answer = produce(&mut client, request).await;
        assert_eq!((answer.error_code, answer.base_offset), (expect.code(), -1), "{expect:?}");
    };
    let two = Bytes::from([&good[..], &good[..]].concat());
    let mut old = good.to_vec();
    old[16] = 1;
    let mut transactional = good.to_vec();
    transactional[22] |= 0b1_0000;
    check(to_topic(-1, Bytes::new()), ResponseError::InvalidRecord).await;
    check(to_topic(-1, two), ResponseError::InvalidRecord).await;
    check(to_topic(-1, old.into()), ResponseError::InvalidRecord).await;
    check(to_topic(-1, good.slice(..good.len() - 1)), ResponseError::CorruptMessage).await;
    check(to_topic(-1, batch(&[7; 5000], None)), ResponseError::MessageTooLarge).await;
    check(to_topic(-1, transactional.into()), ResponseError::TransactionalIdAuthorizationFailed).await;
    check(to_topic(2, good.clone()), ResponseError::InvalidRequiredAcks).await;
    check(request(-1, "nothing", 0, good.clone()), ResponseError::UnknownTopicOrPartition).await;
    check(request(-1, TOPIC, 7, good.clone()), ResponseError::UnknownTopicOrPartition).await;
    check(request(-1, TOPIC, -1, good.clone()), ResponseError::UnknownTopicOrPartition).await;
    check(request(-1, "a/b", 0, good.clone()), ResponseError::InvalidTopicException).await;
    check(request(-1, GROUPS_TOPIC, 0, good.clone()), ResponseError::InvalidTopicException).await;
    let with_id = to_topic(-1, good).with_transactional_id(Some(text("t")));
    check(with_id, ResponseError::TransactionalIdAuthorizationFailed).await;
    assert_eq!(cluster.values(), [""; 0]);
}

#[tokio::test]
async fn a_failure_without_acks_closes_the_connection() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    client.send(VERSION, &to_topic(0, batch(b"taken", None))).await;
    client.send(VERSION, &request(0, "nothing", 0, batch(b"refused", None))).await;
    client.closed().await;
    assert_eq!(cluster.values(), ["taken"]);
}

#[tokio::test]
async fn the_timeout_is_the_clients() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    cluster.brokers[0].answering.send_replace(false);
    let request = to_topic(-1, batch(b"late", None)).with_timeout_ms(50);
    let answer = produce(&mut client, request).await;
    assert_eq!(answer.error_code, ResponseError::RequestTimedOut.code());
}

#[tokio::test]
async fn what_a_client_sent_before_it_closed_is_taken() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    for number in 0..20 {
        client.send(VERSION, &to_topic(0, batch(format!("{number}").as_bytes(), None))).await;
    }
    client.close_sending().await;
    client.closed().await;
    assert_eq!(cluster.values().len(), 20);
}
