//! The maps behind the directory: pure, but that connecting to a broker makes a handle.
//!
//! Invariants:
//! * a head is replaced only by one of a higher version, while its topic exists;
//! * every subscribed route equals what [`State::resolve`] says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bmq_common::Shutdown;
use bmq_proto::broker::{BrokerConnector, BrokerService};
use bmq_proto::coordinator::{CoordinatorConnector, CoordinatorService};
use bmq_proto::meta::{MetaChange, NodeKind, Owner, PartitionHead, SessionRecord, TopicRecord, TopicState};
use bmq_proto::{Epoch, Incarnation, NodeId, Offset, TopicId, TopicPartition};
use tokio::sync::watch;

/// Where a partition is served, as far as is known.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Route {
    /// Version of the head that this was read from.
    pub version: u64,
    pub epoch: Epoch,
    /// First offset written under `epoch`.
    pub epoch_start: Offset,
    pub log_start: Offset,
    /// First offset that no sealed segment holds.
    pub sealed_end: Offset,
    /// The broker that has finished its claim under `epoch` and is alive.
    pub owner: Option<RouteOwner>,
    /// The same of a partition that holds groups: its owner is a coordinator, and `owner` is none.
    pub coordinator: Option<RouteCoordinator>,
    /// The topic was deleted.
    pub topic_gone: bool,
}

/// A partition's owner, ready to be asked.
pub struct Serving<S: ?Sized> {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub service: Arc<S>,
    /// Begins when the node's session ends: whoever waits for its answer may wait for ever.
    pub gone: Shutdown,
}

/// The owner of a partition of records.
pub type RouteOwner = Serving<dyn BrokerService>;
/// The owner of a partition of groups.
pub type RouteCoordinator = Serving<dyn CoordinatorService>;

impl<S: ?Sized> Clone for Serving<S> {
    fn clone(&self) -> Self {
        let Self { node, incarnation, service, gone } = self;
        Self { node: *node, incarnation: *incarnation, service: Arc::clone(service), gone: gone.clone() }
    }
}

impl<S: ?Sized> PartialEq for Serving<S> {
    fn eq(&self, other: &Self) -> bool {
        (self.node, self.incarnation) == (other.node, other.incarnation)
    }
}

impl<S: ?Sized> fmt::Debug for Serving<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "node {} ({})", self.node, self.incarnation)
    }
}

/// The part of a head that routing needs.
#[derive(Debug, Clone, Copy)]
struct Head {
    version: u64,
    epoch: Epoch,
    epoch_start: Offset,
    log_start: Offset,
    sealed_end: Offset,
    /// The owner, once it has finished recovery.
    owner: Option<Owner>,
}

impl Head {
    fn of(head: &PartitionHead) -> Self {
        let current = head.epoch_chain.last().filter(|last| last.epoch == head.epoch);
        Self {
            version: head.version,
            epoch: head.epoch,
            epoch_start: current.map_or(head.sealed_end, |last| last.start),
            log_start: head.log_start,
            sealed_end: head.sealed_end,
            owner: head.owner.filter(|_| head.recovered),
        }
    }
}

/// The nodes of one kind that have sessions.
struct Peers<S: ?Sized>(HashMap<NodeId, Peer<S>>);

struct Peer<S: ?Sized> {
    record: SessionRecord,
    service: Arc<S>,
    gone: Shutdown,
}

impl<S: ?Sized> Drop for Peer<S> {
    fn drop(&mut self) {
        self.gone.begin();
    }
}

impl<S: ?Sized> Peers<S> {
    fn knows(&self, record: &SessionRecord) -> bool {
        self.0.get(&record.node).is_some_and(|known| known.record == *record)
    }

    fn put(&mut self, record: SessionRecord, service: Arc<S>) {
        self.0.insert(record.node, Peer { record, service, gone: Shutdown::new() });
    }

    fn serving(&self, owner: Owner) -> Option<Serving<S>> {
        let peer = self.0.get(&owner.node).filter(|known| known.record.incarnation == owner.incarnation)?;
        let Owner { node, incarnation } = owner;
        Some(Serving { node, incarnation, service: Arc::clone(&peer.service), gone: peer.gone.clone() })
    }
}

/// See the head of the file.
pub(super) struct State {
    broker_connector: Arc<dyn BrokerConnector>,
    coordinator_connector: Arc<dyn CoordinatorConnector>,
    topics: HashMap<TopicId, Arc<TopicRecord>>,
    names: HashMap<String, TopicId>,
    heads: HashMap<TopicPartition, Head>,
    brokers: Peers<dyn BrokerService>,
    coordinators: Peers<dyn CoordinatorService>,
    proxies: BTreeMap<NodeId, Arc<SessionRecord>>,
    routes: HashMap<TopicPartition, watch::Sender<Route>>,
    /// Topics looked up since the newest snapshot began: it may be older than they are.
    looked_up: HashSet<TopicId>,
}

impl State {
    pub fn new(
        broker_connector: Arc<dyn BrokerConnector>,
        coordinator_connector: Arc<dyn CoordinatorConnector>,
    ) -> Self {
        Self {
            broker_connector,
            coordinator_connector,
            topics: HashMap::new(),
            names: HashMap::new(),
            heads: HashMap::new(),
            brokers: Peers(HashMap::new()),
            coordinators: Peers(HashMap::new()),
            proxies: BTreeMap::new(),
            routes: HashMap::new(),
            looked_up: HashSet::new(),
        }
    }

    /// The topic of that name, if it is known and in use.
    pub fn topic(&self, name: &str) -> Option<Arc<TopicRecord>> {
        self.names.get(name).and_then(|id| self.topics.get(id)).cloned()
    }

    /// The topic of that id, if it is known and in use.
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<TopicRecord>> {
        self.topics.get(&id).cloned()
    }

    /// All topics known and in use, in no order.
    pub fn topics(&self) -> Vec<Arc<TopicRecord>> {
        self.topics.values().cloned().collect()
    }

    /// All proxies, by node.
    pub fn proxies(&self) -> Vec<Arc<SessionRecord>> {
        self.proxies.values().cloned().collect()
    }

    pub fn has_topic(&self, topic: TopicId) -> bool {
        self.topics.contains_key(&topic)
    }

    pub fn epoch(&self, partition: TopicPartition) -> Epoch {
        self.heads.get(&partition).map_or(Epoch::NONE, |head| head.epoch)
    }

    pub fn log_start(&self, partition: TopicPartition) -> Offset {
        self.heads.get(&partition).map_or(Offset::ZERO, |head| head.log_start)
    }

    /// Takes in a topic that was read linearizably.
    pub fn observe_topic(&mut self, topic: TopicRecord) -> Arc<TopicRecord> {
        self.looked_up.insert(topic.id);
        self.put_topic(topic)
    }

    /// What was told late never takes away partitions: they only grow.
    fn put_topic(&mut self, topic: TopicRecord) -> Arc<TopicRecord> {
        if let Some(known) = self.topics.get(&topic.id).filter(|known| known.partitions > topic.partitions) {
            return Arc::clone(known);
        }
        let topic = Arc::new(topic);
        self.names.insert(topic.name.clone(), topic.id);
        let known = self.topics.insert(topic.id, Arc::clone(&topic));
        if known.is_none() && topic.owner_kind() != NodeKind::Broker {
            topic.partition_ids().for_each(|partition| self.publish(partition));
        }
        topic
    }

    pub fn put_head(&mut self, partition: TopicPartition, head: &PartitionHead) {
        if self.heads.get(&partition).is_some_and(|known| known.version >= head.version) {
            return;
        }
        self.heads.insert(partition, Head::of(head));
        self.publish(partition);
    }

    /// A route that somebody has asked for before.
    pub fn subscribed(&self, partition: TopicPartition) -> Option<watch::Receiver<Route>> {
        self.routes.get(&partition).map(watch::Sender::subscribe)
    }

    pub fn subscribe(&mut self, partition: TopicPartition) -> watch::Receiver<Route> {
        if let Some(route) = self.subscribed(partition) {
            return route;
        }
        let (sender, receiver) = watch::channel(self.resolve(partition));
        self.routes.insert(partition, sender);
        receiver
    }

    /// Takes in one change of the watch.
    pub fn apply(&mut self, change: MetaChange) {
        match change {
            MetaChange::Topic(topic) if topic.state == TopicState::Active => drop(self.put_topic(topic)),
            MetaChange::Topic(topic) => self.drop_topic(topic.id),
            MetaChange::TopicGone(id) => self.drop_topic(id),
            MetaChange::Session(record) => self.put_session(record),
            MetaChange::SessionGone(NodeKind::Broker, node) => {
                self.brokers.0.remove(&node);
                self.publish_owned_by(node);
            }
            MetaChange::SessionGone(NodeKind::Coordinator, node) => {
                self.coordinators.0.remove(&node);
                self.publish_owned_by(node);
            }
            MetaChange::SessionGone(NodeKind::Proxy, node) => drop(self.proxies.remove(&node)),
            MetaChange::Head(partition, head) => self.put_head(partition, &head),
            MetaChange::HeadGone(partition) => {
                self.heads.remove(&partition);
                self.publish(partition);
            }
            MetaChange::SessionGone(..) | MetaChange::Intent(..) | MetaChange::IntentGone(_) => {}
        }
    }

    /// To be called before the first change of a snapshot of all records.
    pub fn begin_snapshot(&mut self) {
        self.looked_up.clear();
    }

    /// Drops what a snapshot of all records does not name. Topics and brokers that it names must be applied before.
    pub fn retain(&mut self, named: &Named) {
        let gone: Vec<TopicId> = {
            let is_gone = |id: &&TopicId| !named.topics.contains(*id) && !self.looked_up.contains(*id);
            self.topics.keys().filter(is_gone).copied().collect()
        };
        gone.into_iter().for_each(|id| self.drop_topic(id));
        self.heads.retain(|partition, _| named.heads.contains(partition));
        self.brokers.0.retain(|node, _| named.brokers.contains(node));
        self.coordinators.0.retain(|node, _| named.coordinators.contains(node));
        self.proxies.retain(|node, _| named.proxies.contains(node));
        self.routes.retain(|_, route| route.receiver_count() > 0);
        let subscribed: Vec<TopicPartition> = self.routes.keys().copied().collect();
        subscribed.into_iter().for_each(|partition| self.publish(partition));
    }

    fn put_session(&mut self, record: SessionRecord) {
        let node = record.node;
        match record.kind {
            NodeKind::Proxy => drop(self.proxies.insert(node, Arc::new(record))),
            NodeKind::Broker if !self.brokers.knows(&record) => {
                let service = self.broker_connector.connect(&record);
                self.brokers.put(record, service);
                self.publish_owned_by(node);
            }
            NodeKind::Coordinator if !self.coordinators.knows(&record) => {
                let service = self.coordinator_connector.connect(&record);
                self.coordinators.put(record, service);
                self.publish_owned_by(node);
            }
            NodeKind::Broker | NodeKind::Coordinator | NodeKind::Controller => {}
        }
    }

    fn drop_topic(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.remove(&id)
            && self.names.get(&topic.name) == Some(&id)
        {
            self.names.remove(&topic.name);
        }
        self.heads.retain(|partition, _| partition.topic != id);
        for (_, route) in self.routes.iter().filter(|(partition, _)| partition.topic == id) {
            route.send_modify(|route| {
                *route = Route { owner: None, coordinator: None, topic_gone: true, ..route.clone() };
            });
        }
        self.routes.retain(|partition, route| partition.topic != id || route.receiver_count() > 0);
    }

    fn resolve(&self, partition: TopicPartition) -> Route {
        let Some(head) = self.heads.get(&partition) else {
            return Route::default();
        };
        let kind = self.topics.get(&partition.topic).map_or(NodeKind::Broker, |topic| topic.owner_kind());
        let (owner, coordinator) = match kind {
            NodeKind::Coordinator => (None, head.owner.and_then(|owner| self.coordinators.serving(owner))),
            _ => (head.owner.and_then(|owner| self.brokers.serving(owner)), None),
        };
        Route {
            version: head.version,
            epoch: head.epoch,
            epoch_start: head.epoch_start,
            log_start: head.log_start,
            sealed_end: head.sealed_end,
            owner,
            coordinator,
            topic_gone: false,
        }
    }

    fn publish_owned_by(&mut self, node: NodeId) {
        let is_owned = |partition: &&TopicPartition| {
            self.heads.get(*partition).and_then(|head| head.owner).is_some_and(|owner| owner.node == node)
        };
        let owned: Vec<TopicPartition> = self.routes.keys().filter(is_owned).copied().collect();
        owned.into_iter().for_each(|partition| self.publish(partition));
    }

    /// Tells those who follow the partition's route, if it changed; forgets it if nobody does.
    fn publish(&mut self, partition: TopicPartition) {
        let Some(route) = self.routes.get(&partition) else {
            return;
        };
        if route.receiver_count() == 0 {
            self.routes.remove(&partition);
            return;
        }
        let now = self.resolve(partition);
        route.send_if_modified(|known| {
            let changed = !known.topic_gone && *known != now;
            if changed {
                *known = now;
            }
            changed
        });
    }
}

/// What a snapshot of all records named.
#[derive(Debug, Default)]
pub(super) struct Named {
    topics: HashSet<TopicId>,
    heads: HashSet<TopicPartition>,
    brokers: HashSet<NodeId>,
    coordinators: HashSet<NodeId>,
    proxies: HashSet<NodeId>,
}

impl Named {
    pub fn add(&mut self, change: &MetaChange) {
        match change {
            MetaChange::Topic(topic) => drop(self.topics.insert(topic.id)),
            MetaChange::Head(partition, _) => drop(self.heads.insert(*partition)),
            MetaChange::Session(record) => match record.kind {
                NodeKind::Broker => drop(self.brokers.insert(record.node)),
                NodeKind::Coordinator => drop(self.coordinators.insert(record.node)),
                NodeKind::Proxy => drop(self.proxies.insert(record.node)),
                NodeKind::Controller => {}
            },
            _ => {}
        }
    }
}
