//! Consumers of the classic protocol in a group of the new one, and groups that go from one protocol to the other while
//! they have members.

use std::time::Duration;

use bmq_proto::coordinator::{
    ConsumerGroupHeartbeatRequest, DescribeGroupRequest, GroupHeartbeatRequest, GroupProtocol, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeavingMember, MemberAssignment, SyncGroupRequest, SyncGroupResponse,
};
use bytes::Bytes;

use super::embedded::{Assignment, Subscription};
use super::harness::*;
use crate::group::error::GroupError;
use crate::shard::{ReplyToken, Request, Response};

const REBALANCE: i32 = GroupError::RebalanceInProgress as i32;
const SECOND: Duration = Duration::from_secs(1);

fn subscription(topics: &[&str], owned: &[(&str, &[u32])]) -> Bytes {
    let owned: Vec<(&str, u32)> =
        owned.iter().flat_map(|(topic, numbers)| numbers.iter().map(|number| (*topic, *number))).collect();
    Subscription::write(topics, &owned)
}

fn joining(member: &str, owned: &[(&str, &[u32])]) -> JoinGroupRequest {
    JoinGroupRequest {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![GroupProtocol { name: "cooperative".to_owned(), metadata: subscription(&["t"], owned) }],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        ..Default::default()
    }
}

fn syncing(member: &str, generation: i32) -> SyncGroupRequest {
    SyncGroupRequest { group: GROUP.to_owned(), member: member.to_owned(), generation, ..Default::default() }
}

impl Shard {
    fn join_classic(&mut self, request: JoinGroupRequest) -> JoinGroupResponse {
        match self.call(Request::JoinGroup(request)) {
            Response::JoinGroup(response) => response,
            other => panic!("a join is answered with {other:?}"),
        }
    }

    fn sync_classic(&mut self, request: SyncGroupRequest) -> SyncGroupResponse {
        match self.call(Request::SyncGroup(request)) {
            Response::SyncGroup(response) => response,
            other => panic!("a sync is answered with {other:?}"),
        }
    }

    /// The numbers of the partitions of `t` that the member gets.
    fn fetch_classic(&mut self, member: &str, generation: i32) -> Vec<u32> {
        let response = self.sync_classic(syncing(member, generation));
        assert_eq!(response.error, 0);
        numbers(&response.assignment)
    }

    fn beat_classic(&mut self, member: &str, generation: i32) -> i32 {
        let request =
            GroupHeartbeatRequest { group: GROUP.to_owned(), member: member.to_owned(), generation, instance: None };
        match self.call(Request::GroupHeartbeat(request)) {
            Response::GroupHeartbeat(response) => response.error,
            other => panic!("a heartbeat is answered with {other:?}"),
        }
    }

    /// The state of the group as a classic one, and its members.
    fn describe_classic(&mut self) -> (String, Vec<String>) {
        match self.call(Request::DescribeGroup(DescribeGroupRequest { group: GROUP.to_owned() })) {
            Response::DescribeGroup(described) => {
                (described.state, described.members.into_iter().map(|member| member.member).collect())
            }
            other => panic!("a describe is answered with {other:?}"),
        }
    }
}

fn numbers(assignment: &[u8]) -> Vec<u32> {
    let read = Assignment::read(assignment).expect("an assignment is well formed");
    read.partitions.into_iter().flat_map(|(_, numbers)| numbers).collect()
}

fn joined(answers: &[(ReplyToken, Response)], token: ReplyToken) -> &JoinGroupResponse {
    let answer = answers.iter().find(|(answered, _)| *answered == token);
    match answer {
        Some((_, Response::JoinGroup(response))) => response,
        other => panic!("the join is answered with {other:?}"),
    }
}

/// A stable classic group of one member, which has all three partitions. Returns its member id.
fn classic_group() -> (Shard, String) {
    let mut shard = Shard::new(&[("t", 3)]);
    let (token, mut answers) = shard.send(Request::JoinGroup(joining("", &[])));
    answers.extend(shard.pass(3 * SECOND));
    let member = joined(&answers, token).member.clone();
    let assignment = Assignment::write(1, &[("t", vec![0, 1, 2])].into());
    let assignments = vec![MemberAssignment { member: member.clone(), assignment }];
    let synced = shard.sync_classic(SyncGroupRequest { assignments, ..syncing(&member, 1) });
    assert_eq!((synced.error, numbers(&synced.assignment)), (0, vec![0, 1, 2]));
    (shard, member)
}

/// The group of [`classic_group`] after a member of the new protocol has joined and all have what they shall have.
fn mixed_group() -> (Shard, String) {
    let (mut shard, old) = classic_group();
    assert_eq!(set(&shard.heartbeat(join("new", &["t"])).assignment).len(), 0, "the classic member has all of them");
    assert_eq!(shard.beat_classic(&old, 1), REBALANCE);
    let told = shard.join_classic(joining(&old, &[("t", &[0, 1, 2])]));
    assert_eq!((told.error, told.generation, told.leader.as_str(), told.protocol.as_str()), (0, 1, "", "cooperative"));
    assert_eq!(shard.fetch_classic(&old, 1), [0, 1]);
    // It has not said yet that it gave up the third.
    assert_eq!(shard.heartbeat(beat("new", 2)).assignment, None);
    assert_eq!(shard.beat_classic(&old, 1), REBALANCE);
    let done = shard.join_classic(joining(&old, &[("t", &[0, 1])]));
    assert_eq!((done.error, done.generation), (0, 2));
    assert_eq!(shard.fetch_classic(&old, 2), [0, 1]);
    assert_eq!(shard.beat_classic(&old, 2), 0);
    assert_eq!(set(&shard.heartbeat(beat("new", 2)).assignment), partitions("t", [2]));
    assert_eq!(shard.describe().state, "Stable");
    (shard, old)
}

#[test]
fn a_group_is_upgraded_while_it_runs() {
    let (mut shard, old) = mixed_group();
    let described = shard.describe();
    assert_eq!(described.members.iter().filter(|member| member.is_classic).count(), 1);
    shard.reload();
    assert_eq!(shard.beat_classic(&old, 2), 0);
    assert_eq!(shard.describe_classic().0, "Dead", "it is no classic group any more");
}

#[test]
fn a_group_is_downgraded_when_only_classic_members_are_left() {
    let (mut shard, old) = mixed_group();
    shard.heartbeat(beat("new", -1));
    assert_eq!(shard.describe_classic(), ("PreparingRebalance".to_owned(), vec![old.clone()]));
    // Its generation is the group's epoch, so the member hears of the change one way or the other.
    assert_eq!(shard.beat_classic(&old, 2), GroupError::IllegalGeneration.code());
    let (token, answers) = shard.send(Request::JoinGroup(joining(&old, &[("t", &[0, 1])])));
    let joined = joined(&answers, token);
    assert_eq!((joined.leader.as_str(), joined.generation), (old.as_str(), 4));
    let mut shard = mixed_group().0;
    shard.pass(8 * SECOND);
    shard.reload();
    // The classic member's session is shorter, but the other one is that which is silent here.
    for _ in 0..5 {
        assert_eq!(shard.beat_classic(&old, 2), 0);
        shard.pass(9 * SECOND);
    }
    assert_eq!(shard.describe_classic(), ("PreparingRebalance".to_owned(), vec![old]));
    shard.reload();
}

#[test]
fn whoever_waits_in_a_classic_group_joins_again_after_the_upgrade() {
    let (mut shard, old) = classic_group();
    let (waiting, answers) = shard.send(Request::JoinGroup(joining("", &[])));
    assert!(answers.is_empty());
    let (_, answers) = shard.send(Request::ConsumerGroupHeartbeat(join("new", &["t"])));
    assert_eq!(joined(&answers, waiting).error, REBALANCE);
    assert_eq!(shard.beat_classic(&old, 1), REBALANCE);
    shard.reload();
}

#[test]
fn a_member_that_cannot_join_upgrades_nothing() {
    let (mut shard, old) = classic_group();
    let bad = ConsumerGroupHeartbeatRequest { subscribed_regex: Some("(".to_owned()), ..join("new", &["t"]) };
    assert_eq!(shard.heartbeat(bad).error, GroupError::InvalidRegularExpression.code());
    assert_eq!(shard.describe_classic().0, "Stable");
    assert_eq!(shard.beat_classic(&old, 1), 0);
    shard.reload();
    assert_eq!(shard.describe_classic().0, "Stable");
}

#[test]
fn a_classic_member_must_be_a_consumer() {
    let (mut shard, _) = mixed_group();
    let other = JoinGroupRequest { protocol_type: "connect".to_owned(), ..joining("", &[]) };
    let nothing = JoinGroupRequest { protocols: Vec::new(), ..joining("", &[]) };
    let foreign = vec![GroupProtocol { name: "foreign".to_owned(), metadata: subscription(&["t"], &[]) }];
    let foreign = JoinGroupRequest { protocols: foreign, ..joining("", &[]) };
    let garbage = vec![GroupProtocol { name: "cooperative".to_owned(), metadata: Bytes::from_static(b"\0\x01\x7f") }];
    let garbage = JoinGroupRequest { protocols: garbage, ..joining("", &[]) };
    for request in [other, nothing, foreign, garbage] {
        assert_eq!(shard.join_classic(request).error, GroupError::InconsistentGroupProtocol.code());
    }
    let asked = shard.join_classic(JoinGroupRequest { require_known_member: true, ..joining("", &[]) });
    assert_eq!(asked.error, GroupError::MemberIdRequired.code());
    let joined = shard.join_classic(JoinGroupRequest { require_known_member: true, ..joining(&asked.member, &[]) });
    assert_eq!((joined.error, joined.member), (0, asked.member));
}

#[test]
fn generations_and_protocols_are_checked() {
    let (mut shard, old) = mixed_group();
    assert_eq!(shard.beat_classic(&old, 1), GroupError::IllegalGeneration.code());
    assert_eq!(shard.beat_classic("new", 2), GroupError::UnknownMemberId.code());
    assert_eq!(shard.beat_classic("nobody", 2), GroupError::UnknownMemberId.code());
    assert_eq!(shard.sync_classic(syncing(&old, 3)).error, GroupError::IllegalGeneration.code());
    let other = SyncGroupRequest { protocol: Some("range".to_owned()), ..syncing(&old, 2) };
    assert_eq!(shard.sync_classic(other).error, GroupError::InconsistentGroupProtocol.code());
    shard.set_topics(&[("t", 4)]);
    shard.heartbeat(beat("new", 2));
    assert_eq!(shard.sync_classic(syncing(&old, 2)).error, REBALANCE);
}

#[test]
fn a_classic_member_that_does_not_join_in_time_is_fenced() {
    let (mut shard, old) = mixed_group();
    shard.set_topics(&[("t", 4)]);
    shard.heartbeat(beat("new", 2));
    for _ in 0..4 {
        assert_eq!(shard.beat_classic(&old, 2), REBALANCE);
        shard.pass(7 * SECOND);
        assert_eq!(shard.heartbeat(beat("new", 3)).assignment, None);
    }
    assert_eq!(shard.beat_classic(&old, 2), REBALANCE);
    shard.pass(3 * SECOND);
    assert_eq!(shard.beat_classic(&old, 2), GroupError::UnknownMemberId.code());
    assert_eq!(set(&shard.heartbeat(beat("new", 3)).assignment).len(), 4);
}

#[test]
fn a_classic_member_leaves() {
    let (mut shard, old) = mixed_group();
    let leave = |member: &str| LeavingMember { member: member.to_owned(), instance: None, reason: String::new() };
    let request = LeaveGroupRequest { group: GROUP.to_owned(), members: vec![leave(&old), leave("nobody")] };
    let Response::LeaveGroup(left) = shard.call(Request::LeaveGroup(request)) else { panic!() };
    let errors: Vec<i32> = left.members.iter().map(|member| member.error).collect();
    assert_eq!((left.error, errors), (0, vec![0, GroupError::UnknownMemberId.code()]));
    assert_eq!(set(&shard.heartbeat(beat("new", 2)).assignment).len(), 3);
    assert_eq!(shard.describe().members.len(), 1);
}

#[test]
fn a_static_member_changes_its_protocol() {
    let mut shard = Shard::new(&[("t", 2)]);
    let instance = || Some("i".to_owned());
    shard.heartbeat(ConsumerGroupHeartbeatRequest { instance: instance(), ..join("a", &["t"]) });
    shard.heartbeat(join("b", &["t"]));
    shard.heartbeat(ConsumerGroupHeartbeatRequest { instance: instance(), ..owning("a", 1, &[("t", &[0])]) });
    shard.heartbeat(beat("b", 2));
    let classic = shard.join_classic(JoinGroupRequest { instance: instance(), ..joining("", &[]) });
    assert_eq!((classic.error, classic.generation), (0, 2));
    let sync = SyncGroupRequest { instance: instance(), ..syncing(&classic.member, 2) };
    let synced = shard.sync_classic(sync);
    assert_eq!((synced.error, numbers(&synced.assignment)), (0, vec![0]));
    let back = shard.heartbeat(ConsumerGroupHeartbeatRequest { instance: instance(), ..join("c", &["t"]) });
    assert_eq!((back.error, set(&back.assignment)), (0, partitions("t", [0])));
    shard.reload();
}
