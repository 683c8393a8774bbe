//! Metadata in memory, as far as a proxy uses it, with a gate before linearizable reads of heads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bmq_proto::meta::*;
use bmq_proto::*;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

#[derive(Default)]
struct State {
    topics: BTreeMap<TopicId, TopicRecord>,
    sessions: BTreeMap<(NodeKind, NodeId), SessionRecord>,
    heads: BTreeMap<TopicPartition, PartitionHead>,
    segments: BTreeMap<TopicPartition, Vec<SegmentRecord>>,
    watchers: Vec<mpsc::UnboundedSender<Result<WatchEvent, ServiceError>>>,
}

pub struct FakeMeta {
    pub cluster: ClusterId,
    state: Mutex<State>,
    next_id: AtomicU64,
    /// Heads are read only while this is true.
    pub heads_readable: watch::Sender<bool>,
    /// How many reads of heads were begun.
    pub head_reads: watch::Sender<u64>,
}

impl FakeMeta {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            cluster: ClusterId::random(),
            state: Mutex::default(),
            next_id: AtomicU64::new(0),
            heads_readable: watch::Sender::new(true),
            head_reads: watch::Sender::new(0),
        })
    }

    pub fn put_session(&self, session: SessionRecord) {
        let mut state = self.state.lock();
        state.sessions.insert((session.kind, session.node), session.clone());
        state.tell(MetaChange::Session(session));
    }

    pub fn end_session(&self, kind: NodeKind, node: NodeId) {
        let mut state = self.state.lock();
        state.sessions.remove(&(kind, node));
        state.tell(MetaChange::SessionGone(kind, node));
    }

    /// Changes a head as a transaction does.
    pub fn change_head(&self, partition: TopicPartition, change: impl FnOnce(&mut PartitionHead)) {
        let mut state = self.state.lock();
        let head = state.heads.entry(partition).or_default();
        change(head);
        head.version += 1;
        let head = head.clone();
        state.tell(MetaChange::Head(partition, head));
    }

    pub fn put_segments(&self, partition: TopicPartition, segments: Vec<SegmentRecord>) {
        self.state.lock().segments.insert(partition, segments);
        self.change_head(partition, |_| {});
    }

    pub fn end_watches(&self) {
        let error = ServiceError::not_applied(ErrorCode::Unavailable, "the watch is cut");
        for watcher in self.state.lock().watchers.drain(..) {
            let _ = watcher.send(Err(error.clone()));
        }
    }
}

impl State {
    fn tell(&mut self, change: MetaChange) {
        self.watchers.retain(|watcher| watcher.send(Ok(WatchEvent::Change(change.clone()))).is_ok());
    }

    fn change_topic(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut TopicRecord) -> Result<(), ServiceError>,
    ) -> Result<TopicRecord, ServiceError> {
        let Some(mut topic) = self.find(name) else {
            return Err(ServiceError::not_applied(ErrorCode::UnknownTopic, "there is no such topic"));
        };
        change(&mut topic)?;
        self.topics.insert(topic.id, topic.clone());
        self.tell(MetaChange::Topic(topic.clone()));
        Ok(topic)
    }

    fn find(&self, name: &str) -> Option<TopicRecord> {
        self.topics.values().find(|topic| topic.name == name).cloned()
    }
}

fn unsupported<T>() -> Result<T, ServiceError> {
    Err(ServiceError::not_applied(ErrorCode::Unsupported, "a proxy does not ask for that"))
}

#[async_trait]
impl MetaService for FakeMeta {
    async fn cluster(&self) -> Result<ClusterRecord, ServiceError> {
        Ok(ClusterRecord { cluster: self.cluster, feature_level: 1 })
    }

    async fn create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        let CreateTopic { name, partitions, config } = request;
        let mut state = self.state.lock();
        if state.find(&name).is_some() {
            return Err(ServiceError::not_applied(ErrorCode::TopicExists, "the name is taken"));
        }
        let topic = TopicRecord { id: TopicId::random(), name, partitions, config, state: TopicState::Active };
        state.topics.insert(topic.id, topic.clone());
        state.tell(MetaChange::Topic(topic.clone()));
        Ok(topic)
    }

    async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        let mut state = self.state.lock();
        let Some(mut topic) = state.find(name) else {
            return Err(ServiceError::not_applied(ErrorCode::UnknownTopic, "there is no such topic"));
        };
        topic.state = TopicState::Deleting;
        state.topics.insert(topic.id, topic.clone());
        state.tell(MetaChange::Topic(topic.clone()));
        Ok(topic)
    }

    async fn alter_topic_config(&self, name: &str, changes: ConfigChanges) -> Result<TopicRecord, ServiceError> {
        self.state.lock().change_topic(name, |topic| {
            topic.config = apply_config_changes(&topic.config, &changes)?;
            Ok(())
        })
    }

    async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
        self.state.lock().change_topic(name, |topic| {
            topic.partitions = total;
            Ok(())
        })
    }

    async fn list_topics(&self) -> Result<Vec<TopicRecord>, ServiceError> {
        Ok(self.state.lock().topics.values().cloned().collect())
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError> {
        Ok(self.state.lock().find(name))
    }

    async fn open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError> {
        let OpenSession { kind, node, incarnation, address, endpoints, .. } = request;
        self.put_session(SessionRecord { kind, node, incarnation, address, endpoints });
        Ok(SessionId(self.next_id.fetch_add(1, Ordering::Relaxed)))
    }

    async fn keep_alive(&self, _session: SessionId) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn close_session(&self, _session: SessionId) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError> {
        Ok(self.state.lock().sessions.values().cloned().collect())
    }

    async fn head(&self, partition: TopicPartition) -> Result<PartitionHead, ServiceError> {
        self.head_reads.send_modify(|reads| *reads += 1);
        self.heads_readable.subscribe().wait_for(|readable| *readable).await.unwrap();
        Ok(self.state.lock().heads.get(&partition).cloned().unwrap_or_default())
    }

    async fn partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError> {
        self.segments_from(partition, Offset::ZERO, usize::MAX).await
    }

    async fn segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError> {
        let state = self.state.lock();
        let segments = state.segments.get(&partition).cloned().unwrap_or_default();
        let reaches = |segment: &SegmentRecord| segment.end().is_none_or(|end| end.offset > from);
        let segments = segments.into_iter().filter(reaches).take(limit).collect();
        Ok(PartitionView { head: state.heads.get(&partition).cloned().unwrap_or_default(), segments, checkpoint: None })
    }

    async fn allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError> {
        Ok(self.next_id.fetch_add(count.into(), Ordering::Relaxed))
    }

    async fn watch(&self, _scope: WatchScope) -> Result<WatchStream, ServiceError> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        let topics = state.topics.values().cloned().map(MetaChange::Topic);
        let sessions = state.sessions.values().cloned().map(MetaChange::Session);
        let heads = state.heads.iter().map(|(partition, head)| MetaChange::Head(*partition, head.clone()));
        sender.send(Ok(WatchEvent::Reset)).unwrap();
        topics.chain(sessions).chain(heads).for_each(|change| sender.send(Ok(WatchEvent::Change(change))).unwrap());
        sender.send(Ok(WatchEvent::Synced)).unwrap();
        state.watchers.push(sender);
        Ok(UnboundedReceiverStream::new(events).boxed())
    }

    async fn purge_topic(&self, _term: Term, _topic: TopicId) -> Result<bool, ServiceError> {
        unsupported()
    }

    async fn acquire_term(&self, _session: SessionId) -> Result<Term, ServiceError> {
        unsupported()
    }

    async fn set_intents(
        &self,
        _term: Term,
        _intents: Vec<(TopicPartition, Option<NodeId>)>,
    ) -> Result<(), ServiceError> {
        unsupported()
    }

    async fn command(&self, _command: PartitionCommand) -> Result<PartitionView, ServiceError> {
        unsupported()
    }

    async fn garbage(&self, _partition: TopicPartition) -> Result<Vec<GarbageRecord>, ServiceError> {
        unsupported()
    }
}
