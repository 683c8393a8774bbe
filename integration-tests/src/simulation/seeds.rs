//! Seeds that found something once. They run always.

/// A seed, and what it found.
///
/// A change of a model gives a seed another run. To find new seeds for an entry, bring the mistake back and sweep.
pub const KEPT: &[(u64, &str)] = &[
    (45, "closing a file was tried again with later segments among the earlier ones: an index from the future"),
    (6, "a release that ran out of time left its deadline in the past: the driver would spin"),
    (150, "a lane's later batch was taken after an earlier one was refused during recovery"),
    (892, "the same, for a plain producer: out of order"),
    (311, "a batch below the checkpoint whose length was damaged passed for a torn one: lost in silence"),
    (139, "an open_segment applied late, when its file was garbage already, dropped the open segment with its data"),
];
