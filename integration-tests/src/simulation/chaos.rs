//! Faults that come by themselves, and their end.

use bmq_meta::transition::PartitionRecords;
use bmq_partition::ReplyToken;
use bmq_partition::machine::Event;
use bmq_proto::Offset;

use super::env::{MS, SECOND};
use super::happening::Happening;
use super::world::World;

/// How long everything may take to come to rest once the faults are over.
const HEALING_TIME: u64 = 400 * SECOND;

impl World {
    /// One beat: each kind of fault has its chance.
    pub fn make_chaos(&mut self) {
        if self.env.healing {
            return;
        }
        let node = self.env.dice.below(self.nodes.len() as u64) as usize;
        let partition = self.env.dice.below(self.partitions() as u64) as usize;
        if self.env.strikes(|faults| faults.crash, "fault: broker crash") {
            self.crash(node);
            if self.env.dice.chance(600) {
                self.want_elsewhere(partition);
            }
        }
        if self.env.strikes(|faults| faults.pause, "fault: broker pause") {
            let very_long = self.env.dice.chance(150);
            let time = if very_long { 70 * SECOND } else { self.env.dice.between(200 * MS, 6 * SECOND) };
            self.pause(node, time);
            if self.env.dice.chance(700) {
                self.want_elsewhere(partition);
            }
        }
        if self.env.strikes(|faults| faults.power_loss, "fault: power loss") {
            (0..self.nodes.len()).for_each(|node| self.crash(node));
            self.store.lose_power(&mut self.env);
        }
        if self.env.strikes(|faults| faults.move_intent, "fault: intent moved") {
            let node = self.env.dice.below(self.nodes.len() as u64) as usize;
            self.want(partition, node);
        }
        self.age_metadata(partition);
        self.make_quiet_chaos(partition);
        let beat = self.env.dice.between(300 * MS, 700 * MS);
        self.env.after(beat, Happening::Chaos);
    }

    /// Somebody restores metadata from an old copy, while no broker runs. It can be noticed if files have newer epochs.
    fn age_metadata(&mut self, partition: usize) {
        if self.env.dice.chance(100) {
            self.meta.partitions[partition].copy = Some(self.meta.partitions[partition].records.clone());
        }
        let newest = self.store.list(partition).iter().map(|found| found.file.epoch).max();
        let noticeable = |copy: &PartitionRecords| newest.is_some_and(|newest| newest > copy.head.epoch);
        let Some(copy) = self.meta.partitions[partition].copy.clone().filter(noticeable) else { return };
        if self.env.strikes(|faults| faults.old_metadata, "fault: old metadata") {
            (0..self.nodes.len()).for_each(|node| self.crash(node));
            self.meta.partitions[partition].records = copy;
            self.checker.partitions[partition].old_metadata = true;
        }
    }

    fn make_quiet_chaos(&mut self, partition: usize) {
        let until = self.env.now + self.env.dice.between(100 * MS, 4 * SECOND);
        if self.env.strikes(|faults| faults.namenode_down, "fault: namenode down") {
            self.store.down_until = until;
        }
        if self.env.strikes(|faults| faults.meta_down, "fault: meta down") {
            self.meta.down_until = until;
        }
        if self.env.strikes(|faults| faults.stream_lost, "fault: stream lost") {
            self.cut_stream();
        }
        if self.env.strikes(|faults| faults.index_lost, "fault: index lost") {
            self.harm_index(true);
        }
        if self.env.strikes(|faults| faults.index_flipped, "fault: index flipped") {
            self.harm_index(false);
        }
        if self.env.strikes(|faults| faults.idle_breaks, "fault: idle writer breaks") {
            self.store.break_idle_writer(&mut self.env);
        }
        self.delete_records(partition);
        let wish = self.env.faults.wish_roll;
        if wish > 0 && self.env.dice.chance(wish) {
            let machines: Vec<_> = self.nodes.iter().filter_map(|node| node.machines[partition]).collect();
            machines.into_iter().for_each(|machine| self.tell(machine, Event::RollWanted));
        }
    }

    /// Loses or damages an index.
    fn harm_index(&mut self, lose: bool) {
        if let Some(key) = self.store.harm_index(lose, &mut self.env) {
            self.checker.partitions[key.partition].index_harmed = true;
        }
    }

    /// A user deletes records, sometimes more than there are.
    fn delete_records(&mut self, partition: usize) {
        let wish = self.env.faults.delete_records;
        if wish == 0 || !self.env.dice.chance(wish) {
            return;
        }
        let log = &self.checker.partitions[partition];
        let (start, end) = (self.meta.partitions[partition].records.head.log_start.0, log.high_watermark.0 + 1);
        let before = Offset(self.env.dice.between(start.min(end), end));
        for id in self.nodes.iter().filter_map(|node| node.machines[partition]).collect::<Vec<_>>() {
            let Some(running) = self.machines.get_mut(&id) else { continue };
            let token = ReplyToken(running.next_token);
            running.next_token += 1;
            self.tell(id, Event::DeleteRecords { token, before });
        }
    }

    /// The controller moves a partition to another node that is up, if there is one.
    fn want_elsewhere(&mut self, partition: usize) {
        let now = self.meta.partitions[partition].wanted;
        let count = self.nodes.len();
        let other = (now + 1 + self.env.dice.below(count as u64 - 1) as usize) % count;
        if self.nodes[other].up {
            self.env.coverage.hit("fault: intent moved");
            self.want(partition, other);
        }
    }

    /// The faults are over, pauses excepted, which run out: everything must now come to rest by itself.
    pub fn heal(&mut self) {
        self.env.healing = true;
        self.store.down_until = 0;
        self.meta.down_until = 0;
        self.rest_by = self.env.now + HEALING_TIME;
        self.env.after(SECOND, Happening::CheckRest);
    }
}
