//! Deliberate bugs, one at a time, that the simulation must notice.

use std::fmt;

use bmq_meta::transition::mutant as meta_mutant;
use bmq_partition::mutant::{self, Mutant};

/// A deliberate bug, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedMutant {
    Machine(Mutant),
    /// The transition of this command does not compare the epoch.
    EpochCompare(&'static str),
    /// A move of the log start drops segments above it.
    DropAboveLogStart,
    /// The local store looks for a fence before the bytes are durable instead of after.
    FenceSeenBeforeSync,
}

/// The commands that compare an epoch, as their mutants are called.
const EPOCH_COMPARES: [&str; 9] = [
    "drop-epoch-compare-record_floor",
    "drop-epoch-compare-finish_recovery",
    "drop-epoch-compare-open_segment",
    "drop-epoch-compare-seal_segment",
    "drop-epoch-compare-close_segment",
    "drop-epoch-compare-checkpoint",
    "drop-epoch-compare-release",
    "drop-epoch-compare-forget_garbage",
    "drop-epoch-compare-move_log_start",
];

/// Every mutant.
pub fn all() -> Vec<SimulatedMutant> {
    let machine = Mutant::ALL.into_iter().map(SimulatedMutant::Machine);
    let meta = EPOCH_COMPARES.into_iter().map(SimulatedMutant::EpochCompare);
    machine.chain(meta).chain([SimulatedMutant::DropAboveLogStart, SimulatedMutant::FenceSeenBeforeSync]).collect()
}

/// Switches one on for this thread, and all others off.
pub fn switch(chosen: Option<SimulatedMutant>) {
    mutant::choose(match chosen {
        Some(SimulatedMutant::Machine(mutant)) => Some(mutant),
        _ => None,
    });
    meta_mutant::activate(match chosen {
        Some(SimulatedMutant::EpochCompare(name)) => Some(name),
        Some(SimulatedMutant::DropAboveLogStart) => Some("drop-above-log-start"),
        _ => None,
    });
}

impl fmt::Display for SimulatedMutant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimulatedMutant::Machine(mutant) => write!(out, "{mutant:?}"),
            SimulatedMutant::EpochCompare(name) => out.write_str(name),
            SimulatedMutant::DropAboveLogStart => out.write_str("DropAboveLogStart"),
            SimulatedMutant::FenceSeenBeforeSync => out.write_str("FenceSeenBeforeSync"),
        }
    }
}
