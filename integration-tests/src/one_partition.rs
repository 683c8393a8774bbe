//! One partition over a real metadata service and any segment store, in this process: the smallest thing that shows
//! claims, rolls and takeovers as they happen, without network or processes around it.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::SystemClock;
use bmq_common::metrics::Metrics;
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_common::tasks::Tasks;
use bmq_meta::{MemoryStore as MetaRecords, MetaServer, MetaServerConfig};
use bmq_partition::{
    AppendMail, AppendReply, Lane, PartitionConfig, PartitionContext, PartitionHandle, PartitionMetrics,
    PartitionStatus, TailRead, ValidatedBatch,
};
use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::meta::{
    CreateTopic, GarbageRecord, MetaService, NodeKind, OpenSession, Owner, PartitionView, SegmentRecord, TopicConfig,
};
use bmq_proto::record_batch::{BatchBuilder, Codec, ProducerKey, Record, RecordLimits, records, split_batches};
use bmq_proto::{ClusterId, Incarnation, NodeId, Offset, ServiceError, Term, TopicPartition};
use bmq_storage::{FolderPath, SegmentStore};
use bytes::Bytes;
use tokio::sync::oneshot;

/// The partition's surroundings, which outlive its owners.
pub struct OnePartition {
    pub meta: Arc<MetaServer>,
    pub store: Arc<dyn SegmentStore>,
    pub cluster: ClusterId,
    pub partition: TopicPartition,
    pub config: PartitionConfig,
    random: Random,
    term: Term,
    tasks: Tasks,
}

/// A node's claim on the partition.
pub struct OwnerNode {
    pub handle: PartitionHandle,
}

impl OnePartition {
    pub async fn new(store: Arc<dyn SegmentStore>, config: PartitionConfig) -> Self {
        let random = Random::from_os();
        let meta = MetaServer::start(Arc::new(MetaRecords::new()), MetaServerConfig::default(), random.clone());
        let meta = Arc::new(meta.await.expect("the metadata service starts over an empty store"));
        let cluster = meta.cluster().await.expect("the cluster has a record").cluster;
        let topic = CreateTopic { name: "events".to_owned(), partitions: 1, config: TopicConfig::new() };
        let topic = meta.create_topic(topic).await.expect("the name is free");
        let session = meta
            .open_session(OpenSession {
                kind: NodeKind::Controller,
                node: NodeId(1),
                incarnation: Incarnation(1),
                address: String::new(),
                endpoints: Default::default(),
                time_to_live: Duration::from_secs(600),
            })
            .await
            .expect("a session opens");
        let term = meta.acquire_term(session).await.expect("nobody else leads");
        let partition = topic.partition_ids().next().expect("the topic has a partition");
        let tasks = Tasks::new(Shutdown::new());
        Self { meta, store, cluster, partition, config, random, term, tasks }
    }

    /// Has the controller want `node`, and starts the partition there. Returns once it serves.
    pub async fn claim(&self, node: u32) -> OwnerNode {
        let owner = self.begin_claim(node).await;
        let mut status = owner.handle.status();
        let end = status.wait_for(|status| *status != PartitionStatus::Starting).await.expect("the partition lives");
        assert_eq!(*end, PartitionStatus::Serving);
        owner
    }

    /// As `claim`, without waiting.
    pub async fn begin_claim(&self, node: u32) -> OwnerNode {
        let intents = vec![(self.partition, Some(NodeId(node)))];
        self.meta.set_intents(self.term, intents).await.expect("the term is current");
        let context = PartitionContext {
            cluster: self.cluster,
            me: Owner { node: NodeId(node), incarnation: Incarnation(self.random.next_u64()) },
            meta: self.meta.clone(),
            store: self.store.clone(),
            clock: SystemClock::shared(),
            random: self.random.clone(),
            metrics: PartitionMetrics::register(&Metrics::new()),
            compactions: Default::default(),
        };
        let (handle, task) = bmq_partition::open(context, self.partition, self.config.clone());
        self.tasks.spawn("partition", async move {
            task.await;
        });
        OwnerNode { handle }
    }

    /// The partition's records in metadata.
    pub async fn view(&self) -> PartitionView {
        self.meta.partition(self.partition).await.expect("metadata answers")
    }

    /// Files that wait to be deleted.
    pub async fn meta_garbage(&self) -> Vec<GarbageRecord> {
        self.meta.garbage(self.partition).await.expect("metadata answers")
    }

    pub fn folder(&self) -> FolderPath {
        FolderPath::new(self.cluster, self.partition)
    }

    /// Waits until metadata looks as wished.
    pub async fn wait_for(&self, wish: impl Fn(&PartitionView) -> bool) -> PartitionView {
        loop {
            let view = self.view().await;
            if wish(&view) {
                return view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every value that closed segments hold, in order, read as a stranger would: by the records and the files alone.
    pub async fn read_closed(&self) -> Vec<Bytes> {
        let mut values = Vec::new();
        for segment in self.view().await.segments {
            assert!(segment.is_closed(), "{segment:?}");
            let end = segment.end().expect("a closed segment has an end").position;
            let path = self.folder().segment(segment.file);
            let bytes = self.store.read(path, segment.start_position, end).await.expect("a closed file is readable");
            values.extend(values_of(&bytes));
        }
        values
    }

    /// Every record that closed segments hold, in order: offset, key and value, read as `read_closed` does.
    pub async fn read_closed_records(&self) -> Vec<Record> {
        let mut found = Vec::new();
        for segment in self.view().await.segments.into_iter().filter(SegmentRecord::is_closed) {
            let end = segment.end().expect("a closed segment has an end").position;
            let path = self.folder().segment(segment.file);
            let bytes = self.store.read(path, segment.start_position, end).await.expect("a closed file is readable");
            for batch in split_batches(&bytes) {
                let (_, batch) = batch.expect("whole batches");
                let opened = records(&batch, &RecordLimits::default()).expect("a readable batch");
                found.extend(opened.map(|record| record.expect("a readable record")));
            }
        }
        found
    }

    /// Ends all tasks.
    pub async fn stop(self) {
        self.tasks.shutdown().begin();
        let _ = self.tasks.join(Duration::ZERO).await;
        self.meta.stop().await;
    }
}

impl OwnerNode {
    /// Begins an append; the answer comes later.
    pub async fn begin_append(&self, lane: u64, ack: AckLevel, batch: Bytes) -> oneshot::Receiver<AppendReply> {
        let (answer, answered) = oneshot::channel();
        let mail = AppendMail {
            lane: Lane { stream: 1, channel: lane },
            generation: 0,
            epoch: self.handle.tail().bounds().epoch,
            ack,
            batch: ValidatedBatch::check(batch, 1 << 20),
            reply: Box::new(move |reply| drop(answer.send(reply))),
        };
        self.handle.append(mail).await;
        answered
    }

    /// Appends one value with a stored ack.
    pub async fn append(&self, value: &str) -> Result<Appended, ServiceError> {
        self.begin_append(0, AckLevel::Stored, batch_of(value)).await.await.expect("every append is answered")
    }

    /// Every value that the owner itself can give from `from` on.
    pub fn read_memory(&self, from: Offset) -> Vec<Bytes> {
        match self.handle.tail().read(from, usize::MAX) {
            TailRead::Batches { bytes, .. } => values_of(&bytes),
            other => panic!("not in memory: {other:?}"),
        }
    }
}

/// A batch of one record without a producer.
pub fn batch_of(value: &str) -> Bytes {
    build(value, None)
}

/// A batch of one record of an idempotent producer.
pub fn batch_of_producer(value: &str, producer: i64, sequence: i32) -> Bytes {
    build(value, Some((ProducerKey { id: producer, epoch: 0 }, sequence)))
}

fn build(value: &str, producer: Option<(ProducerKey, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1_000);
    builder.append(1_000, None, Some(value.as_bytes()), &[]).expect("a small record fits");
    if let Some((key, sequence)) = producer {
        builder.set_producer(key, sequence);
    }
    builder.build()
}

/// A batch with a record for each key and value; without a value it deletes the key.
pub fn batch_of_keys(pairs: &[(&str, Option<&str>)]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::Lz4, 1_000);
    for (key, value) in pairs {
        builder.append(1_000, Some(key.as_bytes()), value.map(str::as_bytes), &[]).expect("a small record fits");
    }
    builder.build()
}

/// The values of all records in whole batches.
pub fn values_of(bytes: &Bytes) -> Vec<Bytes> {
    let mut values = Vec::new();
    for batch in split_batches(bytes) {
        let (_, batch) = batch.expect("whole batches");
        for record in records(&batch, &RecordLimits::default()).expect("a readable batch") {
            values.push(record.expect("a readable record").value.expect("a value"));
        }
    }
    values
}
