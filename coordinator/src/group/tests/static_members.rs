//! Members with an instance id, which may restart without a rebalance.

use super::*;

fn join_static(instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { instance: Some(instance.into()), ..join(instance) }
}

/// A stable group of static members; their answers to the join.
fn stable(shard: &mut Shard, instances: &[&str]) -> Vec<JoinGroupResponse> {
    let tokens: Vec<_> = instances.iter().map(|instance| shard.join(join_static(instance))).collect();
    shard.advance(DELAY * 2);
    let joined: Vec<_> = tokens.iter().map(|token| shard.joined(*token)).collect();
    for joined in &joined {
        shard.sync(joined);
    }
    assert_eq!(shard.state(), "Stable");
    joined
}

#[test]
fn a_static_member_needs_no_id_to_join() {
    let mut shard = Shard::new();
    let joined = stable(&mut shard, &["i"]);
    assert!(joined[0].member.starts_with("i-"));
    assert_eq!(joined[0].members[0].instance.as_deref(), Some("i"));
}

#[test]
fn a_follower_that_restarts_gets_its_assignment_back() {
    let mut shard = Shard::new();
    let before = stable(&mut shard, &["i", "j"]);
    let token = shard.join(join_static("j"));
    let after = shard.joined(token);
    assert_eq!((after.error, after.generation, after.skip_assignment), (0, 1, false));
    assert_ne!(after.member, before[1].member);
    let token = shard.sync(&after);
    assert_eq!(shard.synced(token).assignment, format!("{} in 1", before[1].member));
    assert_eq!(shard.heartbeat(&before[0].member, 1), 0, "nobody else noticed");
    shard.reload();
    assert_eq!(shard.heartbeat(&after.member, 1), 0, "the new id is stored");
}

#[test]
fn a_leader_that_restarts_skips_the_assignment_if_it_can() {
    let mut shard = Shard::new();
    let before = stable(&mut shard, &["i", "j"]);
    let token = shard.join(join_static("i"));
    let after = shard.joined(token);
    assert!(after.skip_assignment);
    assert_eq!((&after.leader, after.members.len()), (&after.member, 2));

    let token = shard.join(JoinGroupRequest { supports_skipping_assignment: false, ..join_static("i") });
    let old = shard.joined(token);
    assert_eq!((&old.leader, old.members.len(), old.skip_assignment), (&after.member, 0, false));
    assert_ne!(old.member, after.member);
    assert_eq!(shard.heartbeat(&before[1].member, 1), 0);
}

#[test]
fn a_restart_that_changes_the_protocol_begins_a_rebalance() {
    let mut shard = Shard::new();
    let before = stable(&mut shard, &["i", "j"]);
    let changed = vec![protocol("sticky", &["t"])];
    let token = shard.join(JoinGroupRequest { protocols: changed, ..join_static("j") });
    assert!(shard.waits(token));
    assert_eq!(shard.heartbeat(&before[0].member, 1), GroupError::RebalanceInProgress.code());
}

#[test]
fn a_restart_before_the_assignment_begins_a_rebalance() {
    let mut shard = Shard::new();
    let tokens = ["i", "j"].map(|instance| shard.join(join_static(instance)));
    shard.advance(DELAY * 2);
    let waiting = shard.sync(&shard.joined(tokens[1]));
    let token = shard.join(join_static("j"));
    assert_eq!(shard.synced(waiting).error, GroupError::FencedInstanceId.code());
    assert!(shard.waits(token), "i is to join again");
    let rejoin = JoinGroupRequest { member: shard.joined(tokens[0]).member, ..join_static("i") };
    let rejoin = shard.join(rejoin);
    assert_eq!(shard.joined(rejoin).generation, 2);
    assert_eq!(shard.joined(token).generation, 2);
}

#[test]
fn the_older_of_two_with_the_same_instance_id_is_fenced() {
    let mut shard = Shard::new();
    let first = shard.join(join_static("i"));
    let second = shard.join(join_static("i"));
    assert_eq!(shard.joined(first).error, GroupError::FencedInstanceId.code());
    shard.advance(DELAY * 2);
    let old = JoinGroupRequest { member: shard.joined(first).member, ..join_static("i") };
    let old = shard.join(old);
    assert_eq!(shard.joined(old).error, GroupError::FencedInstanceId.code());

    let request = SyncGroupRequest { instance: Some("i".into()), ..sync(&shard.joined(second)) };
    let stranger = SyncGroupRequest { member: "stranger".into(), ..request.clone() };
    let unknown = SyncGroupRequest { instance: Some("j".into()), ..request.clone() };
    for (request, error) in
        [(stranger, GroupError::FencedInstanceId.code()), (unknown, GroupError::UnknownMemberId.code()), (request, 0)]
    {
        let token = shard.ask(Request::SyncGroup(request));
        assert_eq!(shard.synced(token).error, error);
    }
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_until_its_session_ends() {
    let mut shard = Shard::new();
    let before = stable(&mut shard, &["i", "j"]);
    shard.advance(SESSION / 2);
    let request = JoinGroupRequest {
        member: before[0].member.clone(),
        rebalance_timeout_ms: 2_000,
        session_timeout_ms: 60_000,
        ..join_static("i")
    };
    let token = shard.join(request);
    shard.advance(SESSION / 2 - Duration::from_millis(1));
    assert!(shard.waits(token), "the rebalance time-out is that of the most patient member");
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.joined(token).members.len(), 1, "j was silent for a session");
}

#[test]
fn a_tool_removes_static_members_by_their_instance_ids() {
    let mut shard = Shard::new();
    let before = stable(&mut shard, &["i", "j"]);
    let response = shard.leave(&[("", Some("i")), ("", Some("k")), ("stranger", Some("j")), ("", None)]);
    let errors: Vec<i32> = response.members.iter().map(|member| member.error).collect();
    let unknown = GroupError::UnknownMemberId.code();
    assert_eq!(errors, [0, unknown, GroupError::FencedInstanceId.code(), unknown]);
    assert_eq!(shard.heartbeat(&before[0].member, 1), unknown);
}
