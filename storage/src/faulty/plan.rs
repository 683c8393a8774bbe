//! Which operation goes wrong, and how.

use std::collections::HashMap;
use std::time::Duration;

use bmq_common::Random;
use parking_lot::Mutex;

/// The kinds of operations that can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    /// Making durable what one append brought.
    Sync,
    Close,
    Fence,
    Recover,
    Read,
    Length,
    WriteIndex,
    ReadIndex,
    List,
    /// Of a segment or of a topic.
    Delete,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Create => "creating",
            Operation::Sync => "syncing",
            Operation::Close => "closing",
            Operation::Fence => "fencing",
            Operation::Recover => "recovering",
            Operation::Read => "reading",
            Operation::Length => "asking the length",
            Operation::WriteIndex => "writing the index",
            Operation::ReadIndex => "reading the index",
            Operation::List => "listing",
            Operation::Delete => "deleting",
        }
    }
}

/// How an operation goes wrong. A writer is over after all of them but `Slow` and `Damage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the answer says that it failed.
    Fail,
    /// Nothing is done, for want of space.
    NoSpace,
    /// It is done after a while.
    Slow(Duration),
    /// It is done, and the answer says that it failed.
    FailAfter,
    /// Nothing is done and no answer comes. For a sync: nothing of this append and of later ones is written.
    Hang,
    /// It is done and no answer comes.
    HangAfter,
    /// One bit is wrong in what a read returns or a sync writes; nothing says so. No effect on other operations.
    Damage,
}

#[derive(Default)]
pub(super) struct FaultPlan {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    once: Vec<Once>,
    at_random: Vec<AtRandom>,
    struck: HashMap<Operation, u64>,
}

struct Once {
    operation: Operation,
    skip: usize,
    fault: Fault,
}

struct AtRandom {
    random: Random,
    operation: Operation,
    chance: (u64, u64),
    fault: Fault,
}

impl FaultPlan {
    pub(super) fn inject(&self, operation: Operation, skip: usize, fault: Fault) {
        self.state.lock().once.push(Once { operation, skip, fault });
    }

    pub(super) fn inject_at_random(&self, random: Random, operation: Operation, chance: (u64, u64), fault: Fault) {
        self.state.lock().at_random.push(AtRandom { random, operation, chance, fault });
    }

    pub(super) fn heal(&self) {
        let mut state = self.state.lock();
        state.once.clear();
        state.at_random.clear();
    }

    pub(super) fn struck(&self, operation: Operation) -> u64 {
        self.state.lock().struck.get(&operation).copied().unwrap_or(0)
    }

    /// The fault that strikes the operation that begins now.
    pub(super) fn draw(&self, operation: Operation) -> Option<Fault> {
        let mut state = self.state.lock();
        let fault = state.draw_once(operation).or_else(|| state.draw_at_random(operation))?;
        *state.struck.entry(operation).or_default() += 1;
        Some(fault)
    }
}

impl State {
    fn draw_once(&mut self, operation: Operation) -> Option<Fault> {
        let due = self.once.iter().position(|once| once.operation == operation && once.skip == 0);
        for once in self.once.iter_mut().filter(|once| once.operation == operation) {
            once.skip = once.skip.saturating_sub(1);
        }
        due.map(|at| self.once.remove(at).fault)
    }

    fn draw_at_random(&self, operation: Operation) -> Option<Fault> {
        let mut planned = self.at_random.iter().filter(|planned| planned.operation == operation);
        planned.find(|planned| planned.random.chance(planned.chance.0, planned.chance.1)).map(|planned| planned.fault)
    }
}
