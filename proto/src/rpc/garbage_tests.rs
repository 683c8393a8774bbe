//! What strangers send to the port, or do not send, costs the server nothing but their connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::service::Routes;

use super::testing::*;
use super::*;
use crate::internal as pb;
use crate::meta::{CreateTopic, MetaService};
use crate::{ErrorCode, Happened};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const LONG: Duration = Duration::from_secs(30);

async fn start(fake: FakeMeta, limits: Limits) -> TestServer {
    TestServer::start(|shutdown| Routes::new(meta_server(Arc::new(fake), shutdown)), limits).await
}

fn client(server: &TestServer) -> MetaClient {
    MetaClient::new(&MetaClientConfig { endpoints: vec![server.address.to_string()], deadline: LONG }).unwrap()
}

/// Sends the bytes and waits until the server has had enough of them.
async fn send_garbage(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may hang up before it has read all, or while it is being read from.
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test]
async fn garbage_ends_only_its_connection() {
    let server = start(FakeMeta::default(), Limits::default()).await;
    let random = Random::from_seed(1);
    for round in 0..50 {
        let mut noise = vec![0; 1 + random.below(4_000) as usize];
        random.fill(&mut noise);
        // Noise alone, as frames, and after a good beginning.
        let beginning: &[&[u8]] = match round % 3 {
            0 => &[],
            1 => &[PREFACE],
            _ => &[PREFACE, &EMPTY_SETTINGS],
        };
        send_garbage(server.address, &[&beginning.concat(), noise.as_slice()].concat()).await;
    }
    // A frame that says it is as large as can be and of which nothing follows; half a frame's head.
    send_garbage(server.address, &[PREFACE, &EMPTY_SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat()).await;
    send_garbage(server.address, &[PREFACE, &EMPTY_SETTINGS[..4]].concat()).await;
    client(&server).cluster().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn messages_above_the_limit_are_refused() {
    let server = start(FakeMeta::default(), Limits::default()).await;
    let client = client(&server);
    let create = |length| CreateTopic { name: "n".repeat(length), partitions: 1, config: Default::default() };
    let error = client.create_topic(create(MAX_MESSAGE_BYTES + 1)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageTooLarge, "{error}");
    client.create_topic(create(MAX_MESSAGE_BYTES - 1_000)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_by_field() {
    let server = start(FakeMeta::default(), Limits::default()).await;
    let mut stub = pb::meta_client::MetaClient::new(channel(&server.address.to_string()).unwrap());
    let status = stub.command(pb::PartitionCommand::default()).await.unwrap_err();
    let error = status::from_status(&status);
    assert_eq!((error.code, error.happened), (ErrorCode::InvalidArgument, Happened::NotApplied));
    assert_eq!(error.message, "request refused: command.partition is missing");
    server.stop().await;
}

#[tokio::test]
async fn silent_connections_give_way() {
    let limits = Limits { max_connections: 2, preface_time: Duration::from_millis(50), ..Limits::default() };
    let server = start(FakeMeta::default(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    silent[2].write_all(&PREFACE[..10]).await.unwrap();
    client(&server).cluster().await.expect("the silent connections are given up");
    server.stop().await;
}

#[tokio::test]
async fn calls_that_hang_are_cut_when_the_server_ends() {
    let calls = Calls::default();
    let fake = FakeMeta { hangs: true, calls: Arc::clone(&calls), ..FakeMeta::default() };
    let server = start(fake, Limits { drain_time: Duration::from_millis(50), ..Limits::default() }).await;
    let client = client(&server);
    let call = tokio::spawn(async move { client.cluster().await });
    while calls.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop().await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Unavailable, Happened::Unknown), "{error}");
}

#[tokio::test]
async fn health_follows_the_process() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let server = start(FakeMeta::default(), Limits::default()).await;
    let mut health = HealthClient::new(channel(&server.address.to_string()).unwrap());
    let mut statuses = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.shutdown.begin();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(statuses);
    server.stop().await;
}
