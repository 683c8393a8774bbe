//! What became of it all, for people: a line for each strike and a table of the faults.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Result, ensure};
use bmq_integration_tests::ack_journal::Entry;
use bmq_integration_tests::bmq_cluster::BmqCluster;
use bmq_integration_tests::history::Violation;
use bmq_integration_tests::log_events::{self, LogEvent};
use bmq_integration_tests::payload::PayloadId;

use crate::strike::{Fault, Strike};

/// Steps on the way back, by the message that tells of each and the field that names the partition.
const DATANODE_PHASES: [(&str, &str, &str); 2] =
    [("given up", "segment writer broke", "file"), ("roll", "rolling the segment", "partition")];
const BROKER_PHASES: [(&str, &str, &str); 3] = [
    ("reassigned", "wrote intents", ""),
    ("claim", "claiming", "partition"),
    ("serves", "partition serves", "partition"),
];

pub struct Report {
    outcomes: Vec<Outcome>,
    acked: usize,
    unknown: usize,
    refused: usize,
    seen: usize,
    interrupted: usize,
    /// When each acknowledged record was.
    acked_at: HashMap<PayloadId, i64>,
    other_violations: usize,
}

/// One strike, from its moment to that of the next.
struct Outcome {
    strike: Strike,
    until: i64,
    acked: usize,
    /// Records sent before and answered later, in the partitions hit.
    outstanding: usize,
    /// Of those, answered only after the victim went on.
    late: usize,
    lost: usize,
    duplicated: usize,
    /// The longest time without an acknowledgement, and where.
    silence: (i64, u32),
    /// Milliseconds from the strike, each the median over the partitions that went through it.
    phases: Vec<(&'static str, i64)>,
}

impl Report {
    pub fn new(journal: &[Entry], strikes: Vec<Strike>, bmq: &BmqCluster) -> Result<Self> {
        let acks = Acks::of(journal);
        let mut events = Vec::new();
        for (_, log) in bmq.logs("broker").into_iter().chain(bmq.logs("controller")) {
            events.extend(log_events::read(&log)?);
        }
        events.sort_by_key(|event| event.at);
        let ends: Vec<i64> = strikes.iter().skip(1).map(|strike| strike.at).chain([i64::MAX]).collect();
        let outcomes = strikes.into_iter().zip(ends);
        let outcomes = outcomes.map(|(strike, until)| Outcome::of(strike, until, journal, &acks, &events)).collect();
        let count = |is: fn(&Entry) -> bool| journal.iter().filter(|entry| is(entry)).count();
        Ok(Self {
            outcomes,
            acked: count(|entry| matches!(entry, Entry::Acked { .. })),
            unknown: count(|entry| matches!(entry, Entry::Unknown { .. })),
            refused: count(|entry| matches!(entry, Entry::Refused { .. })),
            seen: count(|entry| matches!(entry, Entry::Seen { .. })),
            interrupted: count(|entry| matches!(entry, Entry::Interrupted { .. })),
            acked_at: journal.iter().filter_map(ack).map(|(id, _, acked_at)| (id, acked_at)).collect(),
            other_violations: 0,
        })
    }

    /// Assigns what is wrong to the strike after which the record was acknowledged.
    pub fn count(&mut self, violations: &[Violation]) {
        for violation in violations {
            let (id, lost) = match violation {
                Violation::Lost { id, .. } | Violation::Moved { id, .. } => (id, true),
                Violation::Duplicated { id, .. } => (id, false),
                _ => {
                    self.other_violations += 1;
                    continue;
                }
            };
            // What was acknowledged before the first strike counts with it.
            let acked_at = self.acked_at.get(id).copied().unwrap_or(i64::MIN);
            let Some(outcome) = self.outcomes.iter_mut().find(|outcome| acked_at < outcome.until) else { continue };
            *(if lost { &mut outcome.lost } else { &mut outcome.duplicated }) += 1;
        }
    }

    /// A strike at a moment when no answer was outstanding does not count, which is known only afterwards, from the journal.
    /// Most must have counted.
    pub fn require_outstanding_answers(&self) -> Result<()> {
        let counted = self.outcomes.iter().filter(|outcome| outcome.outstanding > 0).count();
        let all = self.outcomes.len();
        ensure!(2 * counted > all, "answers were outstanding at only {counted} of {all} strikes");
        Ok(())
    }
}

/// Id, time of sending, time of the acknowledgement.
fn ack(entry: &Entry) -> Option<(PayloadId, i64, i64)> {
    match entry {
        Entry::Acked { id, sent_at, acked_at, .. } => Some((*id, *sent_at, *acked_at)),
        _ => None,
    }
}

/// Partition, time of sending, time of the answer, whichever it was.
fn answer(entry: &Entry) -> Option<(u32, i64, i64)> {
    match entry {
        Entry::Acked { id, sent_at, acked_at: at, .. }
        | Entry::Unknown { id, sent_at, failed_at: at, .. }
        | Entry::Refused { id, sent_at, failed_at: at, .. } => Some((id.partition, *sent_at, *at)),
        Entry::Began { .. } | Entry::Seen { .. } | Entry::Interrupted { .. } => None,
    }
}

/// When each partition acknowledged something, in order.
struct Acks(HashMap<u32, Vec<i64>>);

impl Acks {
    fn of(journal: &[Entry]) -> Self {
        let mut times: HashMap<u32, Vec<i64>> = HashMap::new();
        for (id, _, acked_at) in journal.iter().filter_map(ack) {
            times.entry(id.partition).or_default().push(acked_at);
        }
        times.values_mut().for_each(|times| times.sort_unstable());
        Self(times)
    }

    fn times(&self, partition: u32) -> &[i64] {
        self.0.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// The longest pause that ended between the two moments: one that lasts longer belongs to the next strike.
    fn silence(&self, partition: u32, from: i64, until: i64) -> i64 {
        let pauses = self.times(partition).windows(2).filter(|pair| pair[1] > from && pair[1] <= until);
        pauses.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    fn first_after(&self, partition: u32, at: i64) -> Option<i64> {
        self.times(partition).iter().copied().find(|time| *time > at)
    }
}

impl Outcome {
    fn of(strike: Strike, until: i64, journal: &[Entry], acks: &Acks, events: &[LogEvent]) -> Self {
        let at = strike.at;
        let hit: Vec<u32> = strike.hits.iter().map(|(file, _)| file.partition).collect();
        let answers = journal.iter().filter_map(answer);
        let outstanding: Vec<i64> = answers
            .filter(|(partition, sent_at, answered_at)| hit.contains(partition) && *sent_at < at && *answered_at > at)
            .map(|(_, _, answered_at)| answered_at)
            .collect();
        let silences = strike.affected.iter().map(|partition| (acks.silence(*partition, at, until), *partition));
        Self {
            acked: journal.iter().filter_map(ack).filter(|(_, _, acked_at)| (at..until).contains(acked_at)).count(),
            outstanding: outstanding.len(),
            late: outstanding.iter().filter(|answered_at| **answered_at > strike.healed_at).count(),
            lost: 0,
            duplicated: 0,
            silence: silences.max().unwrap_or_default(),
            phases: phases(&strike, until, acks, events),
            strike,
            until,
        }
    }
}

fn phases(strike: &Strike, until: i64, acks: &Acks, events: &[LogEvent]) -> Vec<(&'static str, i64)> {
    let names: &[_] = if strike.fault.hits_a_broker() { &BROKER_PHASES } else { &DATANODE_PHASES };
    let mut reached: Vec<(&str, Vec<i64>)> = names.iter().map(|(phase, ..)| (*phase, Vec::new())).collect();
    let mut first_acks = Vec::new();
    for partition in &strike.affected {
        let mut last = None;
        for ((_, message, field), (_, times)) in names.iter().zip(&mut reached) {
            let concerns = |event: &&LogEvent| {
                let in_time = event.at >= last.unwrap_or(strike.at) && event.at < until;
                in_time
                    && event.message == *message
                    && (field.is_empty() || names_partition(event.field(field), *partition))
            };
            let Some(event) = events.iter().find(concerns) else { continue };
            times.push(event.at - strike.at);
            last = last.max(Some(event.at));
        }
        let ack = last.and_then(|last| acks.first_after(*partition, last));
        first_acks.extend(ack.map(|ack| ack - strike.at));
    }
    reached.push(("first ack", first_acks));
    reached.into_iter().filter_map(|(phase, times)| Some((phase, median(times)?))).collect()
}

/// `topic/partition`, or a file below `cluster/topic/partition`.
fn names_partition(text: &str, partition: u32) -> bool {
    let mut parts = text.split('/').rev().skip_while(|part| part.ends_with(".log"));
    parts.next() == Some(&partition.to_string())
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn write_phases(out: &mut fmt::Formatter<'_>, phases: &[(&str, i64)]) -> fmt::Result {
    let texts: Vec<String> = phases.iter().map(|(phase, ms)| format!("{phase} {}", seconds(*ms))).collect();
    out.write_str(&texts.join(" → "))
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out)?;
        for (number, outcome) in self.outcomes.iter().enumerate() {
            let Outcome { strike, outstanding, late, silence: (silence, partition), phases, .. } = outcome;
            writeln!(out, "{:>3}. {strike}", number + 1)?;
            write!(out, "     {outstanding} answers outstanding, {late} given after healing; ")?;
            write!(out, "without an ack up to {} (partition {partition}); ", seconds(*silence))?;
            write_phases(out, phases)?;
            writeln!(out)?;
        }
        writeln!(
            out,
            "\n{:<24} {:>5} {:>8} {:>5} {:>10}  {:>19}  phases (medians)",
            "fault", "times", "acked", "lost", "duplicated", "no ack: median, max"
        )?;
        Fault::ALL.into_iter().try_for_each(|fault| self.write_row(out, fault))?;
        writeln!(
            out,
            "In all {} acknowledged, {} unknown, {} refused; a consumer saw {} meanwhile and was interrupted {} times; \
             {} other violations.",
            self.acked, self.unknown, self.refused, self.seen, self.interrupted, self.other_violations
        )
    }
}

impl Outcome {
    fn counts_for(&self, fault: Fault) -> bool {
        self.strike.fault == fault && self.outstanding > 0
    }
}

impl Report {
    fn write_row(&self, out: &mut fmt::Formatter<'_>, fault: Fault) -> fmt::Result {
        let of_fault: Vec<&Outcome> = self.outcomes.iter().filter(|outcome| outcome.counts_for(fault)).collect();
        let sum = |what: fn(&Outcome) -> usize| of_fault.iter().map(|outcome| what(outcome)).sum::<usize>();
        let silences: Vec<i64> = of_fault.iter().map(|outcome| outcome.silence.0).collect();
        let (middle, most) = (median(silences.clone()).unwrap_or_default(), silences.iter().max().copied());
        write!(
            out,
            "{:<24} {:>5} {:>8} {:>5} {:>10}  {:>9} {:>9}  ",
            fault.name(),
            of_fault.len(),
            sum(|outcome| outcome.acked),
            sum(|outcome| outcome.lost),
            sum(|outcome| outcome.duplicated),
            seconds(middle),
            seconds(most.unwrap_or_default())
        )?;
        let mut by_phase: Vec<(&str, Vec<i64>)> = Vec::new();
        for (phase, ms) in of_fault.iter().flat_map(|outcome| &outcome.phases) {
            match by_phase.iter_mut().find(|(name, _)| name == phase) {
                Some((_, times)) => times.push(*ms),
                None => by_phase.push((phase, vec![*ms])),
            }
        }
        let medians: Vec<_> = by_phase.into_iter().filter_map(|(phase, times)| Some((phase, median(times)?))).collect();
        write_phases(out, &medians)?;
        writeln!(out)
    }
}
