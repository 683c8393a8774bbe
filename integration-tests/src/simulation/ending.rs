//! Reading what is there: closed segments now and then, and everything at the end.

use bmq_partition::producer_table::ProducerTable;
use bmq_proto::meta::SegmentRecord;
use bmq_storage::SegmentIndex;

use super::env::SECOND;
use super::happening::{FileKey, Happening};
use super::reader::matches_index;
use super::world::World;

impl World {
    /// A reader takes a closed segment from the store, as metadata names it.
    pub fn read_segments(&mut self) {
        for partition in 0..self.partitions() {
            if self.checker.partitions[partition].old_metadata {
                continue;
            }
            let records = &self.meta.partitions[partition].records;
            let closed: Vec<SegmentRecord> =
                records.segments.values().filter(|segment| segment.is_closed()).cloned().collect();
            if !closed.is_empty() {
                let chosen = self.env.dice.pick(&closed).clone();
                self.env.coverage.hit("reader: reads a closed segment");
                self.read_segment(partition, &chosen);
            }
        }
        let pause = self.env.dice.between(SECOND, 3 * SECOND);
        self.env.after(pause, Happening::ReadSegments);
    }

    fn read_segment(&mut self, partition: usize, segment: &SegmentRecord) {
        let log = &self.checker.partitions[partition];
        if log.damaged_sealed.contains(&segment.base_offset) {
            return;
        }
        let Some(file) = self.store.files.get_mut(&FileKey { partition, file: segment.file }) else {
            return self.env.violated(|| format!("closed segment {} has no file", segment.file));
        };
        let content = file.content();
        let index = file.index.as_ref().and_then(|index| SegmentIndex::decode(index, file.path).ok());
        if index.is_some_and(|index| !matches_index(&index, &content)) {
            self.env.violated(|| format!("{} is not what its index says", segment.file));
        }
        self.checker.read(partition, segment, &content, &self.batches, &mut self.env);
    }

    pub fn check_rest(&mut self) {
        let restless = self.find_restless();
        match restless {
            None => self.resting = true,
            Some(reason) if self.env.now > self.rest_by => {
                self.env.violated(|| format!("liveness: {reason}, long after the faults were over"));
            }
            Some(_) => self.env.after(SECOND, Happening::CheckRest),
        }
    }

    /// What keeps the world from being at rest.
    fn find_restless(&self) -> Option<String> {
        for partition in 0..self.partitions() {
            let meta = &self.meta.partitions[partition];
            let log = &self.checker.partitions[partition];
            if log.old_metadata {
                continue;
            }
            let machine = self.nodes[meta.wanted].machines[partition].and_then(|id| self.machines.get(&id));
            let Some(running) = machine else { return Some(format!("partition {partition} is not open")) };
            if log.refused {
                if !running.machine.is_refusing() {
                    return Some(format!("partition {partition} is damaged and not refused"));
                }
                continue;
            }
            if !running.machine.is_serving() {
                return Some(format!("partition {partition} is not serving"));
            }
            if let Some(open) = meta.records.head.open {
                return Some(format!("{open} is still open"));
            }
            let waits =
                |segment: &&SegmentRecord| !segment.is_closed() && !log.damaged_sealed.contains(&segment.base_offset);
            if let Some(segment) = meta.records.segments.values().find(waits) {
                return Some(format!("{} is not closed", segment.file));
            }
            let lane = self.lanes.iter().find(|lane| lane.partition == partition && !lane.pending.is_empty());
            if let Some(lane) = lane {
                return Some(format!("a client still waits: {lane:?}"));
            }
        }
        None
    }

    /// The last reading: the log from its files alone, and what the indexes say of it.
    pub fn read_everything(&mut self) {
        for partition in 0..self.partitions() {
            if self.checker.partitions[partition].old_metadata {
                continue;
            }
            let segments: Vec<_> = self.meta.partitions[partition].records.segments.values().cloned().collect();
            let closed = segments.iter().filter(|segment| segment.is_closed());
            closed.for_each(|segment| self.read_segment(partition, segment));
            let log = &self.checker.partitions[partition];
            if log.refused || !log.knows_producers() {
                continue;
            }
            let end = segments.last().and_then(SegmentRecord::end).map(|end| end.offset).unwrap_or_default();
            if end != log.end {
                let known = log.end;
                self.env.violated(|| format!("the files hold the log up to {end}, {known} was promised"));
            }
            self.check_last_snapshot(partition, segments.last());
        }
        self.checker.finish(&self.batches, &mut self.env);
        let ends: Vec<u64> = self.checker.partitions.iter().map(|log| log.end.0).collect();
        let crcs = self.checker.partitions.iter().flat_map(|log| log.entries.values());
        let numbers: Vec<u64> = crcs.map(|entry| entry.crc.into()).chain(ends).collect();
        self.env.trace.note(self.env.now, "end", &numbers, || format!("{} numbers", numbers.len()));
    }

    /// Rule 11: the last index knows the producers as the whole log shows them.
    fn check_last_snapshot(&mut self, partition: usize, last: Option<&SegmentRecord>) {
        let Some(segment) = last else { return };
        let Some(file) = self.store.files.get(&FileKey { partition, file: segment.file }) else { return };
        let Some(index) = file.index.as_ref().and_then(|index| SegmentIndex::decode(index, file.path).ok()) else {
            return;
        };
        let found = ProducerTable::from_snapshot(index.producers);
        let expected = &self.checker.partitions[partition].producers;
        if found != *expected {
            self.env.violated(|| format!("rule 11: the last index knows {found:?}, the log shows {expected:?}"));
        }
    }
}
