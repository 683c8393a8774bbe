//! What a set of runs has met. Something that never happened was not tested.

use std::collections::BTreeMap;
use std::fmt;

/// How often each named thing happened.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.counts {
            *self.counts.entry(name).or_default() += count;
        }
    }

    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// What was expected and never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        EXPECTED.iter().copied().filter(|name| self.count(name) == 0).collect()
    }

    /// Things that happened under a name that nobody expects: a misspelt or forgotten entry of the list.
    pub fn unlisted(&self) -> Vec<&'static str> {
        self.counts.keys().copied().filter(|name| !EXPECTED.contains(name)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, count)) in self.counts.iter().enumerate() {
            let end = if number % 3 == 2 { "\n" } else { "" };
            write!(out, "{name:<34}{count:>9}   {end}")?;
        }
        writeln!(out)
    }
}

/// Every fault, transition, action and answer that a set of runs must meet.
pub const EXPECTED: &[&str] = &[
    // Faults.
    "fault: broker crash",
    "fault: broker pause",
    "fault: power loss",
    "fault: old metadata",
    "fault: namenode down",
    "fault: meta down",
    "fault: message slow",
    "fault: stream lost",
    "fault: intent moved",
    "fault: watch lags",
    "fault: command lost",
    "fault: command answer lost",
    "fault: command applied late",
    "fault: command slow",
    "fault: first sync fails",
    "fault: sync fails before",
    "fault: sync fails after",
    "fault: sync hangs",
    "fault: sync slow",
    "fault: idle writer breaks",
    "fault: create fails",
    "fault: create leaves a file",
    "fault: create slow",
    "fault: store answer lost",
    "fault: store call slow",
    "fault: recovery slow",
    "fault: recovery very slow",
    "fault: index write fails",
    "fault: index lost",
    "fault: index flipped",
    "fault: open file cut",
    "fault: open file flipped",
    "fault: open file scrambled",
    "fault: sealed file cut",
    "fault: sealed file flipped",
    // What the models did.
    "store: fence of a closed file",
    "store: fence of an open file",
    "store: fence again",
    "store: never synced file vanishes",
    "store: floor above synced",
    "store: recovery not done",
    "store: recovery keeps all",
    "store: recovery tears",
    "store: recovery drops unsynced",
    "store: sync refused by fence",
    "store: page lost",
    "store: idle writer breaks",
    "store: closed by its writer",
    "store: closed by recovery",
    "store: file deleted",
    "store: index made from data",
    "store: index replaced",
    "watch: broker sees a newer claim",
    // Commands that were applied, and that were refused.
    "command: claim",
    "command: record_floor",
    "command: finish_recovery",
    "command: open_segment",
    "command: seal_segment",
    "command: close_segment",
    "command: checkpoint",
    "command: release",
    "command: forget_garbage",
    "command: move_log_start",
    "command: repeated",
    "command: fenced",
    "command: claim refused",
    "seal: empty segment",
    "recovery: sealed file not waited for",
    "recovery: found nothing open",
    "recovery: found batches nobody saw",
    "recovery: found the open file empty",
    // Actions.
    "action: command",
    "action: read head",
    "action: list folder",
    "action: fence",
    "action: recover",
    "action: scan",
    "action: create",
    "action: write",
    "action: close file",
    "action: close file without index",
    "action: discard",
    "action: reply",
    "action: records deleted",
    "action: publish",
    "action: closed",
    "action: list garbage",
    "action: damaged range",
    "action: alarm",
    "action: roll begun",
    "action: stopped",
    "roll: first",
    "roll: size",
    "roll: age",
    "roll: wished",
    "roll: broken",
    "scan stop: clean",
    "scan stop: torn header",
    "scan stop: bad header",
    "scan stop: torn batch",
    "scan stop: bad batch",
    "stopped: released",
    "stopped: superseded",
    "stopped: old metadata",
    "damage: refused",
    "alarm: sealed file",
    // Answers.
    "answer: stored",
    "answer: memory",
    "answer: deduplicated",
    "answer: unknown",
    "answer: not owner",
    "answer: out of turn",
    "answer: busy",
    "answer: invalid batch",
    "answer: out of order sequence",
    "answer: damaged",
    "deletion: done",
    "deletion: out of range",
    "deletion: not owner",
    "client: retries unknown",
    "client: new producer epoch",
    "client: memory ack lost",
    "reader: follows",
    "reader: gap",
    "reader: reads a closed segment",
];
