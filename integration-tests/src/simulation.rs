//! A deterministic simulation of partitions and everything around them, on one thread and in virtual time.
//!
//! The partition's machine, the metadata transitions, the scan of segments and the formats are the real ones; brokers,
//! store, network, clients and time are models. One seed is one run, and always the same run. `docs/SIMULATION.md` tells
//! what is modelled and what is checked. Start reading at [`world`]; the rules are in [`checker`].

pub mod acting;
pub mod batch;
pub mod broker;
pub mod calls;
pub mod chaos;
pub mod checker;
pub mod client;
pub mod coverage;
pub mod dice;
pub mod ending;
pub mod env;
pub mod faults;
pub mod happening;
pub mod hosting;
pub mod model_file;
pub mod model_meta;
pub mod model_store;
pub mod mutants;
pub mod reader;
pub mod seeds;
pub mod sending;
pub mod store_view;
pub mod sweep;
pub mod trace;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use coverage::Coverage;
use mutants::SimulatedMutant;
use world::World;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub trace_hash: u64,
    pub steps: u64,
    pub coverage: Coverage,
    /// The first rule that was broken.
    pub violation: Option<String>,
}

/// Runs one seed. With `print`, every step is written to the standard output.
pub fn run(seed: u64, mutant: Option<SimulatedMutant>, print: bool) -> Outcome {
    mutants::switch(mutant);
    let mut world = World::new(seed, print);
    world.store.fence_seen_before_sync = mutant == Some(SimulatedMutant::FenceSeenBeforeSync);
    // An assertion of the machine that fails is a finding like any other.
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    mutants::switch(None);
    if let Err(panic) = ran {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.env.violated(|| format!("assertion: {}", message.unwrap_or_default()));
    }
    Outcome {
        seed,
        trace_hash: world.env.trace.hash(),
        steps: world.steps,
        coverage: world.env.coverage,
        violation: world.env.violation,
    }
}
