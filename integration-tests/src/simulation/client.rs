//! The clients: each lane is one client connection that appends to one partition, as a proxy forwards it.
//!
//! The rules that a sender keeps:
//! * at most five batches from the oldest unanswered on are in flight, in order, all under one epoch;
//! * after a refusal it waits for what is in flight, and starts again from the first refused under a higher generation;
//! * while a batch of unknown fate is sent again, later ones wait;
//! * what may have been appended is sent again only with a producer id, or by a client that wants it at least once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bmq_partition::AppendReply;
use bmq_proto::broker::AckLevel;
use bmq_proto::record_batch::ProducerKey;
use bmq_proto::{Epoch, ErrorCode, Happened, ServiceError};

use super::batch::{Batches, LaneKind, NewBatch};
use super::env::{Env, MS};
use super::happening::Item;

/// Batches in flight, as Kafka's clients have them.
const IN_FLIGHT: usize = 5;
/// Batches that a client holds before it makes no new ones.
const HELD: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    pub id: u64,
    pub node: usize,
    pub incarnation: u64,
    /// When the last message arrives: a stream keeps its order.
    pub last_arrival: u64,
}

#[derive(Debug)]
pub struct Lane {
    pub partition: usize,
    pub kind: LaneKind,
    /// How many of a thousand batches ask for a memory ack only.
    memory_per_mille: u32,
    pub pace: u64,
    producer: Option<ProducerKey>,
    next_sequence: i32,
    next_place: usize,
    pub stream: Option<Stream>,
    generation: u32,
    /// Not answered for good, in order.
    pub pending: VecDeque<usize>,
    in_flight: BTreeMap<usize, u32>,
    /// Sent, and perhaps appended.
    unknown: BTreeSet<usize>,
    /// Something was refused: nothing more is sent until nothing is in flight.
    draining: bool,
    /// The producer starts again under a new epoch once nothing is in flight.
    renewing: bool,
    /// Since the producer's epoch began, something was answered from memory: it may have been lost.
    memory_acked: bool,
    pub route: Option<(Epoch, usize)>,
    known_epoch: Epoch,
    used_epoch: Epoch,
    attempts: u32,
}

impl Lane {
    pub fn new(number: usize, partition: usize, env: &mut Env) -> Self {
        let kind = *env.dice.pick(&[
            LaneKind::Idempotent,
            LaneKind::Idempotent,
            LaneKind::Idempotent,
            LaneKind::PlainDrop,
            LaneKind::PlainRetry,
        ]);
        let producer = (kind == LaneKind::Idempotent).then_some(ProducerKey { id: number as i64 + 1, epoch: 0 });
        Self {
            partition,
            kind,
            memory_per_mille: *env.dice.pick(&[0, 0, 0, 300, 1000]),
            pace: env.dice.between(15 * MS, 150 * MS),
            producer,
            next_sequence: 0,
            next_place: 0,
            stream: None,
            generation: 1,
            pending: VecDeque::new(),
            in_flight: BTreeMap::new(),
            unknown: BTreeSet::new(),
            draining: false,
            renewing: false,
            memory_acked: false,
            route: None,
            known_epoch: Epoch::NONE,
            used_epoch: Epoch::NONE,
            attempts: 0,
        }
    }

    pub fn see_route(&mut self, epoch: Epoch, node: Option<usize>) {
        if epoch >= self.known_epoch {
            self.known_epoch = epoch;
            self.route = node.map(|node| (epoch, node));
        }
    }

    /// Makes a batch, unless too many wait.
    pub fn make(&mut self, number: usize, batches: &mut Batches, env: &mut Env) {
        if self.pending.len() < HELD {
            let records = env.dice.between(1, 3) as u32;
            let value_len = env.dice.between(10, 200) as usize;
            let memory = env.dice.chance(self.memory_per_mille);
            let ack = if memory { AckLevel::Memory } else { AckLevel::Stored };
            self.add(number, ack, records, value_len, batches);
        }
    }

    fn add(&mut self, number: usize, ack: AckLevel, records: u32, value_len: usize, batches: &mut Batches) {
        let producer = self.producer.map(|key| (key, self.next_sequence));
        let place = self.next_place;
        let (kind, after_memory_acks) = (self.kind, self.memory_per_mille > 0);
        let new = NewBatch { lane: number, place, kind, ack, after_memory_acks, producer, records, value_len };
        self.pending.push_back(batches.make(new));
        self.next_sequence += records as i32;
        self.next_place += 1;
    }

    /// Whether a route may be taken that differs from the last one.
    pub fn may_change_route(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub fn used_epoch(&self) -> Epoch {
        self.used_epoch
    }

    /// What to send now over the lane's stream, at most as many as may be in flight.
    pub fn next_items(&mut self, number: usize, epoch: Epoch, batches: &mut Batches, env: &mut Env) -> Vec<Item> {
        if self.draining {
            if !self.in_flight.is_empty() {
                return Vec::new();
            }
            self.draining = false;
            self.generation += 1;
        }
        if self.renewing {
            self.renew(number, batches, env);
        }
        self.used_epoch = epoch;
        let stream = self.stream.map_or(0, |stream| stream.id);
        let mut items = Vec::new();
        // Counted from the oldest not answered, since answers of different ack levels overtake each other: the owner
        // remembers the last five of a producer, so only those can be told from new ones.
        let window = self.pending.front().map_or(0, |oldest| batches.info(*oldest).place) + IN_FLIGHT;
        for batch in &self.pending {
            if batches.info(*batch).place >= window {
                break;
            }
            let alone = self.unknown.contains(batch);
            if !self.in_flight.contains_key(batch) {
                self.attempts += 1;
                self.in_flight.insert(*batch, self.attempts);
                let info = batches.info_mut(*batch);
                info.stream = stream;
                if alone {
                    info.retried = true;
                    env.coverage.hit("client: retries unknown");
                }
                items.push(Item { batch: *batch, generation: self.generation, epoch });
            }
            if alone {
                break;
            }
        }
        items
    }

    /// The attempt under which a batch is in flight.
    pub fn attempt(&self, batch: usize) -> Option<u32> {
        self.in_flight.get(&batch).copied()
    }

    pub fn take_answer(&mut self, batch: usize, reply: &AppendReply, batches: &Batches, env: &mut Env) {
        if self.in_flight.remove(&batch).is_none() {
            return env.violated(|| format!("batch {batch} was answered twice: {reply:?}"));
        }
        match reply {
            Ok(appended) => {
                let memory = batches.info(batch).ack == AckLevel::Memory;
                self.memory_acked |= memory;
                env.coverage.hit(match (appended.deduplicated, memory) {
                    (true, _) => "answer: deduplicated",
                    (false, true) => "answer: memory",
                    (false, false) => "answer: stored",
                });
                self.resolve(batch);
            }
            Err(error) => self.take_error(batch, error, env),
        }
    }

    fn take_error(&mut self, batch: usize, error: &ServiceError, env: &mut Env) {
        if error.happened == Happened::Unknown {
            env.coverage.hit("answer: unknown");
            self.leave_unknown(batch);
            return;
        }
        self.draining = true;
        match error.code {
            ErrorCode::NotOwner => env.coverage.hit("answer: not owner"),
            ErrorCode::OutOfTurn => env.coverage.hit("answer: out of turn"),
            ErrorCode::Busy => env.coverage.hit("answer: busy"),
            ErrorCode::InvalidBatch => env.coverage.hit("answer: invalid batch"),
            ErrorCode::Damaged => env.coverage.hit("answer: damaged"),
            ErrorCode::OutOfOrderSequence if self.memory_acked => {
                env.coverage.hit("answer: out of order sequence");
                self.renewing = true;
            }
            _ => env.violated(|| format!("batch {batch} was refused for no reason: {error:?}")),
        }
    }

    /// The partition lost what it knew of producers: this one may have to start again.
    pub fn excuse(&mut self) {
        self.memory_acked = self.kind == LaneKind::Idempotent;
    }

    fn leave_unknown(&mut self, batch: usize) {
        if self.kind == LaneKind::PlainDrop {
            self.resolve(batch);
        } else {
            self.unknown.insert(batch);
            self.draining = true;
        }
    }

    fn resolve(&mut self, batch: usize) {
        self.pending.retain(|pending| *pending != batch);
        self.unknown.remove(&batch);
    }

    /// The stream ended: what was in flight is unknown.
    pub fn lose_stream(&mut self) {
        self.stream = None;
        for (batch, _) in std::mem::take(&mut self.in_flight) {
            self.leave_unknown(batch);
        }
    }

    /// Some of what the producer was told was taken is gone: it starts again under a new epoch, as Kafka's clients do.
    fn renew(&mut self, number: usize, batches: &mut Batches, env: &mut Env) {
        env.coverage.hit("client: new producer epoch");
        self.renewing = false;
        self.memory_acked = false;
        self.producer = self.producer.map(|key| ProducerKey { id: key.id, epoch: key.epoch + 1 });
        self.next_sequence = 0;
        self.unknown.clear();
        for old in std::mem::take(&mut self.pending) {
            let info = batches.info(old);
            let (ack, records, value_len) = (info.ack, info.records, 20);
            self.add(number, ack, records, value_len, batches);
        }
    }
}
