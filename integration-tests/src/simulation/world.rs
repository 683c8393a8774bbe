//! The simulated world: brokers, store, metadata, clients, readers, and what happens to them in order.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_partition::machine::Event;
use bmq_partition::{BatchRules, LogRules, PartitionConfig};
use bmq_proto::{ClusterId, PartitionId, TopicId, TopicPartition};
use bmq_storage::FolderPath;

use super::batch::Batches;
use super::broker::{Node, Running};
use super::checker::Checker;
use super::client::Lane;
use super::env::{Env, MS, SECOND};
use super::happening::{Happening, MachineId};
use super::model_meta::ModelMeta;
use super::model_store::ModelStore;
use super::reader::Follower;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
const TOPIC: TopicId = TopicId([9; 16]);

pub struct World {
    pub env: Env,
    pub store: ModelStore,
    pub meta: ModelMeta,
    pub nodes: Vec<Node>,
    pub machines: BTreeMap<MachineId, Running>,
    pub lanes: Vec<Lane>,
    pub followers: Vec<Follower>,
    pub batches: Batches,
    pub checker: Checker,
    pub config: PartitionConfig,
    pub next_machine: u32,
    pub next_stream: u64,
    /// When whatever has not come to rest by itself is called stuck.
    pub rest_by: u64,
    pub resting: bool,
    pub steps: u64,
}

impl World {
    pub fn new(seed: u64, print: bool) -> Self {
        // The kind of store is drawn from the seed, apart from the run's own dice: it decides which faults there are.
        let local = super::dice::Dice::new(seed ^ 0x5107).chance(350);
        let mut env = Env::new(seed, local, print);
        let partitions = if env.dice.chance(300) { 2 } else { 1 };
        let nodes = if env.dice.chance(300) { 3 } else { 2 };
        let folder = |partition| FolderPath::new(CLUSTER, topic_partition(partition));
        let store = ModelStore::new(local, (0..partitions).map(folder).collect());
        let mut config = random_config(&mut env);
        shorten_log(&mut config, &mut env, seed);
        let clients = partitions * env.dice.between(1, 3) as usize;
        let lanes = (0..clients).map(|number| Lane::new(number, number % partitions, &mut env)).collect();
        Self {
            env,
            store,
            meta: ModelMeta::new(partitions),
            nodes: (0..nodes).map(|_| Node::new(partitions)).collect(),
            machines: BTreeMap::new(),
            lanes,
            followers: (0..partitions).map(|_| Follower::default()).collect(),
            batches: Batches::default(),
            checker: Checker::new(partitions),
            config,
            next_machine: 0,
            next_stream: 0,
            rest_by: u64::MAX,
            resting: false,
            steps: 0,
        }
    }

    pub fn partitions(&self) -> usize {
        self.meta.partitions.len()
    }

    /// Runs to the end: chaos, healing, rest, the last reading.
    pub fn run(&mut self) {
        self.begin();
        while !self.resting && self.env.violation.is_none() {
            let Some(happening) = self.env.go_on() else {
                return self.env.violated(|| "nothing happens any more".to_owned());
            };
            self.steps += 1;
            self.take(happening);
        }
        if self.env.violation.is_none() {
            self.read_everything();
        }
    }

    fn begin(&mut self) {
        let long = self.env.dice.chance(250);
        let chaos = if long { self.env.dice.between(60, 150) } else { self.env.dice.between(4, 20) } * SECOND;
        if long {
            self.lanes.iter_mut().for_each(|lane| lane.pace *= 6);
        }
        for partition in 0..self.partitions() {
            let node = self.env.dice.below(self.nodes.len() as u64) as usize;
            self.want(partition, node);
        }
        for lane in 0..self.lanes.len() {
            self.env.after(MS, Happening::Produce { lane });
        }
        self.env.after(SECOND, Happening::Chaos);
        self.env.after(SECOND, Happening::ReadSegments);
        self.env.after(chaos, Happening::Heal);
    }

    pub fn take(&mut self, happening: Happening) {
        if let Some(node) = self.addressee(&happening)
            && self.nodes[node].paused_until > self.env.now
        {
            return self.nodes[node].held.push_back(happening);
        }
        match happening {
            Happening::Event(machine, event) => self.step(machine, event),
            Happening::Tick(machine) => self.tick(machine),
            Happening::StoreCall { machine, partition, call } => self.take_store_call(machine, partition, call),
            Happening::Land { key, .. } => self.store.land(key, &mut self.env),
            Happening::SyncEnds { machine, key } => self.store.end_sync(machine, key, &mut self.env),
            Happening::SyncAnswered { machine, key, answer } => {
                if let Some(event) = self.store.sync_answered(machine, key, answer, &mut self.env) {
                    self.step(machine, event);
                }
            }
            Happening::RecoveryEnds(key) => self.end_recovery(key),
            Happening::Command { machine, command, answered } => self.take_command(machine, command, answered),
            Happening::ReadHead { machine, partition } => self.take_head_read(machine, partition),
            Happening::ListGarbage { machine, partition } => self.list_garbage(machine, partition),
            Happening::IntentSeen { node, partition, wanted, version } => {
                self.see_intent(node, partition, wanted, version);
            }
            Happening::HeadSeen { node, partition, epoch } => self.see_head(node, partition, epoch),
            Happening::RouteSeen { lane, epoch, node } => self.lanes[lane].see_route(epoch, node),
            Happening::Reconcile { node, partition } => self.reconcile(node, partition),
            Happening::NodeContinues { node } => self.continue_node(node),
            Happening::NodeStarts { node, incarnation } => self.start_node(node, incarnation),
            Happening::Arrive { lane, stream, node, incarnation, items } => {
                self.take_appends(lane, stream, node, incarnation, items);
            }
            Happening::StreamGone { stream, node, incarnation } => self.forget_stream(stream, node, incarnation),
            Happening::Answer { lane, stream, batch, reply } => self.take_answer(lane, stream, batch, &reply),
            Happening::StreamLost { lane, stream } => self.lose_stream(lane, stream),
            Happening::Produce { lane } => self.produce(lane),
            Happening::ClientDeadline { lane, stream, batch, attempt } => {
                self.client_deadline(lane, stream, batch, attempt);
            }
            Happening::Tail { partition, published } => self.followers[partition].take(&published, &mut self.env),
            Happening::ReadSegments => self.read_segments(),
            Happening::Chaos => self.make_chaos(),
            Happening::Heal => self.heal(),
            Happening::CheckRest => self.check_rest(),
        }
    }

    /// The node whose process must be running for this to happen.
    fn addressee(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Event(machine, _) | Happening::Tick(machine) | Happening::SyncAnswered { machine, .. } => {
                self.machines.get(machine).map(|running| running.node)
            }
            Happening::IntentSeen { node, .. }
            | Happening::HeadSeen { node, .. }
            | Happening::Reconcile { node, .. }
            | Happening::Arrive { node, .. }
            | Happening::StreamGone { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Gives a running machine an event of the driver's own.
    pub fn tell(&mut self, machine: MachineId, event: Event) {
        self.env.after(MS / 100, Happening::Event(machine, event));
    }
}

pub fn topic_partition(partition: usize) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionId(partition as u32) }
}

/// Has records deleted in some runs, by users, by retention, or by both. Drawn apart from the run's own dice, so that
/// the other runs stay what they were.
fn shorten_log(config: &mut PartitionConfig, env: &mut Env, seed: u64) {
    let mut dice = super::dice::Dice::new(seed ^ 0x10_5801);
    if dice.chance(300) {
        env.faults.delete_records = *dice.pick(&[20, 60, 150]);
    }
    if dice.chance(300) {
        config.retention_interval = HumanDuration(Duration::from_millis(*dice.pick(&[500, 3000])));
        config.log.retention_bytes = Some(*dice.pick(&[0, 3000, 10_000]));
    }
}

/// Small sizes and short times, so that everything happens often.
fn random_config(env: &mut Env) -> PartitionConfig {
    let duration = |ns| HumanDuration(Duration::from_nanos(ns));
    PartitionConfig {
        segment_bytes: ByteSize(*env.dice.pick(&[1500, 4000, 12_000])),
        segment_age: duration(*env.dice.pick(&[2, 8, 60]) * SECOND),
        idle_after: duration(*env.dice.pick(&[1, 3, 10]) * SECOND),
        max_batch_bytes: ByteSize::mib(1),
        buffer_bytes: ByteSize(*env.dice.pick(&[1500, 4000, 20_000])),
        tail_bytes: ByteSize::mib(1),
        checkpoint_bytes: ByteSize(*env.dice.pick(&[1000, 5000])),
        checkpoint_interval: duration(*env.dice.pick(&[300, 2000]) * MS),
        rolls_per_minute: *env.dice.pick(&[8, 40, 200]),
        sealed_wait: duration(10 * SECOND),
        release_wait: duration(*env.dice.pick(&[200, 2000]) * MS),
        retention_interval: duration(SECOND),
        log: LogRules::default(),
        batches: BatchRules::default(),
        ..PartitionConfig::default()
    }
}
