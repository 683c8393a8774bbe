//! A consumer as clients are written.

use bmq_proto::coordinator::{
    GroupClient, GroupHeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeavingMember,
    MemberAssignment, SyncGroupRequest,
};
use bytes::Bytes;

use super::super::{GROUP, protocol};
use crate::group::error::GroupError;
use crate::shard::{ReplyToken, Request, Response};

/// Its name begins its member ids, so that the history knows whose they are.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    is_static: bool,
    is_old: bool,
    member: String,
    /// What it subscribes to, by version.
    subscription: u32,
    phase: Phase,
    waiting: Option<ReplyToken>,
}

#[derive(Debug)]
enum Phase {
    Out,
    Joined(JoinGroupResponse),
    In { generation: i32 },
}

impl Client {
    /// Clients 0 and 1 are static members; 4 neither skips assignments nor is given an id first.
    pub fn new(number: usize) -> Self {
        Self {
            number,
            is_static: number < 2,
            is_old: number == 4,
            member: String::new(),
            subscription: 0,
            phase: Phase::Out,
            waiting: None,
        }
    }

    /// What its member ids begin with.
    pub fn name(&self) -> String {
        format!("c{}", self.number)
    }

    fn instance(&self) -> Option<String> {
        self.is_static.then(|| self.name())
    }

    pub fn waits_for(&mut self, token: ReplyToken) {
        self.waiting = Some(token);
    }

    /// Member id and generation, if it has an assignment.
    pub fn membership(&self) -> Option<(String, i32)> {
        match self.phase {
            Phase::In { generation } => Some((self.member.clone(), generation)),
            _ => None,
        }
    }

    /// `nonce` is new: the mark of an assignment, should it make one.
    pub fn next_request(&self, nonce: u64) -> Option<Request> {
        if self.waiting.is_some() {
            return None;
        }
        Some(match &self.phase {
            Phase::Out => Request::JoinGroup(self.join()),
            Phase::Joined(joined) => Request::SyncGroup(self.sync(joined, nonce)),
            Phase::In { generation } => Request::GroupHeartbeat(GroupHeartbeatRequest {
                group: GROUP.into(),
                generation: *generation,
                member: self.member.clone(),
                instance: self.instance(),
            }),
        })
    }

    fn join(&self) -> JoinGroupRequest {
        let topic = format!("t{}", self.subscription);
        let mut protocols = vec![protocol("range", &[&topic]), protocol("sticky", &[&topic])];
        if self.subscription % 3 == 1 {
            protocols.reverse();
        }
        JoinGroupRequest {
            group: GROUP.into(),
            client: Some(GroupClient { id: self.name(), host: "host".into() }),
            member: self.member.clone(),
            instance: self.instance(),
            protocol_type: "consumer".into(),
            protocols,
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 15_000,
            require_known_member: !self.is_old,
            supports_skipping_assignment: !self.is_old,
            reason: String::new(),
        }
    }

    /// An assignment says whose it is, in which generation, and has a mark that no other has.
    fn sync(&self, joined: &JoinGroupResponse, nonce: u64) -> SyncGroupRequest {
        let leads = joined.leader == joined.member && !joined.skip_assignment;
        let assign = |member: &String| MemberAssignment {
            member: member.clone(),
            assignment: Bytes::from(format!("{member} {} {nonce}", joined.generation)),
        };
        let members = joined.members.iter().map(|member| &member.member).filter(|_| leads);
        SyncGroupRequest {
            group: GROUP.into(),
            generation: joined.generation,
            member: self.member.clone(),
            instance: self.instance(),
            protocol_type: Some(joined.protocol_type.clone()),
            protocol: Some(joined.protocol.clone()),
            assignments: members.map(assign).collect(),
        }
    }

    pub fn hear(&mut self, token: ReplyToken, response: &Response) {
        if self.waiting != Some(token) {
            return;
        }
        self.waiting = None;
        match response {
            Response::JoinGroup(joined) if joined.error == 0 => {
                self.member.clone_from(&joined.member);
                self.phase = Phase::Joined(joined.clone());
            }
            Response::JoinGroup(joined) if joined.error == GroupError::MemberIdRequired.code() => {
                self.member.clone_from(&joined.member);
            }
            Response::JoinGroup(joined) => self.fail(joined.error),
            Response::SyncGroup(synced) if synced.error == 0 => {
                let Phase::Joined(joined) = &self.phase else { return };
                self.phase = Phase::In { generation: joined.generation };
            }
            Response::SyncGroup(synced) => self.fail(synced.error),
            Response::GroupHeartbeat(heard) if heard.error != 0 => self.fail(heard.error),
            _ => {}
        }
    }

    /// It joins again, as a new one unless only a rebalance is under way.
    fn fail(&mut self, error: i32) {
        self.phase = Phase::Out;
        if error != GroupError::RebalanceInProgress.code() {
            self.member.clear();
        }
    }

    /// The coordinator is gone: the same again.
    pub fn retry(&mut self, token: ReplyToken) {
        if self.waiting == Some(token) {
            self.waiting = None;
        }
    }

    pub fn rejoin(&mut self, changed: bool) {
        self.subscription += u32::from(changed);
        if self.waiting.is_none() {
            self.phase = Phase::Out;
        }
    }

    pub fn leave(&mut self) -> Option<Request> {
        if self.member.is_empty() {
            return None;
        }
        let member = std::mem::take(&mut self.member);
        let leaving = LeavingMember { member, instance: self.instance(), reason: String::new() };
        self.restart();
        Some(Request::LeaveGroup(LeaveGroupRequest { group: GROUP.into(), members: vec![leaving] }))
    }

    pub fn restart(&mut self) {
        self.member.clear();
        self.phase = Phase::Out;
        self.waiting = None;
    }
}
