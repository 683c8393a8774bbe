//! From the first join to the first assignment.

use super::*;

#[test]
fn members_get_an_id_first_then_join_together_and_get_their_assignments() {
    let mut shard = Shard::new();
    let (a, joining_a) = shard.join_as_new("a");
    let (b, joining_b) = shard.join_as_new("b");
    assert!(shard.waits(joining_a) && shard.waits(joining_b));
    assert!(a.starts_with("a-") && b.starts_with("b-"));

    shard.advance(DELAY * 2);
    let (of_a, of_b) = (shard.joined(joining_a), shard.joined(joining_b));
    assert_eq!((of_a.error, of_a.generation, of_a.protocol.as_str()), (0, 1, "range"));
    assert_eq!((&of_a.leader, &of_b.leader), (&a, &a), "the first is the leader");
    assert_eq!(of_b.members, [], "only the leader is told of the others");
    let told: Vec<_> = of_a.members.iter().map(|member| member.member.clone()).collect();
    assert_eq!(told, [a.clone(), b.clone()]);
    assert_eq!(of_a.members[1].metadata, protocol("range", &["t"]).metadata);

    let of_follower = shard.sync(&of_b);
    assert!(shard.waits(of_follower), "it waits for the leader");
    let of_leader = shard.sync(&of_a);
    assert_eq!(shard.synced(of_leader).assignment, format!("{a} in 1"));
    assert_eq!(shard.synced(of_follower).assignment, format!("{b} in 1"));
    assert_eq!(shard.synced(of_follower).protocol, "range");
    assert_eq!(shard.state(), "Stable");
}

#[test]
fn an_old_client_joins_without_an_id() {
    let mut shard = Shard::new();
    let token = shard.join(JoinGroupRequest { require_known_member: false, ..join("a") });
    shard.advance(DELAY);
    assert_eq!(shard.joined(token).error, 0);
    assert!(shard.joined(token).member.starts_with("a-"));
}

#[test]
fn the_initial_delay_grows_with_each_new_member_up_to_the_rebalance_timeout() {
    let mut shard = Shard::new();
    let quick = |client| JoinGroupRequest { rebalance_timeout_ms: 7_000, require_known_member: false, ..join(client) };
    let first = shard.join(quick("a"));
    let mut late = Vec::new();
    for client in ["b", "c", "d"] {
        shard.advance(Duration::from_secs(2));
        assert!(shard.waits(first));
        late.push(shard.join(quick(client)));
    }
    shard.advance(Duration::from_millis(999));
    assert!(shard.waits(first));
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.joined(first).members.len(), 4, "after 7 seconds, though a member had just come");
    assert!(late.iter().all(|token| !shard.waits(*token)));
}

#[test]
fn a_member_id_that_is_not_used_expires() {
    let mut shard = Shard::new();
    let given = shard.join(join("a"));
    let member = shard.joined(given).member;
    shard.advance(SESSION);
    let token = shard.join(JoinGroupRequest { member, ..join("a") });
    assert_eq!(shard.joined(token).error, GroupError::UnknownMemberId.code());
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_given_out() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a"]);
    let given = shard.join(join("b"));
    let rejoin = shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    assert!(shard.waits(rejoin), "b is on its way");
    let left = shard.leave(&[(&shard.joined(given).member, None)]);
    assert_eq!(left.members[0].error, 0);
    assert_eq!(shard.joined(rejoin).generation, 2);
}

#[test]
fn the_protocol_that_most_prefer_among_those_all_know_is_chosen() {
    let mut shard = Shard::new();
    let with = |client, names: &[&str]| JoinGroupRequest {
        require_known_member: false,
        protocols: names.iter().map(|name| protocol(name, &["t"])).collect(),
        ..join(client)
    };
    let token = shard.join(with("a", &["x", "y", "z"]));
    shard.join(with("b", &["z", "y", "x"]));
    shard.join(with("c", &["z", "x"]));
    let other = shard.join(with("d", &["y", "w"]));
    assert_eq!(shard.joined(other).error, GroupError::InconsistentGroupProtocol.code(), "c does not know y");
    shard.advance(DELAY * 2);
    assert_eq!(shard.joined(token).protocol, "z");
}

#[test]
fn protocols_must_go_together() {
    let mut shard = Shard::new();
    for request in [
        JoinGroupRequest { protocols: vec![], ..join("a") },
        JoinGroupRequest { protocol_type: String::new(), ..join("a") },
    ] {
        let token = shard.join(request);
        assert_eq!(shard.joined(token).error, GroupError::InconsistentGroupProtocol.code());
    }
    shard.stable(&["a"]);
    let token = shard.join(JoinGroupRequest { protocol_type: "connect".into(), ..join("b") });
    assert_eq!(shard.joined(token).error, GroupError::InconsistentGroupProtocol.code());
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut shard = Shard::new();
    let long = "x".repeat(40_000);
    for (request, error) in [
        (JoinGroupRequest { group: String::new(), ..join("a") }, GroupError::InvalidGroupId),
        (JoinGroupRequest { group: long.clone(), ..join("a") }, GroupError::InvalidGroupId),
        (JoinGroupRequest { session_timeout_ms: 5_999, ..join("a") }, GroupError::InvalidSessionTimeout),
        (JoinGroupRequest { session_timeout_ms: 1_800_001, ..join("a") }, GroupError::InvalidSessionTimeout),
        (JoinGroupRequest { member: "unheard of".into(), ..join("a") }, GroupError::UnknownMemberId),
        (JoinGroupRequest { instance: Some(long), ..join("a") }, GroupError::InvalidRequest),
    ] {
        let token = shard.join(request);
        assert_eq!(shard.joined(token).error, error.code());
    }
    assert!(shard.groups.groups.is_empty());
}

#[test]
fn a_full_group_takes_no_more_members() {
    let mut shard = Shard::with(GroupsConfig { max_members: 2, ..GroupsConfig::default() });
    let members = shard.stable(&["a", "b"]);
    let token = shard.join(JoinGroupRequest { require_known_member: false, ..join("c") });
    assert_eq!(shard.joined(token).error, GroupError::GroupMaxSizeReached.code());
    let rejoin = shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    assert!(shard.waits(rejoin), "a member is still one");
}

#[test]
fn the_first_to_join_again_get_the_places_of_a_group_that_is_too_large() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    shard.config.max_members = 1;
    shard.reload();
    assert_eq!(shard.heartbeat(&members[0], 1), GroupError::RebalanceInProgress.code());
    let first = shard.join(JoinGroupRequest { member: members[1].clone(), ..join("b") });
    let second = shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    assert_eq!(shard.joined(second).error, GroupError::GroupMaxSizeReached.code());
    assert_eq!(shard.joined(first).leader, members[1]);
}

#[test]
fn what_members_bring_together_is_bounded() {
    let mut shard = Shard::with(GroupsConfig { max_append_bytes: 4000, ..GroupsConfig::default() });
    let members = shard.stable(&["a"]);
    let heavy = |client| JoinGroupRequest {
        protocols: vec![GroupProtocol { name: "range".into(), metadata: vec![0; 1900].into() }],
        require_known_member: false,
        ..join(client)
    };
    let token = shard.join(heavy("b"));
    assert_eq!(shard.joined(token).error, GroupError::GroupMaxSizeReached.code());
    assert_eq!(shard.heartbeat(&members[0], 1), 0);
}

#[test]
fn a_second_join_of_a_member_ends_the_first() {
    let mut shard = Shard::new();
    let (member, first) = shard.join_as_new("a");
    let second = shard.join(JoinGroupRequest { member, ..join("a") });
    assert_eq!(shard.joined(first).error, GroupError::RebalanceInProgress.code());
    shard.advance(DELAY * 2);
    assert_eq!(shard.joined(second).error, 0);
}

#[test]
fn a_join_repeated_before_the_assignment_is_answered_again() {
    let mut shard = Shard::new();
    let (member, first) = shard.join_as_new("a");
    shard.advance(DELAY);
    let again = shard.join(JoinGroupRequest { member, ..join("a") });
    assert_eq!(shard.joined(again), shard.joined(first));
}
