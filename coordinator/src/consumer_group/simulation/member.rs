//! A consumer process of the new protocol, as real ones behave.

use bmq_proto::coordinator::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::super::harness::{beat, names, set};
use super::super::records::list_of;
use crate::assignor::Partitions;
use crate::group::error::GroupError;

/// A consumer process.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub assignor: Option<&'static str>,
    pub topics: Vec<&'static str>,
    pub regex: Option<&'static str>,
    pub epoch: i32,
    /// What it consumes.
    pub owned: Partitions,
    /// What it was last told to have.
    pub told: Partitions,
    /// The last heartbeat went wrong, so the next one says everything.
    pub must_tell_all: bool,
    /// What the coordinator knows that it owns.
    pub reported: Partitions,
}

impl Member {
    pub fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let full = self.epoch == 0 || self.must_tell_all;
        let owned = full || self.owned != self.reported;
        ConsumerGroupHeartbeatRequest {
            instance: self.instance.clone(),
            rebalance_timeout_ms: full.then_some(20_000),
            subscribed_topics: full.then(|| names(&self.topics)),
            subscribed_regex: full.then(|| self.regex.unwrap_or_default().to_owned()),
            server_assignor: self.assignor.filter(|_| full).map(str::to_owned),
            owned: owned.then(|| list_of(&self.owned)),
            ..beat(&self.id, self.epoch)
        }
    }

    pub fn take(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        let fenced = [GroupError::FencedMemberEpoch, GroupError::UnknownMemberId, GroupError::GroupIdNotFound];
        if fenced.iter().any(|error| response.error == error.code()) {
            return self.start_over();
        }
        assert_eq!(response.error, 0, "{self:?} is refused: {response:?}");
        assert!(response.member_epoch >= self.epoch, "{self:?} is told an older epoch: {response:?}");
        self.epoch = response.member_epoch;
        self.must_tell_all = false;
        self.reported.clone_from(&self.owned);
        if response.assignment.is_some() {
            self.told = set(&response.assignment);
        }
    }

    /// A heartbeat went wrong. What it was told to take, and has not taken yet, may be another's by now: the list of
    /// what it owns, which did not have it, may have arrived.
    pub fn miss_answer(&mut self) {
        self.must_tell_all = true;
        self.told = self.told.intersection(&self.owned).copied().collect();
    }

    /// Gives up everything at once, and joins anew.
    pub fn start_over(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.told.clear();
        self.reported.clear();
    }

    /// Gives up what it shall no longer have, and takes what it shall have only then.
    pub fn reconcile(&mut self) {
        if self.owned.is_subset(&self.told) {
            self.owned.clone_from(&self.told);
        } else {
            self.owned = self.owned.intersection(&self.told).copied().collect();
        }
    }
}
