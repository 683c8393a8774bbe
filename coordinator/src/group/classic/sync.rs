//! The leader hands in the assignment, the others fetch theirs; heartbeats.

use std::collections::BTreeMap;

use bmq_proto::coordinator::{GroupHeartbeatRequest, SyncGroupRequest, SyncGroupResponse};
use bytes::Bytes;

use super::member::Waiting;
use super::{ClassicGroup, Phase};
use crate::group::error::GroupError;
use crate::group::step::Step;
use crate::shard::{ReplyToken, Response};

impl ClassicGroup {
    /// Answered now, or when the leader's sync has come.
    pub fn sync(&mut self, id: &str, request: SyncGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        if let Err(error) = self.check_sync(&request) {
            let response = SyncGroupResponse { error: error.code(), ..Default::default() };
            return step.reply(token, Response::SyncGroup(response));
        }
        let member = self.members.get_mut(&request.member).expect("it was checked");
        member.synced = true;
        if let Phase::Stable { .. } = self.phase {
            self.forget_sync_time();
            return step.reply(token, Response::SyncGroup(self.synced(&request.member)));
        }
        member.wait(&request.member, Waiting::ForSync(token), step);
        if self.is_leader(&request.member) {
            self.take_assignment(id, request, step);
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), GroupError> {
        self.check_member(&request.member, request.instance.as_deref())?;
        self.check_generation(request.generation)?;
        let differs = |given: &Option<String>, present: &str| given.as_deref().is_some_and(|given| given != present);
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => Err(GroupError::UnknownMemberId),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable { .. } => Ok(()),
        }
    }

    fn take_assignment(&mut self, id: &str, request: SyncGroupRequest, step: &mut Step<'_>) {
        let Phase::Completing { until } = self.phase else { return };
        let mut assignments: BTreeMap<String, Bytes> =
            request.assignments.into_iter().map(|given| (given.member, given.assignment)).collect();
        for (id, member) in &mut self.members {
            // Bytes of a request pin its whole buffer; these stay long.
            member.assignment = Bytes::copy_from_slice(&assignments.remove(id).unwrap_or_default());
        }
        let record = self.record();
        if self.record_bytes() > step.config.max_append_bytes {
            for (id, member) in &mut self.members {
                member.refuse(id, GroupError::UnknownServerError, step);
            }
            return self.begin_rebalance(id, step);
        }
        self.enter(Phase::Stable { until: Some(until) }, step);
        self.forget_sync_time();
        step.append(id, record);
        let mut answers = Vec::new();
        for (id, member) in &mut self.members {
            if let Waiting::ForSync(token) = member.waiting {
                member.waiting = Waiting::No;
                member.touch(step.now);
                answers.push((token, id.clone()));
            }
        }
        for (token, member) in answers {
            step.reply(token, Response::SyncGroup(self.synced(&member)));
        }
    }

    fn synced(&self, member: &str) -> SyncGroupResponse {
        SyncGroupResponse {
            error: 0,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(member).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    /// Once all have sent a sync, nobody is late any more.
    fn forget_sync_time(&mut self) {
        if self.is_stable() && self.members.values().all(|member| member.synced) {
            self.phase = Phase::Stable { until: None };
        }
    }

    /// Members that joined, and then did not fetch their assignment in time, are out.
    pub(super) fn end_sync_time(&mut self, id: &str, step: &mut Step<'_>) {
        let late: Vec<String> =
            self.members.iter().filter(|(_, member)| !member.synced).map(|(id, _)| id.clone()).collect();
        for member in &late {
            self.remove(member, GroupError::UnknownMemberId, step);
        }
        if late.is_empty() {
            self.forget_sync_time();
        } else {
            self.begin_rebalance(id, step);
        }
    }

    /// A member says that it is alive, and hears whether it should join again.
    pub fn heartbeat(&mut self, request: &GroupHeartbeatRequest, step: &Step<'_>) -> Result<(), GroupError> {
        self.check_member(&request.member, request.instance.as_deref())?;
        self.check_generation(request.generation)?;
        self.touch(&request.member, step.now);
        match self.phase {
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }
}
