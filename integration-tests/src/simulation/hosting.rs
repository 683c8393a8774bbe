//! The life of machines: started where a partition is wanted, stepped, stopped, lost with their node.

use std::collections::BTreeMap;
use std::time::Duration;

use bmq_partition::machine::{Event, Machine, MachineSetup, StopReason};
use bmq_partition::{Append, Lane as AppendLane, ReplyToken, ValidatedBatch};
use bmq_proto::meta::Owner;
use bmq_proto::{Epoch, ErrorCode, Incarnation, NodeId, ServiceError};

use super::batch::Batches;
use super::broker::{Asked, Running};
use super::env::{MS, SECOND};
use super::happening::{Happening, Item, MachineId};
use super::world::{CLUSTER, World, topic_partition};

impl World {
    /// Gives a machine an event, does what it wants, and looks at what holds after each step.
    pub fn step(&mut self, id: MachineId, event: Event) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        let now = self.env.clock();
        let (node, partition) = (running.node, running.partition);
        let name = event_name(&event);
        self.env.trace.note(self.env.now, name, &[id.0.into(), node as u64, partition as u64], || {
            format!("node {node} partition {partition} machine {}: {}", id.0, words(&event))
        });
        if let Event::DeleteRecords { token, before } = &event {
            running.deletions.insert(token.0, *before);
        }
        let actions = running.machine.step(event, now);
        let pending = running.machine.pending_bytes() as u64;
        let limit = self.config.buffer_bytes.0;
        if pending > limit {
            self.env.violated(|| format!("rule 8: {pending} bytes pending, the limit is {limit}"));
        }
        self.perform(id, actions);
        self.plan_tick(id);
    }

    fn plan_tick(&mut self, id: MachineId) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        let Some(deadline) = running.machine.next_deadline() else { return };
        if deadline.0 <= self.env.now {
            self.env
                .violated(|| "a deadline has passed and nothing was done about it: the driver would spin".to_owned());
            return;
        }
        if running.tick_at.is_none_or(|planned| planned > deadline.0) {
            running.tick_at = Some(deadline.0);
            self.env.at(deadline.0, Happening::Tick(id));
        }
    }

    pub fn tick(&mut self, id: MachineId) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        if running.tick_at.is_some_and(|planned| planned <= self.env.now) {
            running.tick_at = None;
        }
        self.step(id, Event::Tick);
    }

    /// The controller wants a partition at a node.
    pub fn want(&mut self, partition: usize, node: usize) {
        let meta = &mut self.meta.partitions[partition];
        meta.wanted = node;
        meta.intent_version += 1;
        let version = meta.intent_version;
        for seer in 0..self.nodes.len() {
            let lag = self.watch_lag();
            self.env.after(lag, Happening::IntentSeen { node: seer, partition, wanted: node, version });
        }
    }

    /// How long a watch takes to show a change.
    pub fn watch_lag(&mut self) -> u64 {
        if self.env.strikes(|faults| faults.watch_lag, "fault: watch lags") {
            return self.env.dice.between(100 * MS, 3 * SECOND);
        }
        self.env.dice.between(MS, 20 * MS)
    }

    pub fn see_intent(&mut self, node: usize, partition: usize, wanted: usize, version: u64) {
        let seen = &mut self.nodes[node].wanted[partition];
        if version > seen.1 {
            *seen = (wanted, version);
            self.reconcile(node, partition);
        }
    }

    /// A newer claim than that of the machine here: it gives up, if it does not know yet.
    pub fn see_head(&mut self, node: usize, partition: usize, epoch: Epoch) {
        let Some(id) = self.nodes[node].machines[partition] else { return };
        let Some(running) = self.machines.get_mut(&id) else { return };
        if running.epoch.is_some_and(|own| own < epoch) && !running.releasing {
            self.env.coverage.hit("watch: broker sees a newer claim");
            running.releasing = true;
            self.tell(id, Event::Release { close_wait: Duration::ZERO });
        }
    }

    pub fn reconcile(&mut self, node: usize, partition: usize) {
        let this = &self.nodes[node];
        if !this.up {
            return;
        }
        let wanted = this.wanted[partition].0 == node;
        match this.machines[partition] {
            None if wanted => self.start_machine(node, partition),
            Some(id) if !wanted => {
                let close_wait = Duration::from_millis(*self.env.dice.pick(&[0, 500, 3000]));
                if let Some(running) = self.machines.get_mut(&id).filter(|running| !running.releasing) {
                    running.releasing = true;
                    self.tell(id, Event::Release { close_wait });
                }
            }
            _ => {}
        }
    }

    fn start_machine(&mut self, node: usize, partition: usize) {
        let id = MachineId(self.next_machine);
        self.next_machine += 1;
        let me = Owner { node: NodeId(node as u32), incarnation: Incarnation(self.nodes[node].incarnation) };
        let setup = MachineSetup {
            cluster: CLUSTER,
            partition: topic_partition(partition),
            me,
            config: self.config.clone(),
            seed: self.env.dice.draw(),
        };
        let running = Running {
            node,
            partition,
            machine: Machine::new(setup),
            epoch: None,
            releasing: false,
            claimed_at: None,
            tick_at: None,
            waiting: BTreeMap::new(),
            deletions: BTreeMap::new(),
            next_token: 0,
        };
        self.machines.insert(id, running);
        self.nodes[node].machines[partition] = Some(id);
        self.step(id, Event::Start);
    }

    /// A machine came to its end by itself.
    pub fn stopped(&mut self, id: MachineId, reason: &StopReason) {
        let old = self.machines.get(&id).is_some_and(|running| self.checker.partitions[running.partition].old_metadata);
        match reason {
            StopReason::OldMetadata { .. } if old => self.env.coverage.hit("stopped: old metadata"),
            StopReason::Released => self.env.coverage.hit("stopped: released"),
            StopReason::Superseded(_) => self.env.coverage.hit("stopped: superseded"),
            StopReason::Refused { .. } | StopReason::OldMetadata { .. } => {
                self.env.violated(|| format!("a machine stopped for a reason that cannot be: {reason:?}"));
            }
        }
        self.store.drop_writers(id);
        let Some(running) = self.machines.remove(&id) else { return };
        let (node, partition) = (running.node, running.partition);
        if let Some((token, asked)) = running.waiting.first_key_value() {
            self.env.violated(|| format!("token {token} was never answered: {asked:?}"));
        }
        if let Some((token, before)) = running.deletions.first_key_value() {
            self.env.violated(|| format!("deletion {token} before {before} was never answered"));
        }
        self.nodes[node].machines[partition] = None;
        let pause = self.env.dice.between(10 * MS, 500 * MS);
        self.env.after(pause, Happening::Reconcile { node, partition });
    }

    /// A broker process dies: whatever it had in memory is gone.
    pub fn crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.nodes[node].up = false;
        self.nodes[node].paused_until = 0;
        self.nodes[node].held.clear();
        for id in std::mem::take(&mut self.nodes[node].machines).into_iter().flatten() {
            self.store.drop_writers(id);
            self.machines.remove(&id);
        }
        self.nodes[node].machines = vec![None; self.partitions()];
        for lane in 0..self.lanes.len() {
            if let Some(stream) = self.lanes[lane].stream.filter(|stream| stream.node == node) {
                let notice = self.env.dice.between(MS, 300 * MS);
                self.env.after(notice, Happening::StreamLost { lane, stream: stream.id });
            }
        }
        let incarnation = self.nodes[node].incarnation + 1;
        let down = self.env.dice.between(100 * MS, 5 * SECOND);
        self.env.after(down, Happening::NodeStarts { node, incarnation });
    }

    /// Stops a process; what reaches it waits.
    pub fn pause(&mut self, node: usize, time: u64) {
        let until = &mut self.nodes[node].paused_until;
        *until = (*until).max(self.env.now + time);
        let until = *until;
        self.env.at(until, Happening::NodeContinues { node });
    }

    pub fn continue_node(&mut self, node: usize) {
        if self.nodes[node].paused_until <= self.env.now {
            for happening in std::mem::take(&mut self.nodes[node].held) {
                self.take(happening);
            }
        }
    }

    pub fn start_node(&mut self, node: usize, incarnation: u64) {
        self.nodes[node].up = true;
        self.nodes[node].incarnation = incarnation;
        for partition in 0..self.partitions() {
            let meta = &self.meta.partitions[partition];
            self.nodes[node].wanted[partition] = (meta.wanted, meta.intent_version);
            self.reconcile(node, partition);
        }
    }

    /// Appends reach a broker, which checks them and hands them to the partition's machine.
    pub fn take_appends(&mut self, lane: usize, stream: u64, node: usize, incarnation: u64, items: Vec<Item>) {
        let partition = self.lanes[lane].partition;
        if !self.nodes[node].up || self.nodes[node].incarnation != incarnation {
            return;
        }
        let Some(id) = self.nodes[node].machines[partition] else {
            for item in items {
                let error = ServiceError::not_applied(ErrorCode::NotOwner, "this broker does not have the partition");
                let back = self.env.hop();
                self.env.after(back, Happening::Answer { lane, stream, batch: item.batch, reply: Err(error) });
            }
            return;
        };
        let running = self.machines.get_mut(&id).expect("a node's machines are there until they stop");
        let mut appends = Vec::with_capacity(items.len());
        for item in items {
            let info = self.batches.info(item.batch);
            let token = running.next_token;
            running.next_token += 1;
            running.waiting.insert(token, Asked { lane, stream, batch: item.batch, ack: info.ack });
            let mut bytes = info.bytes.to_vec();
            if !self.env.healing && self.env.dice.chance(3) {
                bytes[40] ^= 1;
            }
            appends.push(Append {
                token: ReplyToken(token),
                lane: AppendLane { stream, channel: lane as u64 },
                generation: item.generation,
                epoch: item.epoch,
                ack: info.ack,
                batch: ValidatedBatch::check(bytes.into(), 1 << 20),
            });
        }
        self.step(id, Event::Appends(appends));
    }

    pub fn forget_stream(&mut self, stream: u64, node: usize, incarnation: u64) {
        if self.nodes[node].up && self.nodes[node].incarnation == incarnation {
            for id in self.nodes[node].machines.clone().into_iter().flatten() {
                self.step(id, Event::StreamGone { stream });
            }
        }
    }
}

/// The event without what would fill the screen.
fn words(event: &Event) -> String {
    match event {
        Event::Appends(appends) => {
            let word = |append: &Append| {
                let batch = match &append.batch {
                    Ok(batch) => Batches::number(batch.header()).to_string(),
                    Err(_) => "bad".to_owned(),
                };
                let (lane, generation, epoch) = (append.lane, append.generation, append.epoch);
                format!("[{} batch {batch} stream {} gen {generation} epoch {epoch}]", append.token.0, lane.stream)
            };
            appends.iter().map(word).collect()
        }
        Event::CommandDone { nonce, result: Ok(view) } => {
            format!("{nonce:x} ok, version {} epoch {}", view.head.version, view.head.epoch)
        }
        Event::CommandDone { nonce, result: Err(error) } => format!("{nonce:x} {:?} {:?}", error.code, error.happened),
        Event::Scanned(Ok(report)) => {
            let (producers, indexes) = (&report.producers, report.indexes.len());
            format!("{:?}, damaged {:?}, {indexes} indexes, {producers:?}", report.open, report.damaged)
        }
        other => format!("{other:?}"),
    }
}

fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Start => "start",
        Event::CommandDone { .. } => "command done",
        Event::HeadRead(_) => "head read",
        Event::Listed(_) => "listed",
        Event::Fenced { .. } => "fenced",
        Event::Recovered { .. } => "recovered",
        Event::Scanned(_) => "scanned",
        Event::Created { .. } => "created",
        Event::Progress { .. } => "progress",
        Event::FileClosed { .. } => "file closed",
        Event::Discarded { .. } => "discarded",
        Event::Compacted(_) => "compacted",
        Event::GarbageListed(_) => "garbage listed",
        Event::Appends(_) => "appends",
        Event::RollWanted => "roll wanted",
        Event::DeleteRecords { .. } => "delete records",
        Event::Reconfigure(_) => "reconfigure",
        Event::StreamGone { .. } => "stream gone",
        Event::Release { .. } => "release",
        Event::Tick => "tick",
    }
}
