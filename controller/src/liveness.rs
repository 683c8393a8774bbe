//! Who counts as dead, from sessions that come and go. Pure.
//!
//! One broker's session that ends means that its partitions move at once. When many end together, the cause is more
//! likely between the brokers and the metadata service than in the brokers, and moving everything would make it worse:
//! so if a third or more of the sessions, and more than one, end within one session time, those brokers are *held*:
//! they get one more session time to return, and what they have stays.
//!
//! Being wrong is safe: fencing guards the data, not this.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::Monotonic;
use bmq_proto::NodeId;

/// The brokers seen. Invariants: `usable` and `ended` are disjoint; `held` are those of `ended` whose time to return
/// has not passed yet.
#[derive(Clone, Debug)]
pub struct Liveness {
    session_time: Duration,
    /// Whether the first list has come.
    begun: bool,
    usable: BTreeSet<NodeId>,
    ended: BTreeMap<NodeId, Ended>,
    held: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Monotonic,
    /// Equal to `at` if it is not held at all.
    held_until: Monotonic,
}

impl Liveness {
    pub fn new(session_time: Duration) -> Self {
        Liveness { session_time, begun: false, usable: BTreeSet::new(), ended: BTreeMap::new(), held: BTreeSet::new() }
    }

    /// Brokers that have a session.
    pub fn usable(&self) -> &BTreeSet<NodeId> {
        &self.usable
    }

    /// Brokers without one whose partitions stay for now.
    pub fn held(&self) -> &BTreeSet<NodeId> {
        &self.held
    }

    /// Takes in the sessions there are now. Of the brokers that have partitions (`named`) but had no session when this
    /// began, nobody knows since when: they are held.
    pub fn observe(&mut self, sessions: BTreeSet<NodeId>, named: impl Iterator<Item = NodeId>, now: Monotonic) {
        let vanished: Vec<NodeId> = match self.begun {
            true => self.usable.difference(&sessions).copied().collect(),
            false => named.filter(|node| !sessions.contains(node)).collect(),
        };
        self.ended.retain(|node, _| !sessions.contains(node));
        self.usable = sessions;
        self.ended.extend(vanished.iter().map(|node| (*node, Ended { at: now, held_until: now })));
        if !self.begun || (!vanished.is_empty() && self.is_mass_ending(now)) {
            self.hold_recent(now);
        }
        self.begun = true;
        self.pass_time(now);
    }

    /// Forgets what is over by `now`. Returns whether `held` may have become smaller.
    pub fn pass_time(&mut self, now: Monotonic) -> bool {
        let before = self.held.len();
        let session_time = self.session_time;
        self.ended.retain(|_, ended| now < (ended.at + session_time).max(ended.held_until));
        let held = self.ended.iter().filter(|(_, ended)| now < ended.held_until);
        self.held = held.map(|(node, _)| *node).collect();
        self.held.len() < before
    }

    /// When `held` will next become smaller by itself.
    pub fn next_release(&self) -> Option<Monotonic> {
        self.held.iter().filter_map(|node| self.ended.get(node)).map(|ended| ended.held_until).min()
    }

    fn is_mass_ending(&self, now: Monotonic) -> bool {
        let recent = self.ended.values().filter(|ended| ended.is_within(self.session_time, now)).count();
        recent > 1 && 3 * recent >= self.usable.len() + recent
    }

    fn hold_recent(&mut self, now: Monotonic) {
        let session_time = self.session_time;
        for ended in self.ended.values_mut().filter(|ended| ended.is_within(session_time, now)) {
            ended.held_until = now + session_time;
        }
    }
}

impl Ended {
    fn is_within(&self, session_time: Duration, now: Monotonic) -> bool {
        now < self.at + session_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::ZERO + Duration::from_secs(seconds)
    }

    fn set(nodes: &[u32]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn begun(nodes: &[u32]) -> Liveness {
        let mut liveness = Liveness::new(SESSION);
        liveness.observe(set(nodes), std::iter::empty(), at(0));
        liveness
    }

    fn check(liveness: &Liveness, usable: &[u32], held: &[u32]) {
        assert_eq!((liveness.usable(), liveness.held()), (&set(usable), &set(held)));
    }

    #[test]
    fn one_that_ends_is_dead_at_once() {
        let mut liveness = begun(&[1, 2]);
        liveness.observe(set(&[1]), std::iter::empty(), at(1));
        check(&liveness, &[1], &[]);
        assert_eq!(liveness.next_release(), None);
    }

    #[test]
    fn a_third_that_ends_together_is_held_and_may_return() {
        let mut liveness = begun(&[1, 2, 3, 4, 5, 6]);
        liveness.observe(set(&[1, 2, 3, 4]), std::iter::empty(), at(1));
        check(&liveness, &[1, 2, 3, 4], &[5, 6]);
        liveness.observe(set(&[1, 2, 3, 4, 6]), std::iter::empty(), at(2));
        check(&liveness, &[1, 2, 3, 4, 6], &[5]);
        assert_eq!(liveness.next_release(), Some(at(4)));
        assert!(!liveness.pass_time(at(3)));
        assert!(liveness.pass_time(at(4)));
        check(&liveness, &[1, 2, 3, 4, 6], &[]);
    }

    #[test]
    fn fewer_than_a_third_are_dead_at_once() {
        let mut liveness = begun(&[1, 2, 3, 4, 5, 6, 7]);
        liveness.observe(set(&[1, 2, 3, 4, 5]), std::iter::empty(), at(1));
        check(&liveness, &[1, 2, 3, 4, 5], &[]);
    }

    #[test]
    fn endings_one_after_another_within_a_session_time_count_together() {
        let mut liveness = begun(&[1, 2, 3, 4]);
        liveness.observe(set(&[1, 2, 3]), std::iter::empty(), at(1));
        check(&liveness, &[1, 2, 3], &[]);
        liveness.observe(set(&[1, 2]), std::iter::empty(), at(3));
        check(&liveness, &[1, 2], &[3, 4]);
        assert_eq!(liveness.next_release(), Some(at(6)));
    }

    #[test]
    fn endings_a_session_time_apart_do_not_count_together() {
        let mut liveness = begun(&[1, 2, 3, 4]);
        liveness.observe(set(&[1, 2, 3]), std::iter::empty(), at(1));
        liveness.observe(set(&[1, 2]), std::iter::empty(), at(4));
        check(&liveness, &[1, 2], &[]);
    }

    #[test]
    fn brokers_missing_at_the_start_are_held() {
        let mut liveness = Liveness::new(SESSION);
        liveness.observe(set(&[1]), [1, 2].map(NodeId).into_iter(), at(0));
        check(&liveness, &[1], &[2]);
        assert!(liveness.pass_time(at(3)));
        check(&liveness, &[1], &[]);
    }
}
