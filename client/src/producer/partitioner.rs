//! Which partition a record goes to: the one it names, the one its key hashes to, or the one that is filling up.

use bmq_common::Random;
use bmq_proto::murmur2::partition_for_key;

use crate::Record;

/// The partition that takes a topic's records without a key, until its batch is on its way or it has had a batch's worth
/// of them. So they fill one batch after the other instead of a little of each, and under load all partitions get their
/// share (the idea of Kafka's KIP-794).
pub(super) struct Sticky {
    partition: u32,
    /// Bytes that went there since it was chosen.
    taken_bytes: usize,
    batch_bytes: usize,
}

impl Sticky {
    pub fn new(partition_count: u32, batch_bytes: usize, random: &Random) -> Self {
        Self { partition: random.below(partition_count.into()) as u32, taken_bytes: 0, batch_bytes }
    }

    /// The partition for a record of `bytes` without a key. `has_open_batch` tells whether a partition's batch still
    /// takes records.
    fn choose(
        &mut self,
        bytes: usize,
        partition_count: u32,
        random: &Random,
        has_open_batch: impl Fn(u32) -> bool,
    ) -> u32 {
        let gone = self.partition >= partition_count;
        let had_its_share = self.taken_bytes >= self.batch_bytes;
        if gone || had_its_share || (self.taken_bytes > 0 && !has_open_batch(self.partition)) {
            self.partition = other_than(self.partition, partition_count, random);
            self.taken_bytes = 0;
        }
        self.taken_bytes += bytes.max(1);
        self.partition
    }
}

/// Any of the partitions but this one, if there are others.
fn other_than(partition: u32, partition_count: u32, random: &Random) -> u32 {
    if partition_count == 1 {
        return 0;
    }
    if partition >= partition_count {
        return random.below(partition_count.into()) as u32;
    }
    let step = 1 + random.below(u64::from(partition_count) - 1);
    ((u64::from(partition) + step) % u64::from(partition_count)) as u32
}

/// The partition for `record`.
pub(super) fn partition_for(
    record: &Record,
    partition_count: u32,
    sticky: &mut Sticky,
    random: &Random,
    has_open_batch: impl Fn(u32) -> bool,
) -> u32 {
    match (record.partition, &record.key) {
        (Some(partition), _) => partition,
        (None, Some(key)) => partition_for_key(key, partition_count).0,
        (None, None) => {
            let bytes = record.value.as_ref().map_or(0, |value| value.len());
            sticky.choose(bytes, partition_count, random, has_open_batch)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_named_partition_wins_over_the_key() {
        let random = Random::from_seed(1);
        let mut sticky = Sticky::new(10, 1000, &random);
        let mut choose = |record: Record| partition_for(&record, 10, &mut sticky, &random, |_| false);
        assert_eq!(choose(Record::value("v").with_key("a").to_partition(7)), 7);
        let expected = partition_for_key(b"a", 10).0;
        assert_eq!(choose(Record::value("v").with_key("a")), expected);
    }

    #[test]
    fn keyless_records_stay_while_the_batch_is_open_and_then_move() {
        let random = Random::from_seed(2);
        let mut sticky = Sticky::new(4, 1000, &random);
        let first = sticky.choose(1, 4, &random, |_| false);
        assert_eq!(sticky.choose(1, 4, &random, |_| true), first);
        let mut seen = BTreeSet::new();
        let mut previous = first;
        for _ in 0..100 {
            let next = sticky.choose(1, 4, &random, |_| false);
            assert_ne!(next, previous);
            seen.insert(next);
            previous = next;
        }
        assert_eq!(seen.len(), 4);
        assert!(sticky.choose(1, 1, &random, |_| true) == 0, "the topic was made again with one partition");
    }
    #[test]
    fn keyless_records_move_on_after_a_batchs_worth_even_if_the_batch_stays_open() {
        let random = Random::from_seed(3);
        let mut sticky = Sticky::new(4, 1000, &random);
        let chosen: Vec<u32> = (0..30).map(|_| sticky.choose(100, 4, &random, |_| true)).collect();
        assert!(chosen.chunks(10).all(|stay| stay.iter().all(|partition| *partition == stay[0])), "{chosen:?}");
        assert_ne!(chosen[0], chosen[10]);
    }
}
