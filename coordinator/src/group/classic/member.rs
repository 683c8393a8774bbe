//! A member of a classic group.

use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::coordinator::{GroupClient, GroupProtocol, JoinGroupRequest, JoinGroupResponse, SyncGroupResponse};
use bytes::Bytes;
use prost::Message;

use crate::group::error::GroupError;
use crate::group::step::Step;
use crate::shard::{ReplyToken, Response};

/// How long a new member may wait for its first join to complete. It has no member id that it could send heartbeats
/// with, so nothing else says that it is still there.
const NEW_MEMBER_PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A member of a classic group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub instance: Option<String>,
    pub client: GroupClient,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    /// In its order of preference.
    pub protocols: Vec<GroupProtocol>,
    /// Of the present generation; empty until the leader has said.
    pub assignment: Bytes,
    pub(super) waiting: Waiting,
    /// Its first join is not complete.
    pub(super) is_new: bool,
    /// It has sent a sync in this generation.
    pub(super) synced: bool,
    pub(super) expires: Monotonic,
    /// Bytes that it makes the group's record longer by, at most, without its id and its assignment.
    pub(super) weight: usize,
}

/// The request of a member that is not answered yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Waiting {
    #[default]
    No,
    ForJoin(ReplyToken),
    ForSync(ReplyToken),
}

impl Member {
    /// One that waits for its first join.
    pub(super) fn joining(request: JoinGroupRequest, token: ReplyToken, now: Monotonic) -> Self {
        let mut member = Self {
            instance: request.instance.clone(),
            client: GroupClient::default(),
            session_timeout: Duration::ZERO,
            rebalance_timeout: Duration::ZERO,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            waiting: Waiting::ForJoin(token),
            is_new: true,
            synced: false,
            expires: now + NEW_MEMBER_PATIENCE,
            weight: 0,
        };
        member.update(request);
        member
    }

    /// Takes over what a join brings.
    pub(super) fn update(&mut self, request: JoinGroupRequest) {
        self.session_timeout = session_timeout(&request);
        self.rebalance_timeout = match request.rebalance_timeout_ms {
            // The first version of the protocol has no time-out of its own for this.
            0 => self.session_timeout,
            millis => Duration::from_millis(millis.into()),
        };
        self.client = request.client.unwrap_or_default();
        self.protocols = request.protocols.into_iter().map(unpinned).collect();
        self.weigh();
    }

    pub(super) fn weigh(&mut self) {
        let protocols: usize = self.protocols.iter().map(|protocol| protocol.encoded_len() + 8).sum();
        let instance = self.instance.as_ref().map_or(0, String::len);
        self.weight = protocols + self.client.encoded_len() + instance + 64;
    }

    pub(super) fn touch(&mut self, now: Monotonic) {
        self.expires = now + self.session_timeout;
    }

    /// When it counts as gone. Who waits for others is not asked for heartbeats, unless it is new.
    pub(super) fn deadline(&self) -> Option<Monotonic> {
        (self.is_new || self.waiting == Waiting::No).then_some(self.expires)
    }

    pub(super) fn is_silent(&self, now: Monotonic) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn awaits_join(&self) -> bool {
        matches!(self.waiting, Waiting::ForJoin(_))
    }

    /// What the member brought for a protocol.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|offered| offered.name == protocol).map(|offered| &offered.metadata)
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.metadata(protocol).is_some()
    }

    /// Answers a request that the member waits with, if it does, with an error.
    pub(super) fn refuse(&mut self, id: &str, error: GroupError, step: &mut Step<'_>) {
        match std::mem::take(&mut self.waiting) {
            Waiting::No => {}
            Waiting::ForJoin(token) => step.reply(token, Response::JoinGroup(join_error(id, error))),
            Waiting::ForSync(token) => {
                let response = SyncGroupResponse { error: error.code(), ..Default::default() };
                step.reply(token, Response::SyncGroup(response));
            }
        }
    }

    /// Waits with a new request; one that waited before was given up by its sender.
    pub(super) fn wait(&mut self, id: &str, waiting: Waiting, step: &mut Step<'_>) {
        self.refuse(id, GroupError::RebalanceInProgress, step);
        self.waiting = waiting;
    }
}

/// Bytes of a message pin its whole buffer; what a member brings stays long.
pub(super) fn unpinned(protocol: GroupProtocol) -> GroupProtocol {
    GroupProtocol { name: protocol.name, metadata: Bytes::copy_from_slice(&protocol.metadata) }
}

pub(crate) fn session_timeout(request: &JoinGroupRequest) -> Duration {
    Duration::from_millis(request.session_timeout_ms.into())
}

/// A join that fails.
pub(crate) fn join_error(member: &str, error: GroupError) -> JoinGroupResponse {
    JoinGroupResponse { error: error.code(), generation: -1, member: member.to_owned(), ..Default::default() }
}
