//! Fakes of both services, and a server around them, for the tests of the gRPC forms.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use bmq_common::Shutdown;
use futures::{FutureExt, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use super::listener::{Limits, ServeError, serve};
use crate::broker::*;
use crate::meta::*;
use crate::*;

/// A server on a free port; it is stopped when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    task: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    pub async fn start(routes: impl FnOnce(Shutdown) -> Routes, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(serve(listener, routes(shutdown.clone()), shutdown.clone(), limits));
        Self { address, shutdown, task }
    }

    /// Begins the shutdown and waits until nothing is left.
    pub async fn stop(mut self) {
        self.shutdown.begin();
        (&mut self.task).await.unwrap().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.begin();
        self.task.abort();
    }
}

/// The text forms of all calls that a fake has seen.
pub type Calls = Arc<Mutex<Vec<String>>>;

fn file() -> FileId {
    FileId { epoch: Epoch(3), nonce: 4 }
}

pub fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId([7; 16]), partition: PartitionId(2) }
}

fn topic() -> TopicRecord {
    let config = [("retention.ms".to_owned(), "7".to_owned())].into();
    TopicRecord { id: TopicId([7; 16]), name: "orders".into(), partitions: 3, config, state: TopicState::Active }
}

fn session() -> SessionRecord {
    let endpoints = [("inside".to_owned(), "127.0.0.1:10".to_owned())].into();
    let (node, incarnation) = (NodeId(5), Incarnation(6));
    SessionRecord { kind: NodeKind::Proxy, node, incarnation, address: "127.0.0.1:9".into(), endpoints }
}

/// A view of more segments than fit into one message of a stream.
pub fn view() -> PartitionView {
    let end = |number: u64| SegmentEnd { offset: Offset(number + 1), position: BytePosition(600) };
    let segment = |number| SegmentRecord {
        file: FileId { epoch: Epoch(3), nonce: number },
        epoch: Epoch(3),
        base_offset: Offset(number),
        start_position: BytePosition(512),
        state: SegmentState::Closed { end: end(number) },
        floor: None,
        created_at_ms: 8,
        sealed_at_ms: 9,
        max_timestamp_ms: Some(7),
        compacted: false,
    };
    let checkpoint = Checkpoint { epoch: Epoch(3), file: file(), position: BytePosition(600), offset: Offset(2_500) };
    PartitionView {
        head: PartitionHead { version: 9, epoch: Epoch(3), ..PartitionHead::default() },
        segments: (0..2_500).map(segment).collect(),
        checkpoint: Some(checkpoint),
    }
}

pub fn watch_events() -> Vec<WatchEvent> {
    let mut events = vec![WatchEvent::Reset, WatchEvent::Change(MetaChange::Topic(topic())), WatchEvent::Synced];
    events.extend((0..1_000).map(|node| WatchEvent::Change(MetaChange::SessionGone(NodeKind::Broker, NodeId(node)))));
    events
}

/// Answers each call with a constant, or with `failure`.
#[derive(Default)]
pub struct FakeMeta {
    pub failure: Option<ServiceError>,
    /// Every call hangs.
    pub hangs: bool,
    pub calls: Calls,
    /// Dropped with each watch.
    pub watch_guard: Option<mpsc::Sender<()>>,
}

impl FakeMeta {
    async fn answer<T>(&self, call: String, answer: T) -> Result<T, ServiceError> {
        self.calls.lock().unwrap().push(call);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.failure.clone().map_or(Ok(answer), Err)
    }
}

#[async_trait]
impl MetaService for FakeMeta {
    async fn cluster(&self) -> Result<ClusterRecord, ServiceError> {
        self.answer("cluster".into(), ClusterRecord { cluster: ClusterId([1; 16]), feature_level: 1 }).await
    }
    async fn create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        self.answer(format!("{request:?}"), topic()).await
    }
    async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        self.answer(format!("delete {name}"), topic()).await
    }
    async fn alter_topic_config(&self, name: &str, changes: ConfigChanges) -> Result<TopicRecord, ServiceError> {
        self.answer(format!("alter {name} {changes:?}"), topic()).await
    }
    async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
        self.answer(format!("add partitions {name} {total}"), topic()).await
    }
    async fn purge_topic(&self, term: Term, topic: TopicId) -> Result<bool, ServiceError> {
        self.answer(format!("purge {term} {topic}"), true).await
    }
    async fn list_topics(&self) -> Result<Vec<TopicRecord>, ServiceError> {
        self.answer("list topics".into(), vec![topic(), topic()]).await
    }
    async fn topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError> {
        self.answer(format!("topic {name}"), (name == "orders").then(topic)).await
    }
    async fn open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError> {
        self.answer(format!("{request:?}"), SessionId(u64::MAX)).await
    }
    async fn keep_alive(&self, session: SessionId) -> Result<(), ServiceError> {
        self.answer(format!("keep alive {session:?}"), ()).await
    }
    async fn close_session(&self, session: SessionId) -> Result<(), ServiceError> {
        self.answer(format!("close {session:?}"), ()).await
    }
    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError> {
        self.answer("list sessions".into(), vec![session()]).await
    }
    async fn acquire_term(&self, session: SessionId) -> Result<Term, ServiceError> {
        self.answer(format!("term {session:?}"), Term(11)).await
    }
    async fn set_intents(
        &self,
        term: Term,
        intents: Vec<(TopicPartition, Option<NodeId>)>,
    ) -> Result<(), ServiceError> {
        self.answer(format!("intents {term} {intents:?}"), ()).await
    }
    async fn command(&self, command: PartitionCommand) -> Result<PartitionView, ServiceError> {
        self.answer(format!("{command:?}"), view()).await
    }
    async fn head(&self, partition: TopicPartition) -> Result<PartitionHead, ServiceError> {
        self.answer(format!("head {partition}"), view().head).await
    }
    async fn partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError> {
        self.answer(format!("partition {partition}"), view()).await
    }
    async fn segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError> {
        self.answer(format!("segments {partition} {from} {limit}"), PartitionView::default()).await
    }
    async fn garbage(&self, partition: TopicPartition) -> Result<Vec<GarbageRecord>, ServiceError> {
        self.answer(format!("garbage {partition}"), vec![GarbageRecord { file: file(), dropped_at_ms: -1 }]).await
    }
    async fn allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError> {
        self.answer(format!("ids {count}"), 1_000).await
    }
    async fn watch(&self, scope: WatchScope) -> Result<WatchStream, ServiceError> {
        let guard = self.watch_guard.clone();
        let events = stream::iter(watch_events()).map(Ok).chain(stream::once(async move {
            let _guard = guard;
            std::future::pending().await
        }));
        self.answer(format!("{scope:?}"), events.boxed()).await
    }
}

pub fn bounds() -> PartitionBounds {
    PartitionBounds { epoch: Epoch(3), log_start: Offset(1), high_watermark: Offset(9) }
}

pub fn tail_event(base: u64) -> TailEvent {
    TailEvent {
        bounds: bounds(),
        base_offset: Offset(base),
        next_offset: Offset(base + 1),
        batches: vec![1; 10].into(),
    }
}

/// Answers each call with a constant, or with `failure`.
#[derive(Default)]
pub struct FakeBroker {
    pub failure: Option<ServiceError>,
    pub calls: Calls,
    /// Bytes of batches of each group of items that came.
    pub group_bytes: Arc<Mutex<Vec<usize>>>,
    /// Dropped with each subscription.
    pub follow_guard: Option<mpsc::Sender<()>>,
}

impl FakeBroker {
    fn answer<T>(&self, call: String, answer: T) -> Result<T, ServiceError> {
        self.calls.lock().unwrap().push(call);
        self.failure.clone().map_or(Ok(answer), Err)
    }
}

#[async_trait]
impl BrokerService for FakeBroker {
    /// Takes items with an even id at that offset, and refuses the others.
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        let (items, queue) = mpsc::channel(1);
        let group_bytes = Arc::clone(&self.group_bytes);
        let answers = ReceiverStream::new(queue).map(move |group: Vec<AppendItem>| {
            group_bytes.lock().unwrap().push(group.iter().map(|item| item.batch.len()).sum());
            group.into_iter().map(|item| AppendAnswer { id: item.id, result: append_result(item.id) }).collect()
        });
        self.answer("append stream".into(), AppendStream { items, answers: answers.boxed() })
    }
    async fn read(&self, request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        let batches = vec![5; request.max_bytes as usize].into();
        self.answer(format!("{request:?}"), OwnerBatches { bounds: bounds(), batches })
    }
    async fn bounds(&self, partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        self.answer(format!("bounds {partition}"), bounds())
    }
    /// Two events and then, as asked by the epoch, an error or nothing more.
    async fn follow(&self, partition: TopicPartition, epoch: Epoch, from: Offset) -> Result<TailStream, ServiceError> {
        let guard = self.follow_guard.clone();
        let moved = ServiceError::not_applied(ErrorCode::NotOwner, "moved");
        let end = async move {
            let _guard = guard;
            if epoch == Epoch::NONE { Err(moved) } else { std::future::pending().await }
        };
        let events = stream::iter([Ok(tail_event(from.0)), Ok(tail_event(from.0 + 1))]).chain(end.into_stream());
        self.answer(format!("follow {partition} {epoch} {from}"), events.boxed())
    }
    async fn delete_records(&self, at: TopicPartition, epoch: Epoch, before: Offset) -> Result<Offset, ServiceError> {
        self.answer(format!("delete records {at} {epoch} {before}"), Offset(before.0 - 1))
    }
    async fn offset_for_time(
        &self,
        at: TopicPartition,
        epoch: Epoch,
        search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        let hint = TimeHint { from: Offset(6), timestamp_ms: 8 };
        let found = (search != TimeSearch::AtOrAfter(9)).then_some(hint);
        self.answer(format!("offset for time {at} {epoch} {search:?}"), found)
    }
    async fn producers(&self, at: TopicPartition, epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        let key = crate::record_batch::ProducerKey { id: 7, epoch: 2 };
        let producer = ActiveProducer { key, last_sequence: 9, last_timestamp_ms: -1 };
        self.answer(format!("producers {at} {epoch}"), vec![producer])
    }
    async fn delete_topic_data(&self, topic: TopicId) -> Result<(), ServiceError> {
        self.answer(format!("delete {topic}"), ())
    }
}

pub fn append_result(id: u64) -> Result<Appended, ServiceError> {
    if id % 2 == 1 {
        return Err(ServiceError::not_applied(ErrorCode::Busy, "the queue is full"));
    }
    Ok(Appended { base_offset: Offset(id), deduplicated: id.is_multiple_of(4), append_time_ms: Some(5) })
}
