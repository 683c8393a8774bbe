//! When which group wants to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use bmq_common::clock::Monotonic;

/// At most one wake-up per group. One that is too early does no harm, so a deadline that only moves further away (a
/// heartbeat) need not be set anew.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    by_time: BTreeSet<(Monotonic, String)>,
    by_group: BTreeMap<String, Monotonic>,
}

impl Wakeups {
    pub fn first(&self) -> Option<Monotonic> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub fn set(&mut self, group: &str, at: Option<Monotonic>) {
        let known = self.by_group.get(group).copied();
        if known == at {
            return;
        }
        if let Some(known) = known {
            self.by_group.remove(group);
            self.by_time.remove(&(known, group.to_owned()));
        }
        if let Some(at) = at {
            self.by_group.insert(group.to_owned(), at);
            self.by_time.insert((at, group.to_owned()));
        }
    }

    #[cfg(test)]
    pub fn of(&self, group: &str) -> Option<Monotonic> {
        self.by_group.get(group).copied()
    }

    /// Removes and returns the groups whose time has come.
    pub fn take_due(&mut self, now: Monotonic) -> Vec<String> {
        let mut due = Vec::new();
        while self.first().is_some_and(|at| at <= now) {
            let (_, group) = self.by_time.pop_first().expect("it was just seen");
            self.by_group.remove(&group);
            due.push(group);
        }
        due
    }
}
