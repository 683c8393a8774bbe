//! Judges what clients were told against what is read back.
//!
//! Rules, each with a history in the tests that breaks it:
//! * what is read is whole, was sent, and was not refused as certainly not written;
//! * every acknowledged record is read at the offset that was acknowledged;
//! * no record is read twice, and none in another partition than its own;
//! * one producer's records in one partition are in the order in which they were sent;
//! * a record sent after another was acknowledged stands behind it;
//! * offsets begin at 0 and leave none out;
//! * what a consumer saw earlier is still there, at the same offset.

use std::collections::HashMap;
use std::fmt;

use crate::ack_journal::Entry;
use crate::payload::PayloadId;

/// A record as a reader found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRecord {
    pub partition: u32,
    pub offset: u64,
    pub payload: Vec<u8>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: u32,
    pub offset: u64,
}

/// One way in which a history is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged, and nowhere to be read.
    Lost { id: PayloadId, acked: Place },
    /// Acknowledged at one place, read at another.
    Moved { id: PayloadId, acked: Place, found: Place },
    /// Read more than once.
    Duplicated { id: PayloadId, first: Place, again: Place },
    /// Read behind a record that its producer sent later.
    Reordered { id: PayloadId, at: Place, after: u64 },
    /// Read before a record that had been acknowledged when this one was sent.
    Overtook { id: PayloadId, at: Place },
    /// Not whole.
    Torn { at: Place },
    /// Never sent, or sent to another partition.
    Invented { id: PayloadId, at: Place },
    /// The client was told that it was certainly not written.
    WrittenAfterAll { id: PayloadId, at: Place },
    /// The next record does not have the next offset.
    Gap { partition: u32, expected: u64, found: u64 },
    /// A consumer saw another record there, or there is none any more.
    Changed { at: Place, seen: Option<PayloadId>, read: Option<PayloadId> },
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "partition {} offset {}", self.partition, self.offset)
    }
}

/// What a client knows of a record it sent.
#[derive(Clone, Copy)]
struct Sent {
    fate: Fate,
    sent_at: i64,
}

#[derive(Clone, Copy)]
enum Fate {
    Acked { offset: u64, acked_at: i64 },
    Unknown,
    Refused,
}

/// Everything that is wrong. `records` are ordered by partition, and within it as they were read.
pub fn judge(journal: &[Entry], records: &[ReadRecord]) -> Vec<Violation> {
    let sent = sent_records(journal);
    let read: Vec<(Place, Option<PayloadId>)> = records.iter().map(identified).collect();
    let mut found = judge_offsets(&read);
    found.extend(judge_origin(&sent, &read));
    found.extend(judge_copies(&read));
    found.extend(judge_acks(&sent, &read));
    found.extend(judge_order(&read));
    found.extend(judge_times(&sent, &read));
    found.extend(judge_sightings(journal, &read));
    found
}

fn identified(record: &ReadRecord) -> (Place, Option<PayloadId>) {
    let place = Place { partition: record.partition, offset: record.offset };
    (place, PayloadId::parse(&record.payload))
}

fn sent_records(journal: &[Entry]) -> HashMap<PayloadId, Sent> {
    let sent = |entry: &Entry| match *entry {
        Entry::Acked { id, offset, sent_at, acked_at, .. } => {
            Some((id, Sent { fate: Fate::Acked { offset, acked_at }, sent_at }))
        }
        Entry::Unknown { id, sent_at, .. } => Some((id, Sent { fate: Fate::Unknown, sent_at })),
        Entry::Refused { id, sent_at, .. } => Some((id, Sent { fate: Fate::Refused, sent_at })),
        Entry::Began { .. } | Entry::Seen { .. } | Entry::Interrupted { .. } => None,
    };
    journal.iter().filter_map(sent).collect()
}

fn judge_offsets(read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let mut next: HashMap<u32, u64> = HashMap::new();
    let mut gaps = Vec::new();
    for (Place { partition, offset }, _) in read {
        let expected = next.entry(*partition).or_default();
        if offset != expected {
            gaps.push(Violation::Gap { partition: *partition, expected: *expected, found: *offset });
        }
        *expected = offset + 1;
    }
    gaps
}

fn judge_origin(sent: &HashMap<PayloadId, Sent>, read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let wrong = |&(at, id): &(Place, Option<PayloadId>)| {
        let Some(id) = id else { return Some(Violation::Torn { at }) };
        match sent.get(&id) {
            Some(Sent { fate: Fate::Refused, .. }) => Some(Violation::WrittenAfterAll { id, at }),
            Some(_) if id.partition == at.partition => None,
            _ => Some(Violation::Invented { id, at }),
        }
    };
    read.iter().filter_map(wrong).collect()
}

fn judge_copies(read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let mut first_places = HashMap::new();
    let mut copies = Vec::new();
    for (at, id) in read.iter().filter_map(|(at, id)| Some((*at, (*id)?))) {
        let first = *first_places.entry(id).or_insert(at);
        if first != at {
            copies.push(Violation::Duplicated { id, first, again: at });
        }
    }
    copies
}

fn judge_acks(sent: &HashMap<PayloadId, Sent>, read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let at_place: HashMap<Place, PayloadId> = read.iter().filter_map(|(at, id)| Some((*at, (*id)?))).collect();
    let places: HashMap<PayloadId, Place> = at_place.iter().map(|(at, id)| (*id, *at)).collect();
    let mut wrong = Vec::new();
    for (&id, sent) in sent {
        let Fate::Acked { offset, .. } = sent.fate else { continue };
        let acked = Place { partition: id.partition, offset };
        if at_place.get(&acked) == Some(&id) {
            continue;
        }
        let violation = match places.get(&id) {
            None => Violation::Lost { id, acked },
            Some(&found) => Violation::Moved { id, acked, found },
        };
        wrong.push((acked, violation));
    }
    wrong.sort_by_key(|(acked, _)| *acked);
    wrong.into_iter().map(|(_, violation)| violation).collect()
}

fn judge_order(read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let mut newest: HashMap<(u32, u32), u64> = HashMap::new();
    let mut wrong = Vec::new();
    for (at, id) in read.iter().filter_map(|(at, id)| Some((*at, (*id)?))) {
        let after = newest.entry((id.producer, at.partition)).or_insert(id.sequence);
        if id.sequence < *after {
            wrong.push(Violation::Reordered { id, at, after: *after });
        }
        *after = id.sequence.max(*after);
    }
    wrong
}

/// From the end back: nothing may have been sent after something behind it was acknowledged.
fn judge_times(sent: &HashMap<PayloadId, Sent>, read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let mut first_ack_behind: HashMap<u32, i64> = HashMap::new();
    let mut wrong = Vec::new();
    for (at, id) in read.iter().rev().filter_map(|(at, id)| Some((*at, (*id)?))) {
        let Some(sent) = sent.get(&id) else { continue };
        let behind = first_ack_behind.entry(at.partition).or_insert(i64::MAX);
        if sent.sent_at > *behind {
            wrong.push(Violation::Overtook { id, at });
        }
        if let Fate::Acked { acked_at, .. } = sent.fate {
            *behind = acked_at.min(*behind);
        }
    }
    wrong
}

fn judge_sightings(journal: &[Entry], read: &[(Place, Option<PayloadId>)]) -> Vec<Violation> {
    let places: HashMap<Place, Option<PayloadId>> = read.iter().copied().collect();
    let changed = |entry: &Entry| {
        let Entry::Seen { partition, offset, id: seen } = *entry else { return None };
        let at = Place { partition, offset };
        let read = places.get(&at).copied().flatten();
        (seen.is_none() || read != seen).then_some(Violation::Changed { at, seen, read })
    };
    journal.iter().filter_map(changed).collect()
}

#[cfg(test)]
mod tests;
