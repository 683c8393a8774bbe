//! Named conditions that must all hold before a process takes traffic.

use std::sync::Arc;

use parking_lot::Mutex;

/// The conditions of one process. Clones share them; with none registered it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<Vec<Condition>>>,
}

/// A condition that does not hold, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    pub name: String,
    pub reason: String,
}

#[derive(Debug)]
struct Condition {
    name: String,
    /// Why it does not hold; none when it does.
    missing: Option<String>,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition that does not hold yet.
    pub fn register(&self, name: impl Into<String>) -> ReadyFlag {
        let mut conditions = self.conditions.lock();
        conditions.push(Condition { name: name.into(), missing: Some("starting".to_owned()) });
        ReadyFlag { readiness: self.clone(), index: conditions.len() - 1 }
    }

    pub fn is_ready(&self) -> bool {
        self.conditions.lock().iter().all(|condition| condition.missing.is_none())
    }

    /// The conditions that do not hold, in the order of registration.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let conditions = self.conditions.lock();
        let missing = conditions.iter().filter_map(|condition| {
            condition.missing.as_ref().map(|reason| NotReady { name: condition.name.clone(), reason: reason.clone() })
        });
        missing.collect()
    }
}

/// The handle of whoever knows whether one condition holds.
#[derive(Clone, Debug)]
pub struct ReadyFlag {
    readiness: Readiness,
    index: usize,
}

impl ReadyFlag {
    /// `reason` tells the operator why it is not ready; it is not shown when `ready`.
    pub fn set(&self, ready: bool, reason: impl Into<String>) {
        let missing = (!ready).then(|| reason.into());
        self.readiness.conditions.lock()[self.index].missing = missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (meta, store) = (readiness.register("meta"), readiness.register("store"));
        let check = |expect: &[(&str, &str)]| {
            let found = readiness.not_ready();
            let found: Vec<_> = found.iter().map(|n| (n.name.as_str(), n.reason.as_str())).collect();
            assert_eq!(found, expect);
            assert_eq!(readiness.is_ready(), expect.is_empty());
        };
        check(&[("meta", "starting"), ("store", "starting")]);
        meta.set(true, "");
        check(&[("store", "starting")]);
        store.set(true, "");
        check(&[]);
        store.set(false, "the disk is full");
        check(&[("store", "the disk is full")]);
    }
}
