//! Kafka connections that misbehave, or do nothing.

use std::time::Duration;

use bmq_common::{ByteSize, HumanDuration};
use bmq_kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use bmq_kafka::messages::{ApiKey, ApiVersionsRequest, FetchRequest, MetadataRequest};
use bmq_kafka::{ResponseError, supported};

use crate::cluster::{Cluster, LONG, TOPIC, in_time};
use crate::kafka_client::{KafkaClient, text};

const CONNECTIONS: &str = "bmq_proxy_kafka_connections";

/// Waits until so many connections are left.
async fn until_connections_are(cluster: &Cluster, expect: u64) {
    in_time(async {
        while cluster.metric(CONNECTIONS) != expect {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The proxy serves others.
async fn serves(cluster: &Cluster) {
    let told = cluster.kafka().await.ask(9, MetadataRequest::default().with_topics(Some(Vec::new()))).await;
    assert_eq!(told.brokers.len(), 1);
}

fn header(api_key: i16, version: i16) -> Vec<u8> {
    numbered_header(api_key, version, 1)
}

fn numbered_header(api_key: i16, version: i16, number: i32) -> Vec<u8> {
    [&api_key.to_be_bytes()[..], &version.to_be_bytes(), &number.to_be_bytes(), &[0, 1], b"x"].concat()
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

#[tokio::test]
async fn bad_bytes_close_the_connection_and_nothing_else() {
    let cluster = Cluster::start().await;
    let metadata = ApiKey::Metadata as i16;
    let list_that_lies = [&header(metadata, 1)[..], &[0x7f, 0xff, 0xff, 0xff]].concat();
    let cases = [
        vec![0xff; 64],
        0x7fff_ffff_u32.to_be_bytes().to_vec(),
        framed(&[]),
        framed(&[0]),
        framed(&header(9999, 0)),
        framed(&header(metadata, 99)),
        framed(&header(ApiKey::Produce as i16, 2)),
        framed(&list_that_lies),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ];
    for case in cases {
        let mut client = cluster.kafka().await;
        client.send_bytes(&case).await;
        client.closed().await;
        serves(&cluster).await;
    }
}

#[tokio::test]
async fn requests_cut_anywhere_are_survived() {
    let cluster = Cluster::start().await;
    let mut state = 7_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    for api in &supported::SUPPORTED {
        for version in [api.min_version, api.max_version] {
            let mut bytes = header(api.key as i16, version);
            bytes.extend((0..random() % 64).map(|_| random()));
            let mut client = cluster.kafka().await;
            client.send_bytes(&framed(&bytes)).await;
            client.close_sending().await;
            client.closed().await;
        }
    }
    serves(&cluster).await;
}

#[tokio::test]
async fn a_version_from_the_future_is_told_what_there_is() {
    let cluster = Cluster::start().await;
    let mut client = cluster.kafka().await;
    // The connection goes on.
    for number in [1, 2] {
        client.send_bytes(&framed(&numbered_header(ApiKey::ApiVersions as i16, 90, number))).await;
        let told = client.receive::<ApiVersionsRequest>(0).await;
        assert_eq!(told.error_code, ResponseError::UnsupportedVersion.code());
        assert!(!told.api_keys.is_empty());
    }
}

#[tokio::test]
async fn clients_that_stop_are_cut_off() {
    let cluster = Cluster::start_with(|config| {
        config.kafka.receive_timeout = HumanDuration::millis(50);
        config.kafka.idle_timeout = HumanDuration::millis(200);
    })
    .await;
    let mut stalled = cluster.kafka().await;
    stalled.send_bytes(&[0, 0, 0, 100, 0]).await;
    stalled.closed().await;
    let silent = cluster.kafka().await;
    silent.closed().await;
    until_connections_are(&cluster, 0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let cluster = Cluster::start_with(|config| {
        config.kafka.write_timeout = HumanDuration::millis(100);
        config.kafka.max_fetch_bytes = ByteSize::kib(256);
    })
    .await;
    cluster.append(&"x".repeat(200 << 10)).await;
    let mut client = cluster.kafka().await;
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(-1);
    let partition = partition.with_last_fetched_epoch(-1);
    let topic = FetchTopic::default().with_topic(text(TOPIC)).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_session_epoch(-1).with_topics(vec![topic]);
    // More than the sockets between take.
    for _ in 0..120 {
        client.send(12, &request).await;
    }
    until_connections_are(&cluster, 0).await;
    serves(&cluster).await;
}

#[tokio::test]
async fn there_are_only_so_many_connections() {
    let cluster = Cluster::start_with(|config| config.kafka.max_connections = 2).await;
    let mut clients = [cluster.kafka().await, cluster.kafka().await];
    for client in &mut clients {
        client.ask(0, ApiVersionsRequest::default()).await;
    }
    cluster.kafka().await.closed().await;
    drop(clients);
    until_connections_are(&cluster, 0).await;
    serves(&cluster).await;
}

/// As many as the limit on open files allows, with both ends in this process.
fn idle_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limit: usize = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(1 << 20);
    (limit.saturating_sub(1000) / 2).min(10_000)
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_cheap() {
    let cluster = Cluster::start().await;
    serves(&cluster).await;
    let (count, before) = (idle_connections(), resident_bytes());
    let mut idle: Vec<KafkaClient> = Vec::with_capacity(count);
    for number in 0..count {
        let mut client = cluster.kafka().await;
        // Some have asked something before they fell silent.
        if number % 10 == 0 {
            client.ask(0, ApiVersionsRequest::default()).await;
        }
        idle.push(client);
    }
    tokio::time::timeout(LONG, until_connections_are(&cluster, count as u64)).await.unwrap();
    let each = resident_bytes().saturating_sub(before) / count;
    assert!(each < 24 << 10, "an idle connection takes {each} bytes, the client's end included");
    serves(&cluster).await;
    drop(idle);
    until_connections_are(&cluster, 0).await;
}
