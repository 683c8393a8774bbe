//! A member joins: for the first time, again, or as the successor of a static member.

use std::collections::btree_map::Entry;

use bmq_proto::coordinator::{JoinGroupRequest, JoinGroupResponse};

use prost::Message;

use super::member::{Member, Waiting, join_error, session_timeout};
use super::{ClassicGroup, Phase};
use crate::group::error::GroupError;
use crate::group::step::Step;
use crate::shard::{ReplyToken, Response};

impl ClassicGroup {
    /// Answered now, or when the join that it takes part in completes.
    pub fn join(&mut self, id: &str, request: JoinGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        if !self.has_room_for(&request, step) {
            step.reply(token, Response::JoinGroup(join_error("", GroupError::GroupMaxSizeReached)));
            if self.members.contains_key(&request.member) {
                // It rejoins after its place was taken, or brings too much.
                self.remove(&request.member, GroupError::GroupMaxSizeReached, step);
                self.begin_rebalance_or_go_on(id, step);
            }
            return;
        }
        if !self.supports(&request) {
            let refused = join_error(&request.member, GroupError::InconsistentGroupProtocol);
            return step.reply(token, Response::JoinGroup(refused));
        }
        if request.member.is_empty() {
            self.join_unknown(id, request, token, step);
        } else if self.given.contains_key(&request.member) && request.instance.is_none() {
            let member = request.member.clone();
            self.add(id, member, request, token, step);
        } else {
            self.join_known(id, request, token, step);
        }
    }

    fn join_unknown(&mut self, id: &str, request: JoinGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        let client = request.client.as_ref().map_or("", |client| client.id.as_str());
        let member = format!("{}-{}", request.instance.as_deref().unwrap_or(client), step.fresh);
        if let Some(instance) = &request.instance {
            return match self.instances.get(instance).cloned() {
                Some(present) => self.succeed(id, present, member, request, token, step),
                None => self.add(id, member, request, token, step),
            };
        }
        if request.require_known_member {
            // It is not a member before it has come back with its id: a client that was given up while it joined
            // leaves nothing behind that others wait for.
            step.reply(token, Response::JoinGroup(join_error(&member, GroupError::MemberIdRequired)));
            self.given.insert(member, step.now + session_timeout(&request));
            return;
        }
        self.add(id, member, request, token, step);
    }

    fn join_known(&mut self, id: &str, request: JoinGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        let member = request.member.clone();
        if let Err(error) = self.check_member(&member, request.instance.as_deref()) {
            return step.reply(token, Response::JoinGroup(join_error(&member, error)));
        }
        let unchanged = self.members[&member].protocols == request.protocols;
        let answer_now = match self.phase {
            Phase::Empty | Phase::Preparing { .. } => false,
            // It may not have got the answer to its join.
            Phase::Completing { .. } => unchanged,
            // A leader that joins again wants a rebalance: it may have seen new partitions.
            Phase::Stable { .. } => unchanged && !self.is_leader(&member),
        };
        if answer_now {
            self.touch(&member, step.now);
            return step.reply(token, Response::JoinGroup(self.joined(&member)));
        }
        let known = self.members.get_mut(&member).expect("it was checked");
        known.update(request);
        known.wait(&member, Waiting::ForJoin(token), step);
        self.begin_rebalance_or_go_on(id, step);
    }

    /// A new member, which others do not know yet.
    fn add(&mut self, id: &str, member: String, request: JoinGroupRequest, token: ReplyToken, step: &mut Step<'_>) {
        if let Phase::Preparing { initial: Some(initial), .. } = &mut self.phase {
            initial.extend = true;
        }
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        self.given.remove(&member);
        self.leader.get_or_insert_with(|| member.clone());
        if let Some(instance) = &request.instance {
            self.instances.insert(instance.clone(), member.clone());
        }
        self.members.insert(member, Member::joining(request, token, step.now));
        self.begin_rebalance_or_go_on(id, step);
    }

    /// A static member has restarted: it gets a new id and its old self's place. While the group is stable and goes on
    /// with the same protocol, nobody else need notice.
    fn succeed(
        &mut self,
        id: &str,
        present: String,
        member: String,
        request: JoinGroupRequest,
        token: ReplyToken,
        step: &mut Step<'_>,
    ) {
        let leader_before = self.leader.clone();
        let skips = request.supports_skipping_assignment;
        self.replace(&present, &member, request, step);
        match self.phase {
            Phase::Stable { .. } if self.vote().as_ref() == Some(&self.protocol) => {
                step.append(id, self.record());
                let mut response = self.joined(&member);
                response.skip_assignment = skips && self.is_leader(&member);
                if !skips {
                    // A client that cannot skip the assignment must not learn that it is the leader.
                    response.leader = leader_before.unwrap_or_default();
                    response.members.clear();
                }
                step.reply(token, Response::JoinGroup(response));
            }
            _ => {
                let successor = self.members.get_mut(&member).expect("it was just put there");
                successor.waiting = Waiting::ForJoin(token);
                self.begin_rebalance_or_go_on(id, step);
            }
        }
    }

    fn replace(&mut self, present: &str, member: &str, request: JoinGroupRequest, step: &mut Step<'_>) {
        let mut successor = self.members.remove(present).expect("instances name members");
        successor.refuse(present, GroupError::FencedInstanceId, step);
        successor.update(request);
        successor.is_new = false;
        successor.touch(step.now);
        let instance = successor.instance.clone().expect("it was found by its instance id");
        self.instances.insert(instance, member.to_owned());
        if self.is_leader(present) {
            self.leader = Some(member.to_owned());
        }
        let Entry::Vacant(place) = self.members.entry(member.to_owned()) else {
            unreachable!("the id is fresh");
        };
        place.insert(successor);
    }

    /// What a member is told of the present generation.
    pub(super) fn joined(&self, member: &str) -> JoinGroupResponse {
        JoinGroupResponse {
            error: 0,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: member.to_owned(),
            members: if self.is_leader(member) { self.joined_members() } else { Vec::new() },
            skip_assignment: false,
        }
    }

    /// Whether the group can take the member, or has it.
    fn has_room_for(&self, request: &JoinGroupRequest, step: &Step<'_>) -> bool {
        let known = self.members.get(&request.member);
        let most = step.config.max_members;
        let has_place = match self.phase {
            Phase::Empty => true,
            // The first to come get the places: those who have not joined again may have lost theirs.
            Phase::Preparing { .. } => {
                known.is_some_and(Member::awaits_join)
                    || self.members.values().filter(|member| member.awaits_join()).count() < most
            }
            Phase::Completing { .. } | Phase::Stable { .. } => known.is_some() || self.members.len() < most,
        };
        let may_be_given_an_id = !request.member.is_empty() || self.given.len() < most;
        has_place && may_be_given_an_id && self.weight_with(request) <= step.config.max_append_bytes / 2
    }

    /// Whether what the request brings goes with what the members have.
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        if self.is_empty() {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        self.protocol_type == request.protocol_type
            && request.protocols.iter().any(|offered| self.all_support(&offered.name))
    }

    /// Bytes of the members' parts of the group's record, once the request is taken.
    fn weight_with(&self, request: &JoinGroupRequest) -> usize {
        let others: usize =
            self.members.iter().filter(|(id, _)| **id != request.member).map(|(id, m)| id.len() + m.weight).sum();
        others + request.encoded_len()
    }
}
