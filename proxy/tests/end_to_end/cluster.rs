//! A proxy on loopback, over fakes of everything behind it.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{ByteSize, HumanDuration, Metrics, Random, Readiness, Shutdown, SystemClock};
use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::{
    CreateTopic, EpochStart, MetaService, NodeKind, Owner, PartitionHead, SessionRecord, TopicConfig,
};
use bmq_proto::record_batch::{BatchBuilder, Codec, ProducerKey};
use bmq_proto::rpc::{Limits, channel, serve};
use bmq_proto::v1::admin_client::AdminClient;
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::*;
use bmq_proxy::kafka::KafkaListener;
use bmq_proxy::{ProxyComponents, ProxyConfig, Server};
use bmq_storage::MemoryStore;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::fake_broker::{FakeBroker, FakeConnector, Logs};
use crate::fake_coordinator::{FakeCoordinator, FakeCoordinators};
use crate::fake_meta::FakeMeta;
use crate::kafka_client::KafkaClient;

/// Longer than anything here takes; a test that waits this long has failed.
pub const LONG: Duration = Duration::from_secs(20);

pub const TOPIC: &str = "orders";

pub struct Cluster {
    pub meta: Arc<FakeMeta>,
    pub logs: Arc<Logs>,
    pub brokers: Vec<Arc<FakeBroker>>,
    pub store: MemoryStore,
    pub metrics: Metrics,
    pub messaging: MessagingClient<Channel>,
    pub admin: AdminClient<Channel>,
    pub partition: TopicPartition,
    pub coordinator: Arc<FakeCoordinator>,
    /// The shard of all groups.
    pub shard: TopicPartition,
    kafka_address: String,
    shutdown: Shutdown,
    running: Vec<JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.begin();
        self.running.iter().for_each(JoinHandle::abort);
    }
}

impl Cluster {
    /// Two brokers; a topic of one partition, owned by the first.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let mut config = ProxyConfig::default();
        config.fetch.heartbeat_interval = HumanDuration::millis(100);
        config.produce.connection_bytes = ByteSize::mib(4);
        config.produce.max_batch_bytes = ByteSize::mib(1);
        change(&mut config);

        let (meta, logs) = (FakeMeta::new(), Arc::new(Logs::default()));
        let connector = Arc::new(FakeConnector::default());
        let brokers: Vec<_> = [1, 2].map(|node| FakeBroker::new(node, Arc::clone(&logs))).into();
        for broker in &brokers {
            connector.brokers.lock().insert(broker.node, Arc::clone(broker));
            let (kind, node, incarnation) = (NodeKind::Broker, broker.node, Incarnation(broker.node.0.into()));
            meta.put_session(SessionRecord {
                kind,
                node,
                incarnation,
                address: String::new(),
                endpoints: Default::default(),
            });
        }
        let topic = CreateTopic { name: TOPIC.to_owned(), partitions: 1, config: TopicConfig::new() };
        let partition = meta.create_topic(topic).await.unwrap().partition_ids().next().unwrap();

        let (coordinator, shard) = start_coordinator(&meta).await;
        let kafka = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kafka_address = kafka.local_addr().unwrap().to_string();
        let (store, metrics) = (MemoryStore::new(), Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let components = ProxyComponents {
            meta: Arc::clone(&meta) as Arc<dyn MetaService>,
            store: Arc::new(store.clone()),
            brokers: connector,
            coordinators: Arc::new(FakeCoordinators(Arc::clone(&coordinator))),
            address: address.clone(),
            kafka: vec![KafkaListener { name: "PLAIN".to_owned(), socket: kafka, advertised: kafka_address.clone() }],
            clock: SystemClock::shared(),
            random: Random::from_seed(1),
            metrics: metrics.clone(),
            readiness: Readiness::new(),
        };
        let server = Server::build(config, components).await.unwrap();
        let (routes, shutdown) = (server.grpc_routes(), Shutdown::new());
        let serving = serve(listener, routes, shutdown.clone(), Limits::default());
        let running =
            vec![tokio::spawn(async move { serving.await.unwrap() }), tokio::spawn(server.run(shutdown.clone()))];
        let channel = channel(&address).unwrap();
        let cluster = Self {
            meta,
            logs,
            brokers,
            store,
            metrics,
            messaging: MessagingClient::new(channel.clone()),
            admin: AdminClient::new(channel),
            partition,
            coordinator,
            shard,
            kafka_address,
            shutdown,
            running,
        };
        cluster.give_to(0);
        cluster
    }

    /// A new connection of a Kafka client.
    pub async fn kafka(&self) -> KafkaClient {
        KafkaClient::connect(&self.kafka_address).await
    }

    /// Whether the metadata says that the coordinator owns the shard of the groups.
    pub fn coordinator_owns_groups(&self, owns: bool) {
        self.meta.change_head(self.shard, |head| own_by_coordinator(head, owns));
    }

    /// Moves the partition to a broker, under the next epoch.
    pub fn give_to(&self, broker: usize) {
        self.depose(broker);
        self.announce(broker);
    }

    /// The storage knows of the new owner; the metadata does not tell yet.
    pub fn depose(&self, broker: usize) {
        let node = self.brokers[broker].node;
        self.logs.with(self.partition, |log| {
            log.owner = Some(node);
            log.epoch = log.epoch.next();
        });
    }

    pub fn announce(&self, broker: usize) {
        let node = self.brokers[broker].node;
        let (epoch, start) = self.logs.with(self.partition, |log| (log.epoch, log.end()));
        self.meta.change_head(self.partition, |head| {
            head.epoch = epoch;
            head.owner = Some(Owner { node, incarnation: Incarnation(node.0.into()) });
            head.recovered = true;
            head.epoch_chain.push(EpochStart { epoch, start });
        });
    }

    /// The values in the log, in order.
    pub fn values(&self) -> Vec<String> {
        self.logs.with(self.partition, |log| log.batches.iter().flat_map(|(_, batch)| values_of(batch)).collect())
    }

    /// Appends without the proxy.
    pub async fn append(&self, value: &str) {
        let records = vec![record(value)];
        let request = v1::SendRequest { topic: TOPIC.into(), partition: Some(0), ack: 0, records };
        self.messaging.clone().send(request).await.unwrap();
    }

    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line =
            text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub async fn poll(&self, position: v1::position::At, min_bytes: u32, wait: Duration) -> PollResult {
        let request = v1::PollRequest {
            topic: TOPIC.into(),
            partition: 0,
            position: Some(v1::Position { at: Some(position) }),
            min_bytes,
            max_wait_ms: wait.as_millis() as u32,
            max_bytes: 0,
        };
        let mut client = self.messaging.clone();
        match in_time(client.poll(request)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(rpc::status::detail_from_public_status(&status)),
        }
    }
}

/// A coordinator that owns the only shard of the groups.
async fn start_coordinator(meta: &Arc<FakeMeta>) -> (Arc<FakeCoordinator>, TopicPartition) {
    let (kind, node, incarnation) = (NodeKind::Coordinator, NodeId(1), Incarnation(77));
    let (address, endpoints) = (String::new(), Default::default());
    meta.put_session(SessionRecord { kind, node, incarnation, address, endpoints });
    let topic = CreateTopic { name: GROUPS_TOPIC.to_owned(), partitions: 1, config: TopicConfig::new() };
    let shard = meta.create_topic(topic).await.unwrap().partition_ids().next().unwrap();
    meta.change_head(shard, |head| own_by_coordinator(head, true));
    (Arc::new(FakeCoordinator::default()), shard)
}

fn own_by_coordinator(head: &mut PartitionHead, owns: bool) {
    head.epoch = head.epoch.next();
    head.owner = owns.then_some(Owner { node: NodeId(1), incarnation: Incarnation(77) });
    head.recovered = owns;
}

pub type PollResult = Result<v1::PollResponse, v1::ErrorDetail>;

pub fn at(offset: u64) -> v1::position::At {
    v1::position::At::Offset(offset)
}

pub fn earliest() -> v1::position::At {
    v1::position::At::Earliest(v1::Edge {})
}

pub fn latest() -> v1::position::At {
    v1::position::At::Latest(v1::Edge {})
}

pub fn polled_values(answer: &v1::PollResponse) -> Vec<String> {
    answer.records.iter().map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap()).collect()
}

pub fn record(value: &str) -> v1::Record {
    v1::Record { key: None, value: Some(value.to_owned().into()), headers: Vec::new(), timestamp_ms: Some(1) }
}

/// A batch of one record, of an idempotent producer if a sequence is given.
pub fn batch(value: &[u8], producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1);
    if let Some((id, sequence)) = producer {
        builder.set_producer(ProducerKey { id, epoch: 0 }, sequence);
    }
    builder.append(1, None, Some(value), &[]).unwrap();
    builder.build()
}

pub fn values_of(batches: &Bytes) -> Vec<String> {
    let limits = record_batch::RecordLimits::default();
    let batches = record_batch::split_batches(batches).map(|batch| batch.unwrap().1);
    let records = batches.flat_map(|batch| record_batch::records(&batch, &limits).unwrap().collect::<Vec<_>>());
    records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
}

/// Fails the test instead of hanging.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}
