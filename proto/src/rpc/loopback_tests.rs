//! Through gRPC each service looks as it does when called straight, errors included; and its streams end when they should.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::Routes;

use super::testing::*;
use super::*;
use crate::broker::*;
use crate::meta::*;
use crate::*;

const LONG: Duration = Duration::from_secs(30);

async fn serve_meta(fake: FakeMeta) -> TestServer {
    TestServer::start(|shutdown| Routes::new(meta_server(Arc::new(fake), shutdown)), Limits::default()).await
}

async fn serve_broker(fake: FakeBroker) -> TestServer {
    TestServer::start(|shutdown| Routes::new(broker_server(Arc::new(fake), shutdown)), Limits::default()).await
}

fn meta_client(endpoints: &[String], deadline: Duration) -> MetaClient {
    MetaClient::new(&MetaClientConfig { endpoints: endpoints.to_vec(), deadline }).unwrap()
}

fn meta_client_of(server: &TestServer) -> MetaClient {
    meta_client(&[server.address.to_string()], LONG)
}

fn broker_client_of(server: &TestServer) -> BrokerClient {
    BrokerClient::new(&BrokerClientConfig { address: server.address.to_string(), deadline: LONG }).unwrap()
}

/// Calls every method of the service, watches excepted, and tells what it answered.
async fn ask_everything(meta: &dyn MetaService) -> Vec<String> {
    let partition = partition();
    let kind = PartitionCommandKind::Release { epoch: Epoch(3) };
    let open = OpenSession {
        kind: NodeKind::Broker,
        node: NodeId(1),
        incarnation: Incarnation(u64::MAX),
        address: "host:1".into(),
        endpoints: [("inside".into(), "host:2".into())].into(),
        time_to_live: Duration::from_millis(3_500),
    };
    let create = CreateTopic { name: "orders".into(), partitions: 3, config: [("a".into(), "b".into())].into() };
    let changes = ConfigChanges::from([
        ("a".into(), ConfigChange::Set("1".into())),
        ("b".into(), ConfigChange::Delete),
        ("c".into(), ConfigChange::Append("x".into())),
        ("d".into(), ConfigChange::Subtract("y".into())),
    ]);
    let intents = vec![(partition, Some(NodeId(4))), (partition, None)];
    vec![
        format!("{:?}", meta.cluster().await),
        format!("{:?}", meta.create_topic(create).await),
        format!("{:?}", meta.delete_topic("orders").await),
        format!("{:?}", meta.alter_topic_config("orders", changes).await),
        format!("{:?}", meta.add_partitions("orders", 9).await),
        format!("{:?}", meta.purge_topic(Term(7), partition.topic).await),
        format!("{:?}", meta.list_topics().await),
        format!("{:?}", meta.topic("orders").await),
        format!("{:?}", meta.topic("none").await),
        format!("{:?}", meta.open_session(open).await),
        format!("{:?}", meta.keep_alive(SessionId(9)).await),
        format!("{:?}", meta.close_session(SessionId(9)).await),
        format!("{:?}", meta.list_sessions().await),
        format!("{:?}", meta.acquire_term(SessionId(9)).await),
        format!("{:?}", meta.set_intents(Term(7), intents).await),
        format!("{:?}", meta.command(PartitionCommand { partition, nonce: 1, now_ms: -2, kind }).await),
        format!("{:?}", meta.head(partition).await),
        format!("{:?}", meta.partition(partition).await),
        format!("{:?}", meta.segments_from(partition, Offset(5), 77).await),
        format!("{:?}", meta.garbage(partition).await),
        format!("{:?}", meta.allocate_producer_ids(100).await),
    ]
}

async fn check_meta(failure: Option<ServiceError>) {
    let straight = FakeMeta { failure: failure.clone(), ..FakeMeta::default() };
    let expected = ask_everything(&straight).await;

    let calls = Calls::default();
    let fake = FakeMeta { failure, calls: Arc::clone(&calls), ..FakeMeta::default() };
    let server = serve_meta(fake).await;
    let found = ask_everything(&meta_client_of(&server)).await;
    assert_eq!(found, expected);
    assert_eq!(*calls.lock().unwrap(), *straight.calls.lock().unwrap());
    server.stop().await;
}

#[tokio::test]
async fn meta_answers_pass() {
    check_meta(None).await;
}

#[tokio::test]
async fn meta_errors_pass() {
    check_meta(Some(ServiceError::unknown(ErrorCode::Conflict, "records changed"))).await;
}

#[tokio::test]
async fn a_watch_passes_and_ends_with_its_watcher() {
    let (guard, mut watches) = mpsc::channel(1);
    let server = serve_meta(FakeMeta { watch_guard: Some(guard.clone()), ..FakeMeta::default() }).await;
    let client = meta_client_of(&server);
    let scope = WatchScope { heads: true, ..WatchScope::default() };
    let expected = watch_events();

    let mut watch = client.watch(scope).await.unwrap();
    let found: Vec<_> = watch.by_ref().take(expected.len()).map(Result::unwrap).collect().await;
    assert_eq!(found, expected);
    assert_eq!(guard.strong_count(), 3, "this one, the fake's, the watch's");
    drop(watch);
    // Served on the same connection, so that the end of the watch has arrived before.
    while guard.strong_count() == 3 {
        client.cluster().await.unwrap();
    }

    let mut watch = client.watch(scope).await.unwrap();
    server.shutdown.begin();
    let last = watch.by_ref().skip(expected.len()).next().await.unwrap();
    assert_eq!(last.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(watch.next().await, None);
    server.stop().await;
    drop(guard);
    assert_eq!(watches.recv().await, None);
}

/// An address where nobody listens.
async fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_call_goes_to_the_endpoint_that_lives() {
    let server = serve_meta(FakeMeta::default()).await;
    let endpoints = [dead_address().await, dead_address().await, server.address.to_string()];
    let client = meta_client(&endpoints, LONG);
    client.delete_topic("orders").await.expect("a call that was never sent may be sent elsewhere");
    server.stop().await;

    let error = client.delete_topic("orders").await.unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Unavailable, Happened::NotApplied), "{error}");
}

#[tokio::test]
async fn a_hung_endpoint_is_left_after_the_deadline() {
    // The kernel takes the connection, and nobody ever answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = serve_meta(FakeMeta::default()).await;
    let endpoints = [hung.local_addr().unwrap().to_string(), server.address.to_string()];
    let client = meta_client(&endpoints, Duration::from_millis(500));
    let error = client.delete_topic("orders").await.unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Timeout, Happened::Unknown));

    client.delete_topic("orders").await.expect("the next call begins at the other endpoint");
    server.stop().await;
}

async fn ask_broker(broker: &dyn BrokerService) -> Vec<String> {
    let partition = partition();
    let read = OwnerRead { partition, epoch: Epoch(3), offset: Offset(4), max_bytes: 5 << 20 };
    vec![
        format!("{:?}", broker.read(read).await),
        format!("{:?}", broker.bounds(partition).await),
        format!("{:?}", broker.delete_records(partition, Epoch(3), Offset(4)).await),
        format!("{:?}", broker.producers(partition, Epoch(3)).await),
        format!("{:?}", broker.offset_for_time(partition, Epoch(3), TimeSearch::Highest).await),
        format!("{:?}", broker.offset_for_time(partition, Epoch(3), TimeSearch::AtOrAfter(9)).await),
        format!("{:?}", broker.delete_topic_data(partition.topic).await),
        format!("{:?}", broker.append_stream().await.err()),
        format!("{:?}", broker.follow(partition, Epoch(3), Offset(4)).await.err()),
    ]
}

#[tokio::test]
async fn broker_answers_and_errors_pass() {
    for failure in [None, Some(ServiceError::not_applied(ErrorCode::NotOwner, "not here"))] {
        let straight = FakeBroker { failure: failure.clone(), ..FakeBroker::default() };
        let expected = ask_broker(&straight).await;
        let calls = Calls::default();
        let server = serve_broker(FakeBroker { failure, calls: Arc::clone(&calls), ..FakeBroker::default() }).await;
        assert_eq!(ask_broker(&broker_client_of(&server)).await, expected);
        assert_eq!(*calls.lock().unwrap(), *straight.calls.lock().unwrap());
        server.stop().await;
    }
}

fn item(id: u64, length: usize) -> AppendItem {
    let batch = vec![id as u8; length].into();
    AppendItem { id, channel: 1, generation: 2, partition: partition(), epoch: Epoch(3), ack: AckLevel::Stored, batch }
}

#[tokio::test]
async fn appends_are_answered_in_messages_of_a_good_size() {
    let fake = FakeBroker::default();
    let group_bytes = Arc::clone(&fake.group_bytes);
    let server = serve_broker(fake).await;
    let AppendStream { items, mut answers } = broker_client_of(&server).append_stream().await.unwrap();

    let lengths = |id: u64| if id == 20 { 5 << 20 } else { 100 << 10 };
    let all: Vec<_> = (0..40).map(|id| item(id, lengths(id))).collect();
    items.send(all).await.unwrap();
    let mut found = Vec::new();
    while found.len() < 40 {
        found.extend(answers.next().await.expect("the stream lives"));
    }
    let expected: Vec<_> = (0..40).map(|id| AppendAnswer { id, result: append_result(id) }).collect();
    assert_eq!(found, expected);
    let groups = group_bytes.lock().unwrap().clone();
    assert!(groups.iter().all(|bytes| *bytes <= STREAM_MESSAGE_BYTES || *bytes == 5 << 20), "{groups:?}");
    assert!(groups.len() < 10, "{groups:?}");

    drop(items);
    assert_eq!(answers.next().await, None, "the end of the items ends the answers");
    server.stop().await;
}

#[tokio::test]
async fn a_broken_stream_ends_the_answers() {
    let server = serve_broker(FakeBroker::default()).await;
    let AppendStream { items, mut answers } = broker_client_of(&server).append_stream().await.unwrap();
    items.send(vec![item(1, 10)]).await.unwrap();
    assert!(answers.next().await.is_some());
    server.stop().await;
    assert_eq!(answers.next().await, None);
    items.closed().await;
}

#[tokio::test]
async fn a_subscription_passes_and_ends_with_its_follower() {
    let (guard, _follows) = mpsc::channel::<()>(1);
    let server = serve_broker(FakeBroker { follow_guard: Some(guard.clone()), ..FakeBroker::default() }).await;
    let client = broker_client_of(&server);

    let tail = client.follow(partition(), Epoch::NONE, Offset(4)).await.unwrap();
    let moved = ServiceError::not_applied(ErrorCode::NotOwner, "moved");
    assert_eq!(tail.collect::<Vec<_>>().await, [Ok(tail_event(4)), Ok(tail_event(5)), Err(moved)]);

    let mut tail = client.follow(partition(), Epoch(3), Offset(4)).await.unwrap();
    assert_eq!(tail.next().await, Some(Ok(tail_event(4))));
    drop(tail);
    while guard.strong_count() > 2 {
        client.bounds(partition()).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn addresses_are_checked() {
    for address in ["", "host", "host:port", "https://host:1", "host:1/path", "host:99999", "ho st:1"] {
        let error = channel(address).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{address}");
    }
    for address in ["host:1", "http://host:1", "127.0.0.1:80", "[::1]:80"] {
        channel(address).unwrap();
    }
}

#[tokio::test]
async fn connecting_tells_whether_somebody_is_there() {
    let server = serve_meta(FakeMeta::default()).await;
    connect(&server.address.to_string()).await.unwrap();
    server.stop().await;
    let error = connect(&dead_address().await).await.unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Unavailable, Happened::NotApplied), "{error}");
}
