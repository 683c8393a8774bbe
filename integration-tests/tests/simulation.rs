//! The deterministic simulation, swept over seeds; and the deliberate bugs that it must catch.
//!
//! `SIM_SEED=n` runs one seed and prints its trace, `SIM_SEEDS=n` sweeps more of them, `SIM_FIRST=n` begins elsewhere.

use std::panic;
use std::sync::Once;

use bmq_integration_tests::simulation::{mutants, run, seeds, sweep};

/// Seeds of a sweep, unless told otherwise.
const SEEDS: u64 = 4_000;
/// How soon a mutant must be caught.
const MUTANT_SEEDS: u64 = 1_000;

/// Assertions that a mutant breaks are findings, not noise for the terminal.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let standard = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let named = std::thread::current().name().is_some();
            if named {
                standard(info);
            }
        }));
    });
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// One seed asked for by name: prints what happened.
#[test]
fn one_seed() {
    let Some(seed) = number("SIM_SEED") else { return };
    let name = std::env::var("SIM_MUTANT").ok();
    let mutant = name.map(|name| {
        let found = mutants::all().into_iter().find(|mutant| mutant.to_string() == name);
        found.unwrap_or_else(|| panic!("no mutant is called {name}"))
    });
    let outcome = run(seed, mutant, true);
    println!("{} steps, trace {:016x}", outcome.steps, outcome.trace_hash);
    assert_eq!(outcome.violation, None, "seed {seed}");
}

#[test]
fn seeds_keep_every_rule() {
    quiet_panics();
    let kept: Vec<_> = seeds::KEPT.iter().map(|(seed, what)| (run(*seed, None, false), what)).collect();
    for (outcome, what) in kept {
        assert_eq!(outcome.violation, None, "seed {}, which once found: {what}", outcome.seed);
    }
    let count = number("SIM_SEEDS").unwrap_or(SEEDS);
    let swept = sweep::all(number("SIM_FIRST").unwrap_or(0), count);
    println!("{} seeds, {} steps\n{}", swept.seeds, swept.steps, swept.coverage);
    for outcome in swept.failures.iter().take(20) {
        println!("SIM_SEED={}: {}", outcome.seed, outcome.violation.as_deref().unwrap_or_default());
    }
    assert!(swept.failures.is_empty(), "{} of {} seeds broke a rule", swept.failures.len(), swept.seeds);
    assert_eq!(swept.coverage.unlisted(), [""; 0], "what happens is listed");
    if count >= SEEDS {
        assert_eq!(swept.coverage.missing(), [""; 0], "what is listed happens");
    }
}

#[test]
fn a_seed_is_always_the_same_run() {
    quiet_panics();
    let hashes = || (0..40).map(|seed| run(seed, None, false).trace_hash).collect::<Vec<_>>();
    let first = hashes();
    assert_eq!(first, hashes());
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len(), "different seeds are different runs");
}

#[test]
fn every_mutant_is_caught() {
    quiet_panics();
    let mut escaped = Vec::new();
    for (mutant, caught) in sweep::hunt_all(&mutants::all(), MUTANT_SEEDS) {
        match caught {
            Some(outcome) => {
                let rule = outcome.violation.unwrap_or_default();
                println!("{mutant:<36} seed {:>4}: {rule:.140}", outcome.seed);
            }
            None => escaped.push(mutant.to_string()),
        }
    }
    assert_eq!(escaped, [""; 0], "these were not caught in {MUTANT_SEEDS} seeds");
}
