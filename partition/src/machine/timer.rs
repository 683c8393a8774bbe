//! Waiting: actions to be tried again, and deadlines that have come.

use std::time::Duration;

use bmq_common::clock::Monotonic;

use super::{Action, Machine, Now, Phase};

/// How long to wait before asking a store again for something that failed.
pub(super) const STORE_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Delayed {
    pub at: Monotonic,
    pub action: Action,
}

impl Machine {
    pub(super) fn later(&mut self, wait: Duration, action: Action, now: Now) {
        self.delayed.push(Delayed { at: now.monotonic + wait, action });
    }

    pub(super) fn run_due_timers(&mut self, now: Now) {
        let (due, waiting) = self.delayed.drain(..).partition(|delayed| delayed.at <= now.monotonic);
        self.delayed = waiting;
        let due: Vec<Delayed> = due;
        self.out.extend(due.into_iter().map(|delayed| delayed.action));
        match &self.phase {
            Phase::Serving(_) => self.run_serving_timers(now),
            Phase::Recovering(_) => self.scan_if_ready(now),
            _ => {}
        }
    }
}
