//! Deliberate mistakes, one at a time and only for the calling thread, to show that the simulation would find them.
//!
//! `drop-epoch-compare-<command>` (the names of `PartitionCommandKind::name`) lets that command pass whatever epoch it
//! names; `drop-above-log-start` drops segments that are still read. Without the feature `mutants` all of this compiles
//! to nothing.

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// The prefix of a family of mistakes.
#[cfg(feature = "mutants")]
const DROP_EPOCH_COMPARE: &str = "drop-epoch-compare-";

#[cfg(feature = "mutants")]
const DROP_ABOVE_LOG_START: &str = "drop-above-log-start";

/// Makes the named mistake on this thread from now on; `None` makes none.
#[cfg(feature = "mutants")]
pub fn activate(name: Option<&'static str>) {
    let known = |name: &str| name.starts_with(DROP_EPOCH_COMPARE) || name == DROP_ABOVE_LOG_START;
    assert!(name.is_none_or(known), "no mutant is called {name:?}");
    ACTIVE.set(name);
}

/// Whether the epoch compare of this kind of command is to be left out.
#[cfg(feature = "mutants")]
pub(super) fn drops_epoch_compare(command: &str) -> bool {
    ACTIVE.get().and_then(|name| name.strip_prefix(DROP_EPOCH_COMPARE)).is_some_and(|name| name == command)
}

#[cfg(not(feature = "mutants"))]
pub(super) const fn drops_epoch_compare(_command: &str) -> bool {
    false
}

/// Whether segments above the log start are to be dropped as well.
#[cfg(feature = "mutants")]
pub(super) fn drops_above_log_start() -> bool {
    ACTIVE.get() == Some(DROP_ABOVE_LOG_START)
}

#[cfg(not(feature = "mutants"))]
pub(super) const fn drops_above_log_start() -> bool {
    false
}
