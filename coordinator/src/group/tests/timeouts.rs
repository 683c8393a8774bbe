//! Members that go silent, in each phase.

use super::*;

#[test]
fn a_silent_member_is_removed_after_its_session() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    shard.advance(SESSION - Duration::from_millis(1));
    assert_eq!(shard.heartbeat(&members[0], 1), 0);
    shard.advance(Duration::from_millis(1));
    assert_eq!(shard.heartbeat(&members[0], 1), GroupError::RebalanceInProgress.code());
    assert_eq!(shard.heartbeat(&members[1], 1), GroupError::UnknownMemberId.code());
}

#[test]
fn a_group_whose_members_all_went_silent_is_empty() {
    let mut shard = Shard::new();
    shard.stable(&["a", "b"]);
    shard.advance(SESSION);
    assert_eq!(shard.state(), "Empty");
    shard.reload();
    assert_eq!(shard.state(), "Empty", "it is stored");
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    let token = shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    for _ in 0..12 {
        assert!(shard.waits(token));
        shard.advance(REBALANCE / 12);
        // It is alive, but still busy with what it had.
        shard.heartbeat(&members[1], 1);
    }
    assert_eq!(shard.joined(token).members.len(), 1);
    assert_eq!(shard.heartbeat(&members[1], 1), GroupError::UnknownMemberId.code());
}

#[test]
fn who_waits_for_the_others_need_not_send_heartbeats() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a", "b"]);
    let token = shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    for _ in 0..11 {
        shard.advance(SESSION / 2);
        shard.heartbeat(&members[1], 1);
    }
    assert!(shard.waits(token));
}

#[test]
fn a_new_member_that_was_given_up_does_not_hold_up_a_rebalance_for_ever() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a"]);
    let old = |client| JoinGroupRequest {
        require_known_member: false,
        rebalance_timeout_ms: 1_700_000,
        session_timeout_ms: 1_700_000,
        ..join(client)
    };
    let token = shard.join(JoinGroupRequest { member: members[0].clone(), ..old("a") });
    let joined = shard.joined(token);
    shard.sync(&joined);
    let given_up = shard.join(old("b"));
    shard.advance(Duration::from_secs(5 * 60));
    assert_eq!(shard.joined(given_up).error, GroupError::UnknownMemberId.code());
}

#[test]
fn who_does_not_fetch_its_assignment_in_time_is_out() {
    let mut shard = Shard::new();
    let (a, joining_a) = shard.join_as_new("a");
    let (b, _) = shard.join_as_new("b");
    shard.advance(DELAY * 2);
    shard.sync(&shard.joined(joining_a));
    for _ in 0..12 {
        assert_eq!(shard.heartbeat(&a, 1), 0);
        assert_eq!(shard.heartbeat(&b, 1), 0, "it is alive");
        shard.advance(REBALANCE / 12);
    }
    assert_eq!(shard.heartbeat(&a, 1), GroupError::RebalanceInProgress.code());
    assert_eq!(shard.heartbeat(&b, 1), GroupError::UnknownMemberId.code());
}

#[test]
fn a_leader_that_does_not_hand_in_an_assignment_is_replaced() {
    let mut shard = Shard::new();
    let (a, _) = shard.join_as_new("a");
    let (b, joining_b) = shard.join_as_new("b");
    shard.advance(DELAY * 2);
    let waiting = shard.sync(&shard.joined(joining_b));
    for _ in 0..12 {
        shard.heartbeat(&a, 1);
        assert!(shard.waits(waiting));
        shard.advance(REBALANCE / 12);
    }
    assert_eq!(shard.synced(waiting).error, GroupError::RebalanceInProgress.code());
    let token = shard.join(JoinGroupRequest { member: b.clone(), ..join("b") });
    assert_eq!(shard.joined(token).leader, b);
}
