//! The service over a memory store that fails when told to.

mod ambiguity;
mod flows;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::meta::{
    Checkpoint, CreateTopic, MetaService, NodeKind, OpenSession, Owner, PartitionCommand, PartitionCommandKind,
    PartitionView, SegmentEnd, SessionId,
};
use bmq_proto::{
    BytePosition, Epoch, FileId, Incarnation, NodeId, Offset, PartitionId, ServiceError, Term, TopicPartition,
};

use super::{MetaServer, MetaServerConfig};
use crate::store::faulty::FaultyStore;
use crate::store::{MemoryStore, SharedStore};

const HEADER: u64 = 512;
/// How long sessions live.
const TIME_TO_LIVE: Duration = Duration::from_secs(10);

async fn start(store: &SharedStore) -> MetaServer {
    let random = Random::from_seed(1);
    MetaServer::start(Arc::clone(store), MetaServerConfig::default(), random).await.unwrap()
}

fn file(epoch: u32, nonce: u64) -> FileId {
    FileId { epoch: Epoch(epoch), nonce }
}

fn end(offset: u64) -> SegmentEnd {
    SegmentEnd { offset: Offset(offset), position: BytePosition(HEADER + offset * 10) }
}

/// A service with one topic of one partition, meant for node 1.
struct Cluster {
    faults: Arc<FaultyStore>,
    store: SharedStore,
    meta: MetaServer,
    controller: SessionId,
    term: Term,
    partition: TopicPartition,
}

impl Cluster {
    async fn start() -> Self {
        let faults = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let store: SharedStore = faults.clone();
        let meta = start(&store).await;
        let request = CreateTopic { name: "orders".to_owned(), partitions: 1, config: Default::default() };
        let topic = meta.create_topic(request).await.unwrap();
        let partition = TopicPartition { topic: topic.id, partition: PartitionId(0) };
        let controller = open_session(&meta, NodeKind::Controller, 1, 1).await;
        let term = meta.acquire_term(controller).await.unwrap();
        let cluster = Self { faults, store, meta, controller, term, partition };
        cluster.intend(1).await;
        cluster
    }

    async fn intend(&self, node: u32) {
        self.meta.set_intents(self.term, vec![(self.partition, Some(NodeId(node)))]).await.unwrap();
    }

    async fn session(&self, kind: NodeKind, node: u32, incarnation: u64) -> SessionId {
        open_session(&self.meta, kind, node, incarnation).await
    }
}

async fn open_session(meta: &MetaServer, kind: NodeKind, node: u32, incarnation: u64) -> SessionId {
    let (node, incarnation) = (NodeId(node), Incarnation(incarnation));
    let (address, endpoints) = ("127.0.0.1:1".to_owned(), Default::default());
    let request = OpenSession { kind, node, incarnation, address, endpoints, time_to_live: TIME_TO_LIVE };
    meta.open_session(request).await.unwrap()
}

/// One owner of the partition.
struct Broker<'a> {
    cluster: &'a Cluster,
    epoch: Epoch,
    claimed: PartitionView,
    node: u32,
    nonce: u64,
}

impl<'a> Broker<'a> {
    async fn claim(cluster: &'a Cluster, node: u32) -> Self {
        Self::try_claim(cluster, node).await.unwrap()
    }

    async fn try_claim(cluster: &'a Cluster, node: u32) -> Result<Self, ServiceError> {
        let mut broker = Self { cluster, epoch: Epoch::NONE, claimed: PartitionView::default(), node, nonce: 0 };
        let owner = Owner { node: NodeId(node), incarnation: Incarnation(1) };
        broker.claimed = broker.send(PartitionCommandKind::Claim { owner }).await?;
        broker.epoch = broker.claimed.head.epoch;
        Ok(broker)
    }

    /// The command, with a nonce of its own.
    fn command(&mut self, kind: PartitionCommandKind) -> PartitionCommand {
        self.nonce += 1;
        let nonce = u64::from(self.node) << 48 | u64::from(self.epoch.0) << 32 | self.nonce;
        PartitionCommand { partition: self.cluster.partition, nonce, now_ms: 0, kind }
    }

    async fn send(&mut self, kind: PartitionCommandKind) -> Result<PartitionView, ServiceError> {
        let command = self.command(kind);
        self.cluster.meta.command(command).await
    }

    async fn finish_recovery(
        &mut self,
        found: Option<(FileId, SegmentEnd)>,
        start: u64,
    ) -> Result<PartitionView, ServiceError> {
        let epoch = self.epoch;
        self.send(PartitionCommandKind::FinishRecovery { epoch, found, start: Offset(start) }).await
    }

    fn opening(&self, nonce: u64, seal: Option<SegmentEnd>) -> PartitionCommandKind {
        let base_offset = seal.map_or(self.claimed.head.sealed_end, |end| end.offset);
        let (epoch, start_position) = (self.epoch, BytePosition(HEADER));
        PartitionCommandKind::OpenSegment { epoch, file: file(epoch.0, nonce), start_position, base_offset, seal }
    }

    async fn open(&mut self, nonce: u64, seal: Option<SegmentEnd>) -> Result<PartitionView, ServiceError> {
        self.send(self.opening(nonce, seal)).await
    }

    async fn close(&mut self, base_offset: u64, nonce: u64) -> Result<PartitionView, ServiceError> {
        let (epoch, file) = (self.epoch, file(self.epoch.0, nonce));
        let base_offset = Offset(base_offset);
        self.send(PartitionCommandKind::CloseSegment { epoch, base_offset, file, max_timestamp_ms: None }).await
    }

    async fn checkpoint(&mut self, nonce: u64, offset: u64) -> Result<PartitionView, ServiceError> {
        let SegmentEnd { offset, position } = end(offset);
        let checkpoint = Checkpoint { epoch: self.epoch, file: file(self.epoch.0, nonce), position, offset };
        self.send(PartitionCommandKind::Checkpoint { checkpoint }).await
    }
}
