//! Doing what machines want: the driver's part, over the models.

use bmq_partition::machine::{Action, Event, Published, RollCause, ScanRequest, StoreFault};
use bmq_proto::meta::PartitionCommand;
use bmq_proto::{ErrorCode, FileId, Offset, ServiceError};

use super::env::{MS, SECOND};
use super::happening::{CreateFate, FileKey, Happening, MachineId, StoreCall};
use super::world::World;

impl World {
    pub fn perform(&mut self, id: MachineId, actions: Vec<Action>) {
        // What is shown in a step is part of the log before its acknowledgements are judged.
        for action in &actions {
            if let Action::Publish(published) = action {
                self.check_published(id, published);
            }
        }
        for action in actions {
            self.env.coverage.hit(action_name(&action));
            self.note_action(id, &action);
            self.act(id, action);
        }
    }

    fn note_action(&mut self, id: MachineId, action: &Action) {
        self.env.trace.note(self.env.now, "  action", &[id.0.into()], || match action {
            Action::Write { file, parts } => format!("write {} parts to {file}", parts.len()),
            Action::Publish(published) => {
                format!("publish {:?} with {} batches", published.bounds, published.batches.len())
            }
            Action::CloseFile { segment, index, earlier } => {
                let (with, count) = (if index.is_some() { "with" } else { "without" }, earlier.len());
                format!("close {segment:?} {with} index after {count} earlier")
            }
            Action::Command(command) => format!("{:x} {:?}", command.nonce, command.kind),
            Action::Scan(request) => {
                let sealed: Vec<_> = request.sealed.iter().map(|segment| segment.file).collect();
                format!("scan {:?} after {sealed:?}", request.open)
            }
            Action::Reply { token, reply: Err(error) } => {
                format!("reply {} {:?} {:?}", token.0, error.code, error.happened)
            }
            other => format!("{other:?}"),
        });
    }

    fn act(&mut self, id: MachineId, action: Action) {
        let Some(running) = self.machines.get(&id) else { return };
        let partition = running.partition;
        match action {
            Action::Command(command) => self.send_command(id, command),
            Action::ReadHead => {
                let hop = self.env.hop();
                self.env.after(hop, Happening::ReadHead { machine: id, partition });
            }
            Action::ListFolder => self.call_store(id, StoreCall::List),
            Action::Fence(file) => {
                let now = self.env.now;
                self.machines.entry(id).and_modify(|running| {
                    running.claimed_at.get_or_insert(now);
                });
                self.call_store(id, StoreCall::Fence(file));
            }
            Action::Recover(file) => self.call_store(id, StoreCall::Recover(file)),
            Action::Scan(request) => {
                self.note_unread(id, &request);
                self.call_store(id, StoreCall::Scan(request));
            }
            Action::Create(file) => self.create(id, file),
            Action::Write { file, parts } => {
                self.store.write(id, FileKey { partition, file }, parts, &mut self.env);
            }
            Action::CloseFile { segment, index, earlier } => {
                if index.is_none() {
                    self.env.coverage.hit("action: close file without index");
                }
                if let Some(late) = earlier.iter().find(|other| other.base_offset >= segment.base_offset) {
                    self.env.violated(|| format!("{} is not earlier than {}", late.file, segment.file));
                }
                self.call_store(id, StoreCall::Close { segment, index, earlier });
            }
            Action::Discard(file) => self.call_store(id, StoreCall::Delete(file)),
            // The model's records have no keys: what compaction does is tested over real stores.
            Action::Compact(request) => self.env.violated(|| format!("no run compacts: {request:?}")),
            Action::Reply { token, reply } => self.reply(id, token.0, reply),
            Action::RecordsDeleted { token, result } => self.records_deleted(id, token.0, &result),
            Action::Publish(published) => self.show(partition, published),
            Action::ListGarbage => {
                let hop = self.env.hop();
                self.env.after(hop, Happening::ListGarbage { machine: id, partition });
            }
            Action::Closed { .. } | Action::DamagedRange { .. } => {}
            Action::RollBegun(cause) => self.env.coverage.hit(roll_name(&cause)),
            Action::Alarm(message) => self.take_alarm(partition, &message),
            Action::Stopped(reason) => self.stopped(id, &reason),
        }
    }

    /// An owner waits for sealed files only so long (ADR 0002): after that, and not before, it may leave them out.
    fn note_unread(&mut self, id: MachineId, request: &ScanRequest) {
        let Some(running) = self.machines.get(&id) else { return };
        let segments = self.meta.partitions[running.partition].records.segments.values();
        let sealed = segments.filter(|segment| segment.end().is_some()).count();
        let waited =
            running.claimed_at.is_some_and(|at| self.env.now - at >= self.config.sealed_wait.0.as_nanos() as u64);
        if sealed > request.sealed.len() && waited {
            self.env.coverage.hit("recovery: sealed file not waited for");
            self.checker.partitions[running.partition].not_waited_for = true;
        }
    }

    fn call_store(&mut self, machine: MachineId, call: StoreCall) {
        let Some(running) = self.machines.get(&machine) else { return };
        let partition = running.partition;
        let slow = self.env.strikes(|faults| faults.store_slow, "fault: store call slow");
        let time = if slow { self.env.dice.between(500 * MS, 8 * SECOND) } else { self.env.hop() };
        self.env.after(time, Happening::StoreCall { machine, partition, call });
    }

    fn create(&mut self, machine: MachineId, file: FileId) {
        let Some(running) = self.machines.get(&machine) else { return };
        let partition = running.partition;
        let fate = if self.env.strikes(|faults| faults.create_fails, "fault: create fails") {
            CreateFate::Fails
        } else if self.env.strikes(|faults| faults.create_leaves_file, "fault: create leaves a file") {
            CreateFate::LeavesFile
        } else {
            CreateFate::Works
        };
        let slow = self.env.strikes(|faults| faults.create_slow, "fault: create slow");
        let time =
            if slow { self.env.dice.between(300 * MS, 5 * SECOND) } else { self.env.dice.between(3 * MS, 60 * MS) };
        self.env.after(time, Happening::StoreCall { machine, partition, call: StoreCall::Create { file, fate } });
    }

    /// Sends a command over a network and to a service that may lose, delay or half do things.
    fn send_command(&mut self, machine: MachineId, command: PartitionCommand) {
        let nonce = command.nonce;
        let patience = self.env.dice.between(100 * MS, SECOND);
        let unknown = ServiceError::unknown(ErrorCode::Timeout, "the metadata service did not answer in time");
        let hop = self.env.hop();
        if self.env.now < self.meta.down_until {
            let refused = ServiceError::not_applied(ErrorCode::Unavailable, "the metadata service is away");
            let (error, after) = if self.env.dice.chance(500) { (refused, hop) } else { (unknown, patience) };
            return self.env.after(after, Happening::Event(machine, Event::CommandDone { nonce, result: Err(error) }));
        }
        let lost = self.env.strikes(|faults| faults.command_lost, "fault: command lost");
        let no_answer = !lost && self.env.strikes(|faults| faults.command_answer_lost, "fault: command answer lost");
        let late = !lost && !no_answer && self.env.strikes(|faults| faults.command_late, "fault: command applied late");
        if lost || no_answer || late {
            self.env.after(patience, Happening::Event(machine, Event::CommandDone { nonce, result: Err(unknown) }));
        }
        let slow = self.env.strikes(|faults| faults.command_slow, "fault: command slow");
        let time = match (lost, late, slow) {
            (true, ..) => return,
            (_, true, _) => patience + self.env.dice.between(0, 8 * SECOND),
            (_, _, true) => self.env.dice.between(50 * MS, 1500 * MS),
            _ => hop,
        };
        self.env.after(time, Happening::Command { machine, command, answered: !no_answer && !late });
    }

    fn reply(&mut self, id: MachineId, token: u64, reply: bmq_partition::AppendReply) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        let partition = running.partition;
        let Some(asked) = running.waiting.remove(&token) else {
            return self.env.violated(|| format!("token {token} was answered twice"));
        };
        if let Ok(appended) = &reply {
            self.checker.acknowledged(partition, asked.batch, asked.ack, *appended, &mut self.env);
        }
        let back = self.message_time();
        let (lane, stream, batch) = (asked.lane, asked.stream, asked.batch);
        self.env.after(back, Happening::Answer { lane, stream, batch, reply });
    }

    /// Somebody who had records deleted is answered: what the answer says is so in metadata.
    fn records_deleted(&mut self, id: MachineId, token: u64, result: &Result<Offset, ServiceError>) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        let partition = running.partition;
        let Some(before) = running.deletions.remove(&token) else {
            return self.env.violated(|| format!("deletion {token} was answered twice"));
        };
        let start = match result {
            Ok(start) => *start,
            Err(error) if error.code == ErrorCode::OutOfRange => {
                return self.env.coverage.hit("deletion: out of range");
            }
            Err(error) if error.code == ErrorCode::NotOwner => return self.env.coverage.hit("deletion: not owner"),
            Err(error) => return self.env.violated(|| format!("a deletion was refused for no reason: {error:?}")),
        };
        self.env.coverage.hit("deletion: done");
        let known = self.meta.partitions[partition].records.head.log_start;
        if start < before || known < start {
            self.env.violated(|| format!("records before {before} are deleted up to {start}, the head says {known}"));
        }
    }

    /// Rule 1 where it begins: what is shown is synced, in a segment registered under the epoch that shows it.
    fn check_published(&mut self, id: MachineId, published: &Published) {
        let Some(running) = self.machines.get_mut(&id) else { return };
        let partition = running.partition;
        let epoch = published.bounds.epoch;
        running.epoch = Some(epoch);
        for batch in &published.batches {
            let key = FileKey { partition, file: batch.file };
            let (start, length) = (batch.position.0 as usize, batch.bytes.len());
            let durable = self.store.files.get(&key).is_some_and(|file| {
                let stored = file.bytes.get(start..start + length);
                start + length <= file.synced && (stored == Some(&batch.bytes[..]))
            });
            let damaged = self.checker.partitions[partition].refused
                || !self.checker.partitions[partition].damaged_sealed.is_empty();
            if !durable && !damaged {
                let at = batch.base_offset;
                self.env.violated(|| format!("rule 1: {at} is shown and not durable in {}", batch.file));
            }
            let registered = self.meta.partitions[partition].registered.get(&batch.file);
            if registered != Some(&epoch) {
                self.env.violated(|| format!("rule 2: {} is not registered under epoch {epoch}", batch.file));
            }
        }
        self.checker.published(partition, published, &self.batches, &mut self.env);
    }

    fn show(&mut self, partition: usize, published: Published) {
        let hop = self.env.hop();
        let follower = &mut self.followers[partition];
        follower.last_arrival = (self.env.now + hop).max(follower.last_arrival);
        let at = follower.last_arrival;
        self.env.at(at, Happening::Tail { partition, published });
    }

    /// An alarm without damage is a false one.
    fn take_alarm(&mut self, partition: usize, message: &str) {
        let log = &self.checker.partitions[partition];
        if log.old_metadata {
            return;
        }
        match (log.refused, log.damaged_sealed.is_empty()) {
            (true, _) => self.env.coverage.hit("damage: refused"),
            (false, false) => self.env.coverage.hit("alarm: sealed file"),
            (false, true) => self.env.violated(|| format!("alarm without a reason: {message}")),
        }
    }
}

/// The answer of a call that did not come about.
pub fn failed(call: &StoreCall) -> Option<Event> {
    let fault = || StoreFault::Failed("the store does not answer".to_owned());
    match call {
        StoreCall::List => Some(Event::Listed(Err(fault()))),
        StoreCall::Fence(file) => Some(Event::Fenced { file: *file, result: Err(fault()) }),
        StoreCall::Recover(file) => Some(Event::Recovered { file: *file, result: Err(fault()) }),
        StoreCall::Scan(_) => Some(Event::Scanned(Err(fault()))),
        StoreCall::Create { file, .. } => Some(Event::Created { file: *file, result: Err(fault()) }),
        StoreCall::Close { segment, .. } => Some(Event::FileClosed { file: segment.file, result: Err(fault()) }),
        StoreCall::Delete(file) => Some(Event::Discarded { file: *file, deleted: false }),
    }
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Command(_) => "action: command",
        Action::ReadHead => "action: read head",
        Action::ListFolder => "action: list folder",
        Action::Fence(_) => "action: fence",
        Action::Recover(_) => "action: recover",
        Action::Scan(_) => "action: scan",
        Action::Create(_) => "action: create",
        Action::Write { .. } => "action: write",
        Action::CloseFile { .. } => "action: close file",
        Action::Discard(_) => "action: discard",
        Action::Compact(_) => "action: compact",
        Action::Reply { .. } => "action: reply",
        Action::RecordsDeleted { .. } => "action: records deleted",
        Action::Publish(_) => "action: publish",
        Action::Closed { .. } => "action: closed",
        Action::ListGarbage => "action: list garbage",
        Action::DamagedRange { .. } => "action: damaged range",
        Action::RollBegun(_) => "action: roll begun",
        Action::Alarm(_) => "action: alarm",
        Action::Stopped(_) => "action: stopped",
    }
}

fn roll_name(cause: &RollCause) -> &'static str {
    match cause {
        RollCause::First => "roll: first",
        RollCause::Size => "roll: size",
        RollCause::Age => "roll: age",
        RollCause::Wished => "roll: wished",
        RollCause::Broken(_) => "roll: broken",
    }
}
