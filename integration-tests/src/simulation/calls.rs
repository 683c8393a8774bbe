//! Calls as they reach the store and the metadata service, and what follows from them.

use bmq_partition::machine::{Event, ScanReport, ScanRequest, ScanStop, StoreFault};
use bmq_partition::recovery_scan;
use bmq_proto::meta::{PartitionCommand, PartitionCommandKind, SegmentRecord};
use bmq_proto::{ErrorCode, ServiceError};
use bmq_storage::FolderPath;
use bytes::Bytes;

use super::acting::failed;
use super::checker::Sealed;
use super::env::{MS, SECOND};
use super::happening::{FileKey, Happening, MachineId, StoreCall};
use super::model_meta::Applied;
use super::model_store::Injected;
use super::store_view::run_now;
use super::world::{CLUSTER, World, topic_partition};

impl World {
    pub fn take_store_call(&mut self, machine: MachineId, partition: usize, call: StoreCall) {
        if self.store.is_down(&self.env) {
            let patience = if self.env.dice.chance(500) { 5 * MS } else { SECOND };
            if let Some(event) = failed(&call) {
                self.env.after(patience, Happening::Event(machine, event));
            }
            return;
        }
        let lost = match &call {
            StoreCall::Create { .. } => None,
            call => failed(call),
        };
        let event = self.execute(machine, partition, call);
        let Some(event) = event else { return };
        let answer_lost =
            lost.is_some() && self.env.strikes(|faults| faults.store_answer_lost, "fault: store answer lost");
        let event = if answer_lost { lost.unwrap_or(event) } else { event };
        let hop = self.env.hop();
        self.env.after(hop, Happening::Event(machine, event));
    }

    fn execute(&mut self, machine: MachineId, partition: usize, call: StoreCall) -> Option<Event> {
        let key = |file| FileKey { partition, file };
        Some(match call {
            StoreCall::List => Event::Listed(Ok(self.store.list(partition))),
            StoreCall::Fence(file) => Event::Fenced { file, result: self.store.fence(key(file), &mut self.env) },
            StoreCall::Recover(file) => Event::Recovered { file, result: self.store.recover(key(file), &mut self.env) },
            StoreCall::Scan(request) => Event::Scanned(self.scan(partition, request)),
            StoreCall::Create { file, fate } => {
                // The process may be gone by now; what it began is done all the same.
                let result = self.store.create(machine, key(file), fate, &mut self.env);
                if !self.machines.contains_key(&machine) {
                    self.store.drop_writers(machine);
                }
                Event::Created { file, result }
            }
            StoreCall::Close { segment, index, earlier } => {
                let file = segment.file;
                Event::FileClosed { file, result: self.close_file(machine, partition, segment, index, earlier) }
            }
            StoreCall::Delete(file) => {
                if self.meta.segment(key(file)).is_some() {
                    self.env.violated(|| format!("file {file} is deleted while a record names it"));
                }
                self.store.delete(key(file), &mut self.env);
                Event::Discarded { file, deleted: true }
            }
        })
    }

    fn scan(&mut self, partition: usize, request: ScanRequest) -> Result<ScanReport, StoreFault> {
        let open = request.open.as_ref().map(|(segment, _)| segment.file);
        let files: Vec<_> = request.sealed.iter().map(|segment| segment.file).chain(open).collect();
        let view = self.store.view(partition, files.into_iter());
        let report = run_now(recovery_scan::run(&view, folder(partition), request));
        self.take_indexes(partition, view.written.into_inner());
        if let Ok(report) = &report {
            let Some(open) = &report.open else {
                self.env.coverage.hit("recovery: found nothing open");
                return Ok(report.clone());
            };
            self.env.coverage.hit(match &open.stop {
                ScanStop::Clean => "scan stop: clean",
                ScanStop::TornHeader => "scan stop: torn header",
                ScanStop::BadHeader(_) => "scan stop: bad header",
                ScanStop::TornBatch => "scan stop: torn batch",
                ScanStop::BadBatch(_) => "scan stop: bad batch",
            });
        }
        report
    }

    fn take_indexes(&mut self, partition: usize, written: Vec<(bmq_proto::FileId, Bytes)>) {
        for (file, index) in written {
            self.env.coverage.hit("store: index made from data");
            let sure = self.checker.partitions[partition].knows_producers();
            self.store.write_index(FileKey { partition, file }, index, sure, &mut self.env);
        }
    }

    fn close_file(
        &mut self,
        machine: MachineId,
        partition: usize,
        segment: SegmentRecord,
        index: Option<Bytes>,
        earlier: Vec<SegmentRecord>,
    ) -> Result<Option<i64>, StoreFault> {
        let key = FileKey { partition, file: segment.file };
        let end = segment.end().ok_or_else(|| StoreFault::Damaged("it is not sealed".to_owned()))?;
        let length = self.store.close(machine, key, &mut self.env)?;
        if length < end.position {
            return Err(StoreFault::Damaged(format!("closed at {length}, sealed at {}", end.position)));
        }
        let index = match index {
            Some(index) => index,
            None => {
                let files: Vec<_> = earlier.iter().map(|segment| segment.file).chain([segment.file]).collect();
                let view = self.store.view(partition, files.into_iter());
                let made = run_now(recovery_scan::make_index(&view, folder(partition), &segment, earlier));
                self.take_indexes(partition, view.written.into_inner());
                self.env.coverage.hit("store: index made from data");
                made?
            }
        };
        if self.env.strikes(|faults| faults.index_write_fails, "fault: index write fails") {
            return Err(StoreFault::Failed("the index was not written".to_owned()));
        }
        let max_timestamp_ms = recovery_scan::max_timestamp_ms(&index, folder(partition).segment(segment.file))?;
        let sure = self.checker.partitions[partition].knows_producers();
        self.store.write_index(key, index, sure, &mut self.env);
        Ok(max_timestamp_ms)
    }

    /// Recovery ends at the store, perhaps with damage to what was known to be durable.
    pub fn end_recovery(&mut self, key: FileKey) {
        let known = self.meta.known(key);
        let injected = self.store.end_recovery(key, known, &mut self.env);
        let base_offset = self.meta.segment(key).map(|segment| segment.base_offset);
        let log = &mut self.checker.partitions[key.partition];
        match injected {
            None => {}
            Some(Injected::Open) => log.refused = true,
            Some(Injected::Sealed) => log.damaged_sealed.extend(base_offset),
        }
    }

    pub fn take_head_read(&mut self, machine: MachineId, partition: usize) {
        let result = if self.env.now < self.meta.down_until {
            Err(ServiceError::not_applied(ErrorCode::Unavailable, "the metadata service is away"))
        } else {
            Ok(self.meta.partitions[partition].records.head.clone())
        };
        let hop = self.env.hop();
        self.env.after(hop, Happening::Event(machine, Event::HeadRead(result)));
    }

    pub fn list_garbage(&mut self, machine: MachineId, partition: usize) {
        let result = if self.env.now < self.meta.down_until {
            Err(ServiceError::not_applied(ErrorCode::Unavailable, "the metadata service is away"))
        } else {
            Ok(self.meta.partitions[partition].records.garbage.values().copied().collect())
        };
        let hop = self.env.hop();
        self.env.after(hop, Happening::Event(machine, Event::GarbageListed(result)));
    }

    pub fn take_command(&mut self, machine: MachineId, command: PartitionCommand, answered: bool) {
        let partition = command.partition.partition.0 as usize;
        let nonce = command.nonce;
        self.env.trace.note(self.env.now, "command", &[nonce], || format!("{nonce:x} {:?}", command.kind));
        if self.checker.partitions[partition].old_metadata {
            // What is still on its way is from before; nobody may send anything new.
            if self.machines.contains_key(&machine) {
                self.env.violated(|| format!("{:?} on metadata that is an old copy", command.kind));
            }
            return;
        }
        let applied = self.meta.execute(partition, &command, &mut self.env);
        let first = self.meta.partitions[partition].records.segments.keys().next();
        self.checker.partitions[partition].dropped |= first.is_some_and(|first| first.0 > 0);
        self.check_command(partition, &command, &applied);
        if applied.changed {
            self.spread_head(partition);
        }
        if answered {
            let hop = self.env.hop();
            let event = Event::CommandDone { nonce, result: applied.result };
            self.env.after(hop, Happening::Event(machine, event));
        }
    }

    fn check_command(&mut self, partition: usize, command: &PartitionCommand, applied: &Applied) {
        if applied.result.is_err() {
            return;
        }
        let recovery = matches!(command.kind, PartitionCommandKind::FinishRecovery { .. });
        let log = &self.checker.partitions[partition];
        if recovery && log.refused {
            self.env.violated(|| "rule 6: recovery took a file that had lost what was known to be there".to_owned());
            return;
        }
        if let PartitionCommandKind::FinishRecovery { found: Some(_), .. } = &command.kind
            && applied.changed
            && applied.sealed.is_none()
        {
            self.env.coverage.hit("recovery: found the open file empty");
        }
        if let PartitionCommandKind::FinishRecovery { start, .. } = &command.kind
            && applied.changed
            && *start < log.end
        {
            let end = log.end;
            self.env.violated(|| format!("rule 5: an epoch starts at {start}, the log goes to {end}"));
            return;
        }
        if let Some(file) = applied.dropped {
            self.env.coverage.hit("seal: empty segment");
            let (end, sealed_end) = (log.end, self.meta.partitions[partition].records.head.sealed_end);
            if sealed_end < end {
                self.env.violated(|| format!("rule 5: {file} was dropped as empty, it holds {sealed_end}..{end}"));
            }
        }
        let Some((file, end)) = applied.sealed else { return };
        let key = FileKey { partition, file };
        let Some(segment) = self.meta.segment(key).cloned() else { return };
        let Some(stored) = self.store.files.get(&key) else {
            return self.env.violated(|| format!("{file} is sealed and does not exist"));
        };
        if end.position.0 as usize > stored.synced {
            self.env.violated(|| format!("rule 1: {file} is sealed at {end:?}, {} bytes are durable", stored.synced));
            return;
        }
        let sealed = Sealed { segment: &segment, end, recovery, content: &stored.bytes };
        self.checker.sealed(partition, sealed, &self.batches, &mut self.env);
    }

    /// Everybody who watches the head learns of its change, sooner or later.
    fn spread_head(&mut self, partition: usize) {
        let head = &self.meta.partitions[partition].records.head;
        let (epoch, owner) = (head.epoch, head.owner.map(|owner| owner.node.0 as usize));
        for node in 0..self.nodes.len() {
            let lag = self.watch_lag();
            self.env.after(lag, Happening::HeadSeen { node, partition, epoch });
        }
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].partition == partition {
                let lag = self.watch_lag();
                self.env.after(lag, Happening::RouteSeen { lane, epoch, node: owner });
            }
        }
    }
}

fn folder(partition: usize) -> FolderPath {
    FolderPath::new(CLUSTER, topic_partition(partition))
}
