//! The target assignment: computed when the group's epoch is ahead of it.

use std::collections::BTreeMap;

use super::ConsumerGroup;
use super::config::ConsumerGroupConfig;
use super::records::{Journal, epochs_record, target_record};
use super::subscription::Resolved;
use crate::assignor::{Assignor, MemberId, Partitions, Subscriber};

/// What one member is given at most, so that its state fits into a record. What is beyond stays unassigned.
const MAX_PARTITIONS_OF_MEMBER: usize = 16 << 10;

impl ConsumerGroup {
    /// The assignor that most members name; the first configured one of those that are even, or if nobody names any.
    pub(super) fn assignor(&self, config: &ConsumerGroupConfig) -> Assignor {
        let votes = |assignor: &Assignor| {
            let name = Some(assignor.name());
            self.subscriptions().filter(|(_, subscription)| subscription.assignor.as_deref() == name).count()
        };
        let mut chosen: Option<(usize, Assignor)> = None;
        for assignor in &config.assignors {
            let votes = votes(assignor);
            if chosen.is_none_or(|(most, _)| votes > most) {
                chosen = Some((votes, *assignor));
            }
        }
        chosen.map_or(Assignor::Uniform, |(_, assignor)| assignor)
    }

    /// Brings the target assignment to the group's epoch.
    pub(super) fn assign(&mut self, resolved: Resolved, config: &ConsumerGroupConfig, journal: &mut Journal<'_>) {
        let targets = self.compute_targets(resolved, config);
        for (id, target) in targets {
            if self.members[&id].target.as_ref() != Some(&target) {
                self.write(target_record(&id, &target), journal);
            }
        }
        self.write(epochs_record(self.epoch, self.epoch, self.metadata_hash), journal);
    }

    fn compute_targets(&self, resolved: Resolved, config: &ConsumerGroupConfig) -> BTreeMap<MemberId, Partitions> {
        let nothing = Partitions::new();
        let Resolved { topics: mut subscribed, sizes, .. } = resolved;
        let members = self.members.iter().map(|(id, member)| {
            let subscriber = Subscriber {
                instance: member.subscription.instance.as_deref(),
                topics: subscribed.remove(id).unwrap_or_default(),
                previous: member.target.as_ref().unwrap_or(&nothing),
            };
            (MemberId::clone(id), subscriber)
        });
        let mut targets = self.assignor(config).assign(&members.collect(), &sizes);
        for target in targets.values_mut().filter(|target| target.len() > MAX_PARTITIONS_OF_MEMBER) {
            *target = std::mem::take(target).into_iter().take(MAX_PARTITIONS_OF_MEMBER).collect();
        }
        targets
    }
}
