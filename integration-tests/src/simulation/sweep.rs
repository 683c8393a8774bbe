//! Many seeds over the machine's cores.

use std::sync::atomic::{AtomicU64, Ordering};

use super::coverage::Coverage;
use super::mutants::SimulatedMutant;
use super::{Outcome, run};

/// What a sweep met.
#[derive(Debug, Default)]
pub struct Sweep {
    pub seeds: u64,
    pub steps: u64,
    pub coverage: Coverage,
    /// By seed.
    pub failures: Vec<Outcome>,
}

const THREADS: usize = 2;

/// Runs every seed from `first` on.
pub fn all(first: u64, count: u64) -> Sweep {
    let next = AtomicU64::new(first);
    let work = || {
        let mut sweep = Sweep::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return sweep;
            }
            let outcome = run(seed, None, false);
            sweep.seeds += 1;
            sweep.steps += outcome.steps;
            sweep.coverage.merge(&outcome.coverage);
            if outcome.violation.is_some() {
                sweep.failures.push(outcome);
            }
        }
    };
    let mut whole = Sweep::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let part = thread.join().expect("a run catches its own panics");
            whole.seeds += part.seeds;
            whole.steps += part.steps;
            whole.coverage.merge(&part.coverage);
            whole.failures.extend(part.failures);
        }
    });
    whole.failures.sort_by_key(|outcome| outcome.seed);
    whole
}

/// The first of so many seeds that catches a mutant, and what it says.
pub fn hunt(mutant: SimulatedMutant, seeds: u64) -> Option<Outcome> {
    (0..seeds).map(|seed| run(seed, Some(mutant), false)).find(|outcome| outcome.violation.is_some())
}

/// Hunts every mutant, side by side; in their order.
pub fn hunt_all(mutants: &[SimulatedMutant], seeds: u64) -> Vec<(SimulatedMutant, Option<Outcome>)> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut caught = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            let Some(mutant) = mutants.get(number) else { return caught };
            caught.push((number, *mutant, hunt(*mutant, seeds)));
        }
    };
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| found.extend(thread.join().expect("a run catches its own panics")));
    });
    found.sort_by_key(|(number, ..)| *number);
    found.into_iter().map(|(_, mutant, outcome)| (mutant, outcome)).collect()
}
