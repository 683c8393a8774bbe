//! What holds between any two steps, for tests to look at.

use super::member::Waiting;
use super::{ClassicGroup, Phase};

impl ClassicGroup {
    /// Panics where an invariant does not hold.
    pub(crate) fn check(&self) {
        let is_member = |id: &String| self.members.contains_key(id);
        assert_eq!(self.leader.is_none(), self.members.is_empty());
        assert!(self.leader.as_ref().is_none_or(is_member), "the leader is a member");
        assert!(!self.given.keys().any(is_member), "an id that was used is no longer kept for use");
        let named = self.members.iter().filter_map(|(id, member)| Some((member.instance.as_ref()?, id)));
        assert!(named.clone().all(|(instance, id)| self.instances.get(instance) == Some(id)));
        assert_eq!(named.count(), self.instances.len());
        for (id, member) in &self.members {
            match self.phase {
                Phase::Empty => panic!("`{id}` is in an empty group"),
                Phase::Preparing { .. } => assert!(!matches!(member.waiting, Waiting::ForSync(_))),
                Phase::Completing { .. } => assert!(!member.awaits_join()),
                Phase::Stable { .. } => assert_eq!(member.waiting, Waiting::No),
            }
            match self.phase {
                Phase::Completing { .. } | Phase::Stable { .. } => {
                    assert!(!member.is_new && member.supports(&self.protocol), "`{id}` knows the protocol");
                }
                _ => {}
            }
        }
        let shared = |name: &str| self.members.values().all(|member| member.supports(name));
        let first = self.members.values().next();
        assert!(first.is_none_or(|member| member.protocols.iter().any(|offered| shared(&offered.name))));
    }
}
