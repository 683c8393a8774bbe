//! A group that has its assignment: who joins again, leaves, asks for the wrong generation; takeovers; tools.

use bmq_proto::coordinator::{DeleteGroupRequest, DescribeGroupRequest, DescribeGroupResponse, ListGroupsRequest};

use super::*;

fn rejoin(member: &str) -> JoinGroupRequest {
    JoinGroupRequest { member: member.into(), ..join("any") }
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    let token = shard.join(rejoin(&members[1]));
    assert_eq!((shard.joined(token).error, shard.joined(token).generation), (0, 1));
    let token = shard.sync(&shard.joined(token));
    assert_eq!(shard.synced(token).assignment, format!("{} in 1", members[1]));
    assert_eq!(shard.heartbeat(&members[0], 1), 0);
}

#[test]
fn a_leader_that_joins_again_or_a_member_that_changed_begins_a_rebalance() {
    let changed = |member: &str| JoinGroupRequest { protocols: vec![protocol("range", &["u"])], ..rejoin(member) };
    for (who, request) in [(0, rejoin as fn(&str) -> _), (1, changed)] {
        let mut shard = Shard::new();
        let members = shard.stable(&["a", "b"]);
        let token = shard.join(request(&members[who]));
        assert!(shard.waits(token));
        assert_eq!(shard.state(), "PreparingRebalance");
        assert_eq!(shard.heartbeat(&members[1 - who], 1), GroupError::RebalanceInProgress.code());
        let other = shard.join(rejoin(&members[1 - who]));
        assert_eq!(shard.joined(token).generation, 2);
        assert_eq!(shard.joined(other).generation, 2);
        assert_eq!(shard.joined(other).leader, members[0], "the leader stays");
    }
}

#[test]
fn a_rebalance_during_the_sync_phase_sends_the_waiting_back() {
    let mut shard = Shard::new();
    let (_, joining_a) = shard.join_as_new("a");
    let (b, joining_b) = shard.join_as_new("b");
    shard.advance(DELAY * 2);
    let waiting = shard.sync(&shard.joined(joining_b));
    let c = shard.join(JoinGroupRequest { require_known_member: false, ..join("c") });
    assert_eq!(shard.synced(waiting).error, GroupError::RebalanceInProgress.code());
    let late = shard.sync(&shard.joined(joining_a));
    assert_eq!(shard.synced(late).error, GroupError::RebalanceInProgress.code());
    assert!(shard.waits(c));
    let token = shard.join(rejoin(&b));
    assert!(shard.waits(token), "a is missing");
    shard.advance(REBALANCE);
    assert_eq!(shard.joined(token).generation, 2);
    assert_eq!(shard.joined(token).leader, b, "the leader did not come back");
}

#[test]
fn requests_name_the_present_generation_and_protocol() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a"]);
    assert_eq!(shard.heartbeat(&members[0], 0), GroupError::IllegalGeneration.code());
    assert_eq!(shard.heartbeat("unheard of", 1), GroupError::UnknownMemberId.code());
    let token = shard.join(rejoin(&members[0]));
    let joined = shard.joined(token);
    for (request, error) in [
        (SyncGroupRequest { generation: 1, ..sync(&joined) }, GroupError::IllegalGeneration),
        (SyncGroupRequest { protocol: Some("sticky".into()), ..sync(&joined) }, GroupError::InconsistentGroupProtocol),
        (SyncGroupRequest { member: "unheard of".into(), ..sync(&joined) }, GroupError::UnknownMemberId),
        (SyncGroupRequest { group: "other".into(), ..sync(&joined) }, GroupError::UnknownMemberId),
    ] {
        let token = shard.ask(Request::SyncGroup(request));
        assert_eq!(shard.synced(token).error, error.code());
    }
}

#[test]
fn an_assignment_that_cannot_be_stored_is_refused_to_all() {
    let mut shard = Shard::with(GroupsConfig { max_append_bytes: 2000, ..GroupsConfig::default() });
    let (_, joining_a) = shard.join_as_new("a");
    let (_, joining_b) = shard.join_as_new("b");
    shard.advance(DELAY * 2);
    let follower = shard.sync(&shard.joined(joining_b));
    let mut request = sync(&shard.joined(joining_a));
    request.assignments[0].assignment = vec![0; 2000].into();
    let leader = shard.ask(Request::SyncGroup(request));
    assert_eq!(shard.synced(leader).error, GroupError::UnknownServerError.code());
    assert_eq!(shard.synced(follower).error, GroupError::UnknownServerError.code());
    assert!(shard.records.is_empty());
}

#[test]
fn members_leave_together() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b", "c"]);
    let response = shard.leave(&[(&members[0], None), ("unheard of", None), (&members[1], None)]);
    let errors: Vec<i32> = response.members.iter().map(|member| member.error).collect();
    assert_eq!(errors, [0, GroupError::UnknownMemberId.code(), 0]);
    let token = shard.join(rejoin(&members[2]));
    assert_eq!(shard.joined(token).leader, members[2]);
    assert_eq!(shard.leave(&[(&members[2], None)]).error, 0);
    assert_eq!(shard.state(), "Empty");
}

#[test]
fn members_go_on_after_a_takeover_with_a_heartbeat() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    shard.advance(SESSION / 2);
    shard.reload();
    shard.advance(SESSION - Duration::from_millis(1));
    assert_eq!(shard.heartbeat(&members[0], 1), 0, "sessions began anew");
    let token = shard.join(rejoin(&members[1]));
    assert_eq!(shard.joined(token).generation, 1, "what it brings is known to be the same");
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.state(), "Stable");
}

#[test]
fn a_rebalance_that_was_not_complete_is_lost_with_the_coordinator() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a"]);
    let token = shard.join(rejoin(&members[0]));
    assert_eq!(shard.joined(token).generation, 2);
    shard.reload();
    let lost = shard.sync(&shard.joined(token));
    assert_eq!(shard.synced(lost).error, GroupError::IllegalGeneration.code());
    assert_eq!(shard.heartbeat(&members[0], 1), 0);
}

fn describe(shard: &mut Shard) -> DescribeGroupResponse {
    let token = shard.ask(Request::DescribeGroup(DescribeGroupRequest { group: GROUP.into() }));
    match &shard.answers[&token] {
        Response::DescribeGroup(response) => response.clone(),
        other => panic!("not a description: {other:?}"),
    }
}

#[test]
fn a_group_is_described_with_what_its_members_brought_and_got() {
    let mut shard = Shard::new();
    let response = describe(&mut shard);
    assert_eq!((response.error, response.state.as_str()), (GroupError::GroupIdNotFound.code(), "Dead"));
    let members = shard.stable(&["a"]);
    let response = describe(&mut shard);
    assert_eq!((response.state.as_str(), response.protocol.as_str()), ("Stable", "range"));
    let described = &response.members[0];
    assert_eq!((&described.member, described.client.as_ref().unwrap().id.as_str()), (&members[0], "a"));
    assert_eq!(described.assignment, format!("{} in 1", members[0]));
    assert_eq!(described.metadata, protocol("range", &["t"]).metadata);
    shard.join(rejoin(&members[0]));
    let response = describe(&mut shard);
    assert_eq!((response.state.as_str(), response.protocol.as_str()), ("CompletingRebalance", ""));
    assert_eq!(response.members[0].assignment, "");
}

fn delete(shard: &mut Shard) -> i32 {
    let token = shard.ask(Request::DeleteGroup(DeleteGroupRequest { group: GROUP.into() }));
    match &shard.answers[&token] {
        Response::DeleteGroup(response) => response.error,
        other => panic!("not a deletion: {other:?}"),
    }
}

#[test]
fn only_an_empty_group_is_deleted() {
    let mut shard = Shard::new();
    assert_eq!(delete(&mut shard), GroupError::GroupIdNotFound.code());
    let members = shard.stable(&["a"]);
    assert_eq!(delete(&mut shard), GroupError::NonEmptyGroup.code());
    shard.leave(&[(&members[0], None)]);
    assert_eq!(delete(&mut shard), 0);
    shard.reload();
    assert_eq!(delete(&mut shard), GroupError::GroupIdNotFound.code());
}

#[test]
fn groups_are_listed() {
    let mut shard = Shard::new();
    shard.stable(&["a"]);
    let token = shard.ask(Request::ListGroups(ListGroupsRequest { shard: 0 }));
    let Response::ListGroups(response) = &shard.answers[&token] else { panic!("not a list") };
    let group = &response.groups[0];
    assert_eq!((group.group.as_str(), group.r#type.as_str()), (GROUP, "classic"));
    assert_eq!((group.state.as_str(), group.protocol_type.as_str()), ("Stable", "consumer"));
}

#[test]
fn the_number_of_groups_is_bounded() {
    let mut shard = Shard::with(GroupsConfig { max_groups: 1, ..GroupsConfig::default() });
    shard.stable(&["a"]);
    let token = shard.join(JoinGroupRequest { group: "other".into(), ..join("a") });
    assert_eq!(shard.joined(token).error, GroupError::PolicyViolation.code());
}
