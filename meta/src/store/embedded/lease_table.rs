//! The leases of one process: when each ends and which keys it holds.
//!
//! Invariant: a key is held by at most one lease, and then `holders` names it and that lease's `keys` has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::Commit;
use crate::store::{ErrorKind, LeaseId, MetaStoreError};

#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
    holders: HashMap<String, LeaseId>,
}

#[derive(Debug)]
struct Lease {
    time_to_live: Duration,
    end: Instant,
    keys: BTreeSet<String>,
}

impl LeaseTable {
    pub(super) fn insert(&mut self, lease: LeaseId, time_to_live: Duration, now: Instant) {
        let entry = Lease { time_to_live, end: now + time_to_live, keys: BTreeSet::new() };
        let before = self.leases.insert(lease, entry);
        assert!(before.is_none(), "lease {} was given twice", lease.0);
    }

    /// A lease whose time has passed is gone, whether or not its keys were deleted yet.
    pub(super) fn check_live(&self, lease: LeaseId, now: Instant) -> Result<(), MetaStoreError> {
        match self.leases.get(&lease) {
            Some(entry) if entry.end > now => Ok(()),
            _ => Err(gone(lease)),
        }
    }

    pub(super) fn renew(&mut self, lease: LeaseId, now: Instant) -> Result<(), MetaStoreError> {
        self.check_live(lease, now)?;
        let entry = self.leases.get_mut(&lease).ok_or_else(|| gone(lease))?;
        entry.end = now + entry.time_to_live;
        Ok(())
    }

    /// The next lease to end. A scan: there is one lease per node.
    pub(super) fn next_end(&self) -> Option<(Instant, LeaseId)> {
        self.leases.iter().map(|(lease, entry)| (entry.end, *lease)).min()
    }

    pub(super) fn keys(&self, lease: LeaseId) -> Vec<String> {
        self.leases.get(&lease).map(|entry| entry.keys.iter().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        let keys = self.leases.remove(&lease).map(|entry| entry.keys).unwrap_or_default();
        for key in &keys {
            self.holders.remove(key);
        }
    }

    /// Follows what a commit did to the keys.
    pub(super) fn absorb(&mut self, commit: &Commit) {
        commit.deletes.iter().for_each(|key| self.free(key));
        for put in &commit.puts {
            self.free(&put.key);
            let Some(lease) = put.lease else { continue };
            if let Some(entry) = self.leases.get_mut(&lease) {
                entry.keys.insert(put.key.clone());
                self.holders.insert(put.key.clone(), lease);
            }
        }
    }

    fn free(&mut self, key: &str) {
        let Some(holder) = self.holders.remove(key) else { return };
        if let Some(entry) = self.leases.get_mut(&holder) {
            entry.keys.remove(key);
        }
    }
}

fn gone(lease: LeaseId) -> MetaStoreError {
    MetaStoreError::new(ErrorKind::LeaseGone, format!("lease {} has ended", lease.0))
}
