//! Deliberate bugs, each breaking one safety rule, that the simulation must catch.
//!
//! With the feature `mutants` off, [`is_on`] is the constant `false` and the compiler removes every trace.

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// A stored ack is sent when the batch was handed to the writer.
    AckBeforeSync,
    /// Progress of the old file still counts after a roll froze it.
    AckFromOldFile,
    /// A roll seals at what was written instead of at the high watermark.
    SealAtWritten,
    /// After a roll the batches above the high watermark are not written again.
    RewriteSkipped,
    /// A claim does not look at segments that are sealed and not closed.
    SealedForgotten,
    /// Recovery takes a file that is shorter than its floor.
    FloorIgnored,
    /// The index holds the producers as they were when batches were taken in.
    SnapshotAtEnqueue,
    /// A duplicate is answered while the original is not durable yet.
    DuplicateEarly,
    /// Batches are shown to followers when they are taken in.
    TailAboveHighWatermark,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 9] = [
        Mutant::AckBeforeSync,
        Mutant::AckFromOldFile,
        Mutant::SealAtWritten,
        Mutant::RewriteSkipped,
        Mutant::SealedForgotten,
        Mutant::FloorIgnored,
        Mutant::SnapshotAtEnqueue,
        Mutant::DuplicateEarly,
        Mutant::TailAboveHighWatermark,
    ];
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches one mutant on, or all off, for the current thread.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// Whether this mutant is on.
    pub fn is_on(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{choose, is_on};

/// Whether this mutant is on: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_on(_: Mutant) -> bool {
    false
}
