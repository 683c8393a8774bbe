//! What holds between any two steps, for tests to look at.

use bmq_common::clock::Monotonic;

use super::{Groups, Membership};

impl Groups {
    /// Panics where an invariant does not hold.
    pub(crate) fn check(&self) {
        for (id, group) in &self.groups {
            let wakeup = self.wakeups.of(id).unwrap_or(Monotonic(u64::MAX));
            let deadline = group.membership.next_deadline().unwrap_or(Monotonic(u64::MAX));
            assert!(wakeup <= deadline, "`{id}` wakes at {wakeup:?}, too late for {deadline:?}");
            assert_eq!(group.offsets.len(), group.offsets.iter().count());
            if let Membership::Classic(classic) = &group.membership {
                classic.check();
            }
        }
    }
}
