//! The consumer against a server that fails as it is told.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::*;
use crate::Client;
use crate::testing::FakeServer;

/// A server whose topic `orders` has two partitions with the numbers from 0 on, in batches of ten.
async fn server_with(counts: [u64; 2]) -> FakeServer {
    let server = FakeServer::start(&[("orders", 2)]).await;
    for (partition, count) in (0..).zip(counts) {
        write(&server, partition, 0, count);
    }
    server
}

fn write(server: &FakeServer, partition: u32, from: u64, to: u64) {
    for base in (from..to).step_by(10) {
        server.write("orders", partition, base..(base + 10).min(to));
    }
}

fn from_start() -> Vec<(&'static str, u32, StartAt)> {
    vec![("orders", 0, StartAt::Earliest), ("orders", 1, StartAt::Earliest)]
}

/// Reads to the end, and checks that each record is what its offset says.
async fn read_all(consumer: Consumer) -> BTreeMap<u32, Vec<u64>> {
    let mut offsets: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut records = consumer.map(Result::unwrap);
    while let Some(record) = records.next().await {
        assert_eq!(record.value.unwrap(), record.offset.to_string());
        assert_eq!(&*record.topic, "orders");
        offsets.entry(record.partition).or_default().push(record.offset);
    }
    offsets
}

async fn next_offset(consumer: &mut Consumer) -> u64 {
    consumer.next().await.unwrap().unwrap().offset
}

fn expected(ranges: [std::ops::Range<u64>; 2]) -> BTreeMap<u32, Vec<u64>> {
    (0..).zip(ranges).filter(|(_, range)| !range.is_empty()).map(|(number, range)| (number, range.collect())).collect()
}

#[tokio::test]
async fn until_end_reads_what_is_there() {
    let server = server_with([205, 30]).await;
    let consumer = server.client().await.consume(from_start()).await.unwrap().until_end().await.unwrap();
    assert_eq!(consumer.bounds("orders", 0), Some(Bounds { log_start: 0, high_watermark: 205 }));
    // These came later.
    write(&server, 0, 205, 300);
    assert_eq!(read_all(consumer).await, expected([0..205, 0..30]));
}

#[tokio::test]
async fn until_end_of_nothing_ends_at_once() {
    let server = server_with([0, 20]).await;
    let positions = vec![("orders", 0, StartAt::Earliest), ("orders", 1, StartAt::Latest)];
    let consumer = server.client().await.consume(positions).await.unwrap().until_end().await.unwrap();
    assert_eq!(read_all(consumer).await, expected([0..0, 0..0]));
}

#[tokio::test]
async fn an_offset_inside_a_batch_is_the_first_that_comes() {
    let server = server_with([100, 100]).await;
    let positions = vec![("orders", 0, StartAt::Offset(45)), ("orders", 1, StartAt::Offset(99))];
    let consumer = server.client().await.consume(positions).await.unwrap().until_end().await.unwrap();
    assert_eq!(read_all(consumer).await, expected([45..100, 99..100]));
}

#[tokio::test]
async fn after_lost_connections_each_record_comes_once() {
    let server = server_with([500, 300]).await;
    server.shared.fetch_breaks.lock().extend([0, 1, 3, 0, 5, 2, 7]);
    let config = ConsumerConfig { max_bytes: 300, ..ConsumerConfig::default() };
    let consumer = server.client().await.consume_with(from_start(), config).await.unwrap();
    assert_eq!(read_all(consumer.until_end().await.unwrap()).await, expected([0..500, 0..300]));
    assert!(server.shared.fetch_breaks.lock().is_empty());
}

#[tokio::test]
async fn latest_waits_for_what_comes() {
    let server = server_with([100, 0]).await;
    let positions = vec![("orders", 0, StartAt::Latest), ("orders", 1, StartAt::Latest)];
    // The first stream breaks before anything came: what is written meanwhile must not be lost.
    server.shared.fetch_breaks.lock().extend([0]);
    let mut consumer = server.client().await.consume(positions).await.unwrap();
    write(&server, 0, 100, 110);
    for offset in 100..110 {
        assert_eq!(next_offset(&mut consumer).await, offset);
    }
    write(&server, 1, 0, 10);
    assert_eq!(next_offset(&mut consumer).await, 0);
    assert_eq!(consumer.bounds("orders", 1), Some(Bounds { log_start: 0, high_watermark: 10 }));
}

#[tokio::test]
async fn the_server_never_sends_more_than_was_allowed() {
    let server = server_with([5_000, 0]).await;
    let config = ConsumerConfig { buffer_bytes: 2_000, max_bytes: 500, ..ConsumerConfig::default() };
    let consumer = server.client().await.consume_with(from_start(), config).await.unwrap();
    assert_eq!(read_all(consumer.until_end().await.unwrap()).await, expected([0..5_000, 0..0]));
    let outstanding = *server.shared.max_fetch_outstanding.lock();
    assert!(outstanding <= 2_000, "{outstanding}");
}

#[tokio::test]
async fn a_partition_that_fails_does_not_stop_the_other() {
    let server = server_with([10, 10]).await;
    let positions = vec![("orders", 0, StartAt::Offset(11)), ("orders", 1, StartAt::Earliest)];
    let mut consumer = server.client().await.consume(positions).await.unwrap();
    let error = consumer.next().await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::OutOfRange);
    assert!(error.message.starts_with("partition 0 of orders: "), "{error}");
}

#[tokio::test]
async fn a_start_beyond_the_end_is_refused_whether_the_stream_ends_or_not() {
    let server = server_with([10, 10]).await;
    let beyond = || vec![("orders", 0, StartAt::Offset(11))];
    let mut endless = server.client().await.consume(beyond()).await.unwrap();
    let mut ending = server.client().await.consume(beyond()).await.unwrap().until_end().await.unwrap();
    let refusal = endless.next().await.unwrap().unwrap_err();
    assert_eq!(refusal.code, ErrorCode::OutOfRange);
    assert_eq!(ending.next().await.unwrap().unwrap_err(), refusal);
    // At the end itself there is nothing yet, which is no error.
    let at_the_end = vec![("orders", 0, StartAt::Offset(10))];
    let consumer = server.client().await.consume(at_the_end).await.unwrap().until_end().await.unwrap();
    assert_eq!(read_all(consumer).await, expected([0..0, 0..0]));
}

#[tokio::test]
async fn reading_begins_at_a_time() {
    let server = server_with([10, 10]).await;
    let timed = vec![("orders", 0, StartAt::Timestamp(7)), ("orders", 1, StartAt::Timestamp(1_000))];
    let consumer = server.client().await.consume(timed).await.unwrap().until_end().await.unwrap();
    assert_eq!(read_all(consumer).await, expected([7..10, 10..10]));
}

#[tokio::test]
async fn positions_are_checked() {
    let server = server_with([10, 10]).await;
    let client = server.client().await;
    let code = |consumer: Result<Consumer, Error>| consumer.err().expect("refused").code;
    assert_eq!(code(client.consume(Vec::<Subscription>::new()).await), ErrorCode::InvalidArgument);
    let twice = vec![("orders", 0, StartAt::Earliest), ("orders", 0, StartAt::Offset(3))];
    assert_eq!(code(client.consume(twice).await), ErrorCode::InvalidArgument);
    assert_eq!(code(client.consume(vec![("none", 0, StartAt::Latest)]).await), ErrorCode::UnknownTopic);
}

#[tokio::test]
async fn without_a_server_the_stream_says_so() {
    let server = server_with([10, 0]).await;
    let config = ConsumerConfig { give_up_after: Duration::from_millis(200), ..ConsumerConfig::default() };
    let mut consumer = server.client().await.consume_with(from_start(), config).await.unwrap();
    for offset in 0..10 {
        assert_eq!(next_offset(&mut consumer).await, offset);
    }
    // Takes its connections with it.
    drop(server);
    let error = consumer.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.may_have_been_applied), (ErrorCode::Unavailable, false), "{error}");
}

#[tokio::test]
async fn admin_calls_pass() {
    let server = FakeServer::start(&[("orders", 2)]).await;
    let client = Client::connect(&server.address.to_string()).await.unwrap();
    let admin = client.admin();
    admin.create_topic("more", 3, BTreeMap::new()).await.unwrap();
    let error = admin.create_topic("more", 3, BTreeMap::new()).await.unwrap_err();
    assert_eq!((error.code, error.retriable, error.may_have_been_applied), (ErrorCode::TopicExists, false, false));
    let names: Vec<_> = admin.list_topics().await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["more", "orders"]);
    assert_eq!(admin.describe_topic("more").await.unwrap().partitions.len(), 3);
    server.write("more", 1, 0..4);
    let bounds = admin.list_offsets("more", &[1]).await.unwrap();
    assert_eq!((bounds.len(), bounds[0].high_watermark), (1, 4));
    admin.delete_topic("more").await.unwrap();
    assert_eq!(admin.delete_topic("more").await.unwrap_err().code, ErrorCode::UnknownTopic);
    assert_eq!(admin.describe_cluster().await.unwrap().cluster_id.len(), 32);
}
