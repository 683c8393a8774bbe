//! What every model shares: virtual time, the order of events, chance, the trace and the verdict.

use std::collections::BTreeMap;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_partition::machine::Now;

use super::coverage::Coverage;
use super::dice::Dice;
use super::faults::Faults;
use super::happening::Happening;
use super::trace::Trace;

/// One millisecond of virtual time.
pub const MS: u64 = 1_000_000;
/// One second of virtual time.
pub const SECOND: u64 = 1_000 * MS;

/// The wall clock at virtual time zero.
const WALL_START_MS: i64 = 1_700_000_000_000;

pub struct Env {
    pub now: u64,
    pub dice: Dice,
    pub faults: Faults,
    pub coverage: Coverage,
    pub trace: Trace,
    /// Faults are over.
    pub healing: bool,
    /// The first rule that was broken.
    pub violation: Option<String>,
    /// By time, then in the order in which they were planned.
    queue: BTreeMap<(u64, u64), Happening>,
    planned: u64,
}

impl Env {
    pub fn new(seed: u64, local: bool, print: bool) -> Self {
        let mut dice = Dice::new(seed);
        let faults = Faults::swarm(&mut dice, local);
        Self {
            now: 0,
            dice,
            faults,
            coverage: Coverage::default(),
            trace: Trace::new(print),
            healing: false,
            violation: None,
            queue: BTreeMap::new(),
            planned: 0,
        }
    }

    pub fn clock(&self) -> Now {
        Now { monotonic: Monotonic(self.now), wall: WallMillis(WALL_START_MS + (self.now / MS) as i64) }
    }

    /// Plans something for `delay` from now. What is planned for the same instant happens in the order planned.
    pub fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub fn at(&mut self, time: u64, happening: Happening) {
        self.planned += 1;
        self.queue.insert((time.max(self.now), self.planned), happening);
    }

    /// Goes on to what happens next.
    pub fn go_on(&mut self) -> Option<Happening> {
        let ((time, _), happening) = self.queue.pop_first()?;
        self.now = time;
        Some(happening)
    }

    /// How long a message takes.
    pub fn hop(&mut self) -> u64 {
        self.dice.between(50_000, 2 * MS)
    }

    /// Whether a fault strikes here. Counts it if so.
    pub fn strikes(&mut self, rate: fn(&Faults) -> u32, name: &'static str) -> bool {
        let rate = rate(&self.faults);
        let struck = !self.healing && rate > 0 && self.dice.chance(rate);
        if struck {
            self.coverage.hit(name);
            self.trace.note(self.now, "fault", &[], || name.to_owned());
        }
        struck
    }

    /// A rule was broken; the first counts.
    pub fn violated(&mut self, rule: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let rule = rule();
            self.trace.note(self.now, "VIOLATION", &[], || rule.clone());
            self.violation = Some(rule);
        }
    }
}
