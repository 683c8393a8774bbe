//! All partitions of one producer, and what may be sent next. Pure: time comes in with each call.
//!
//! Invariants:
//! * no more is outstanding than the server has given credit for;
//! * partitions that have something to send take turns;
//! * every batch that began is in `unresolved` until each of its records has an answer.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bmq_common::Random;
use bmq_proto::record_batch::ProducerKey;
use bmq_proto::{ErrorCode, v1};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch::Taken;
use super::partitioner::{Sticky, partition_for};
use super::queue::{Queue, Resolved, Rules};
use crate::Error;

/// The place of a partition in `State::lanes`.
type LaneIndex = usize;

/// The producer's state.
pub(super) struct State {
    rules: Rules,
    random: Random,
    topics: HashMap<Arc<str>, Topic>,
    lanes: Vec<Lane>,
    /// Lanes that may send now, in turn. Each stands here at most once.
    sendable: VecDeque<LaneIndex>,
    /// When to look at a lane again.
    timers: BTreeSet<(Instant, LaneIndex)>,
    /// By wire number: which lane a batch in flight belongs to.
    in_flight: HashMap<u64, LaneIndex>,
    next_wire: u64,
    producer: Option<ProducerKey>,
    /// `None` while there is no stream.
    credit: Option<Credit>,
    /// Why there was no stream, or why the last batch was refused.
    last_error: Option<Error>,
    next_number: u64,
    unresolved: BTreeSet<u64>,
    /// Each waits until all batches below the number are resolved.
    flushes: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Topics that are not as they were thought to be.
    stale_topics: Vec<Arc<str>>,
}

struct Topic {
    lanes: Vec<Option<LaneIndex>>,
    sticky: Sticky,
}

/// One partition.
struct Lane {
    topic: Arc<str>,
    partition: u32,
    queue: Queue,
    is_sendable: bool,
    /// The timer for the end of its oldest batch's time, if one stands.
    expiry: Option<Instant>,
}

struct Credit {
    bytes: u64,
    batches: u64,
    /// All that the server gives at the beginning; a larger batch can never be sent.
    initial_bytes: u64,
}

impl State {
    pub fn new(rules: Rules, random: Random) -> Self {
        Self {
            rules,
            random,
            topics: HashMap::new(),
            lanes: Vec::new(),
            sendable: VecDeque::new(),
            timers: BTreeSet::new(),
            in_flight: HashMap::new(),
            next_wire: 0,
            producer: None,
            credit: None,
            last_error: None,
            next_number: 0,
            unresolved: BTreeSet::new(),
            flushes: VecDeque::new(),
            stale_topics: Vec::new(),
        }
    }

    /// Whether any record waits for its answer.
    pub fn has_work(&self) -> bool {
        !self.unresolved.is_empty()
    }

    /// Whether a new stream must ask for a producer id.
    pub fn needs_producer_id(&self) -> bool {
        self.rules.idempotent && self.producer.is_none()
    }

    /// Takes a record.
    pub fn add(&mut self, taken: Taken, now: Instant) {
        let lane = self.lane_for(&taken);
        let number = self.next_number;
        let began = self.lanes[lane].queue.add(taken, number, &self.rules, now);
        if began {
            self.next_number += 1;
            self.unresolved.insert(number);
        }
        self.look_at(lane, now);
    }

    fn lane_for(&mut self, taken: &Taken) -> LaneIndex {
        let count = taken.partition_count;
        let topic = self.topics.entry(Arc::clone(&taken.topic)).or_insert_with(|| Topic {
            lanes: Vec::new(),
            sticky: Sticky::new(count, self.rules.batch_bytes, &self.random),
        });
        let lanes = &self.lanes;
        let open = |partition: u32| {
            let lane = topic.lanes.get(partition as usize).copied().flatten();
            lane.is_some_and(|lane| lanes[lane].queue.has_open_batch())
        };
        let partition = partition_for(&taken.record, count, &mut topic.sticky, &self.random, open);
        let place = partition as usize;
        if topic.lanes.len() <= place {
            topic.lanes.resize(place + 1, None);
        }
        *topic.lanes[place].get_or_insert_with(|| {
            let queue = Queue::new(partition);
            let topic = Arc::clone(&taken.topic);
            self.lanes.push(Lane { topic, partition, queue, is_sendable: false, expiry: None });
            self.lanes.len() - 1
        })
    }

    /// `done` hears when every record taken before has its answer. Nothing lingers meanwhile.
    pub fn flush(&mut self, done: oneshot::Sender<()>, now: Instant) {
        for lane in 0..self.lanes.len() {
            self.lanes[lane].queue.close_last();
            self.look_at(lane, now);
        }
        self.flushes.push_back((self.next_number, done));
        self.finish_flushes();
    }

    /// A stream is up.
    pub fn open(&mut self, producer: Option<ProducerKey>, credit: v1::Credit) {
        if self.producer.is_none() {
            self.producer = producer;
        }
        self.credit = Some(Credit { bytes: credit.bytes, batches: credit.batches, initial_bytes: credit.bytes });
    }

    /// The stream broke, or could not be opened.
    pub fn disconnect(&mut self, error: Error, now: Instant) {
        self.credit = None;
        self.in_flight.clear();
        let mut resolved = Resolved::new();
        for lane in 0..self.lanes.len() {
            self.lanes[lane].queue.disconnect(&error, &self.rules, &mut resolved);
            self.look_at(lane, now);
        }
        self.last_error = Some(error);
        self.resolve(resolved);
    }

    /// Fails all that waits: there is no use in going on.
    pub fn fail_all(&mut self, error: &Error) {
        let mut resolved = Resolved::new();
        for lane in &mut self.lanes {
            while !lane.queue.is_empty() {
                lane.queue.fail_next(error, &mut resolved);
            }
        }
        self.resolve(resolved);
    }

    /// The next batch to be sent, if one may be.
    pub fn next(&mut self, now: Instant) -> Option<v1::ProduceBatch> {
        loop {
            let credit = self.credit.as_mut()?;
            let lane_index = *self.sendable.front()?;
            let lane = &mut self.lanes[lane_index];
            if lane.queue.ready_at(&self.rules).is_none_or(|at| at > now) {
                self.leave_turn(lane_index, now);
                continue;
            }
            let len = lane.queue.next_len() as u64;
            if len > credit.initial_bytes {
                let text = format!("batch of {len} bytes, the server takes at most {}", credit.initial_bytes);
                let mut resolved = Resolved::new();
                lane.queue.fail_next(&Error::not_applied(ErrorCode::MessageTooLarge, text), &mut resolved);
                self.resolve(resolved);
                continue;
            }
            if credit.batches == 0 || credit.bytes < len {
                return None;
            }
            let wire = self.next_wire;
            self.next_wire += 1;
            let mut resolved = Resolved::new();
            let Some(bytes) = lane.queue.send(wire, self.producer, &mut resolved) else {
                self.resolve(resolved);
                continue;
            };
            // Compressed bytes that grew may cost a little more than was looked for.
            credit.bytes = credit.bytes.saturating_sub(bytes.len() as u64);
            credit.batches -= 1;
            self.in_flight.insert(wire, lane_index);
            let (topic, partition) = (lane.topic.to_string(), lane.partition);
            self.leave_turn(lane_index, now);
            let payload = Some(v1::produce_batch::Payload::Batch(bytes));
            return Some(v1::ProduceBatch { sequence: wire, topic, partition, payload });
        }
    }

    /// Takes the front of `sendable` out, perhaps to the back.
    fn leave_turn(&mut self, lane: LaneIndex, now: Instant) {
        let front = self.sendable.pop_front();
        assert_eq!(front, Some(lane), "the lane had its turn");
        self.lanes[lane].is_sendable = false;
        self.look_at(lane, now);
    }

    /// What became of a batch.
    pub fn result(&mut self, result: v1::ProduceResult, now: Instant) {
        let wire = result.sequence;
        // Unknown numbers are those of batches that have expired.
        let Some(lane_index) = self.in_flight.remove(&wire) else { return };
        let lane = &mut self.lanes[lane_index];
        let mut resolved = Resolved::new();
        match result.error.map(Error::from) {
            None => lane.queue.succeed(wire, result.base_offset, result.deduplicated, &mut resolved),
            Some(error) => {
                if matches!(error.code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) {
                    self.stale_topics.push(Arc::clone(&lane.topic));
                }
                lane.queue.refuse(wire, &error, &self.rules, now, &self.random, &mut resolved);
                self.last_error = Some(error);
            }
        }
        self.resolve(resolved);
        self.look_at(lane_index, now);
    }

    /// More that may be sent.
    pub fn add_credit(&mut self, more: v1::Credit) {
        if let Some(credit) = &mut self.credit {
            credit.bytes = credit.bytes.saturating_add(more.bytes);
            credit.batches = credit.batches.saturating_add(more.batches);
        }
    }

    /// When [`State::on_time`] is to be called next.
    pub fn wake_at(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Instant) {
        while let Some((at, lane_index)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let lane = &mut self.lanes[lane_index];
            lane.expiry = lane.expiry.filter(|expiry| *expiry != at);
            let mut resolved = Resolved::new();
            lane.queue.expire(&self.rules, now, self.last_error.as_ref(), &mut resolved);
            self.resolve(resolved);
            self.look_at(lane_index, now);
        }
    }

    /// Topics whose partitions should be looked up again.
    pub fn take_stale_topics(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.stale_topics)
    }

    /// Puts the lane in line to send, or sets the timer for when it may.
    fn look_at(&mut self, lane_index: LaneIndex, now: Instant) {
        let lane = &mut self.lanes[lane_index];
        if lane.expiry.is_none()
            && let Some(at) = lane.queue.expires_at(&self.rules)
        {
            lane.expiry = Some(at);
            self.timers.insert((at, lane_index));
        }
        if lane.is_sendable {
            return;
        }
        match lane.queue.ready_at(&self.rules) {
            Some(at) if at <= now => {
                lane.is_sendable = true;
                self.sendable.push_back(lane_index);
            }
            Some(at) => {
                self.timers.insert((at, lane_index));
            }
            None => {}
        }
    }

    fn resolve(&mut self, resolved: Resolved) {
        for number in resolved {
            self.unresolved.remove(&number);
        }
        self.finish_flushes();
    }

    fn finish_flushes(&mut self) {
        let oldest = self.unresolved.first().copied().unwrap_or(u64::MAX);
        while let Some((below, _)) = self.flushes.front()
            && *below <= oldest
        {
            let (_, done) = self.flushes.pop_front().expect("just looked at");
            // Whoever dropped the future does not wait.
            let _ = done.send(());
        }
    }
}
