//! What a group of KIP-848's protocol answers, one behaviour after the other.

use std::time::Duration;

use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommittedOffset, ConsumerGroupHeartbeatRequest, DeleteGroupRequest, FetchOffsetsRequest,
    JoinGroupRequest, ListGroupsRequest,
};

use super::harness::*;
use crate::assignor::{Assignor, Partitions};
use crate::group::config::GroupsConfig;
use crate::group::error::GroupError;
use crate::shard::{Request, Response};

const SECOND: Duration = Duration::from_secs(1);

fn assert_refused(shard: &mut Shard, request: ConsumerGroupHeartbeatRequest, error: GroupError) {
    let response = shard.heartbeat(request.clone());
    assert_eq!(response.error, error.code(), "{request:?}");
    assert!(!response.error_message.is_empty());
}

fn commit(shard: &mut Shard, member: &str, epoch: i32) -> i32 {
    let offset = CommittedOffset { topic: "t".to_owned(), offset: 5, leader_epoch: -1, ..Default::default() };
    let request = CommitOffsetsRequest {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        generation_or_member_epoch: epoch,
        offsets: vec![offset],
        ..Default::default()
    };
    match shard.call(Request::CommitOffsets(request)) {
        Response::CommitOffsets(response) => response.error,
        other => panic!("{other:?}"),
    }
}

fn state(shard: &mut Shard) -> String {
    shard.describe().state
}

/// Two members that have what they shall have.
fn two_members() -> Shard {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join("a", &["t"]));
    shard.heartbeat(join("b", &["t"]));
    shard.heartbeat(owning("a", 1, &[("t", &[0, 1, 2, 3])]));
    assert_eq!(shard.heartbeat(owning("a", 1, &[("t", &[0, 1])])).member_epoch, 2);
    assert_eq!(set(&shard.heartbeat(beat("b", 2)).assignment), partitions("t", [2, 3]));
    assert_eq!(state(&mut shard), "Stable");
    shard
}

#[test]
fn the_first_member_gets_everything() {
    let mut shard = Shard::new(&[("t", 3), ("u", 1)]);
    let joined = shard.heartbeat(join("a", &["t", "u", "not-there"]));
    assert_eq!((joined.error, joined.member.as_str(), joined.member_epoch), (0, "a", 1));
    assert_eq!(joined.heartbeat_interval_ms, 5000);
    let all: Partitions = partitions("t", 0..3).into_iter().chain(partitions("u", [0])).collect();
    assert_eq!(set(&joined.assignment), all);
    // Nothing new, nothing told.
    let again = shard.heartbeat(beat("a", 1));
    assert_eq!((again.member_epoch, again.assignment), (1, None));
    // Unless the member tells everything: it may have missed something.
    let full = ConsumerGroupHeartbeatRequest { member_epoch: 1, owned: Some(list(&[])), ..join("a", &["t", "u"]) };
    assert_eq!(set(&shard.heartbeat(full).assignment), all);
    assert_eq!(state(&mut shard), "Stable");
}

#[test]
fn a_member_without_an_id_is_given_one() {
    let mut shard = Shard::new(&[("t", 1)]);
    let first = shard.heartbeat(join("", &["t"])).member;
    let second = shard.heartbeat(join("", &["t"])).member;
    assert!(!first.is_empty() && !second.is_empty() && first != second);
}

#[test]
fn a_partition_waits_for_its_old_owner() {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join("a", &["t"]));
    let joined = shard.heartbeat(join("b", &["t"]));
    // All is with the first member still.
    assert_eq!((joined.member_epoch, set(&joined.assignment)), (2, Partitions::new()));
    assert_eq!(state(&mut shard), "Reconciling");
    let asked = shard.heartbeat(beat("a", 1));
    assert_eq!((asked.member_epoch, set(&asked.assignment)), (1, partitions("t", [0, 1])));
    // Silence about what it owns frees nothing, nor does a list that has it still.
    for request in [beat("a", 1), owning("a", 1, &[("t", &[0, 1, 2])])] {
        assert_eq!(shard.heartbeat(request).member_epoch, 1);
        assert_eq!(shard.heartbeat(beat("b", 2)).assignment, None);
    }
    let done = shard.heartbeat(owning("a", 1, &[("t", &[0, 1])]));
    assert_eq!((done.member_epoch, done.assignment), (2, None));
    let given = shard.heartbeat(beat("b", 2));
    assert_eq!((given.member_epoch, set(&given.assignment)), (2, partitions("t", [2, 3])));
    assert_eq!(state(&mut shard), "Stable");
}

#[test]
fn what_a_leaver_had_is_free_at_once() {
    let mut shard = two_members();
    let left = shard.heartbeat(beat("a", -1));
    assert_eq!((left.error, left.member_epoch), (0, -1));
    assert_eq!(state(&mut shard), "Assigning");
    let given = shard.heartbeat(beat("b", 2));
    assert_eq!((given.member_epoch, set(&given.assignment)), (3, partitions("t", 0..4)));
    assert_refused(&mut shard, beat("a", 2), GroupError::UnknownMemberId);
    shard.heartbeat(beat("b", -1));
    let described = shard.describe();
    assert_eq!((described.state.as_str(), described.group_epoch, described.assignment_epoch), ("Empty", 4, 4));
}

#[test]
fn a_silent_member_is_fenced() {
    let mut shard = two_members();
    shard.pass(44 * SECOND);
    shard.heartbeat(beat("b", 2));
    shard.pass(2 * SECOND);
    assert_refused(&mut shard, beat("a", 2), GroupError::UnknownMemberId);
    assert_eq!(set(&shard.heartbeat(beat("b", 2)).assignment), partitions("t", 0..4));
}

#[test]
fn a_member_that_does_not_revoke_in_time_is_fenced() {
    let mut shard = Shard::new(&[("t", 2)]);
    shard.heartbeat(ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: Some(10_000), ..join("a", &["t"]) });
    shard.heartbeat(join("b", &["t"]));
    shard.heartbeat(beat("a", 1));
    shard.pass(9 * SECOND);
    assert_eq!(shard.heartbeat(beat("a", 1)).error, 0);
    shard.pass(2 * SECOND);
    assert_refused(&mut shard, beat("a", 1), GroupError::UnknownMemberId);
    assert_eq!(set(&shard.heartbeat(beat("b", 2)).assignment), partitions("t", 0..2));
}

#[test]
fn epochs_fence() {
    let mut shard = two_members();
    assert_refused(&mut shard, beat("a", 3), GroupError::FencedMemberEpoch);
    assert_refused(&mut shard, beat("a", 1), GroupError::FencedMemberEpoch);
    // The answer with the newer epoch may have been lost; but then the member cannot have what it was not told of.
    assert_refused(&mut shard, owning("b", 0, &[("t", &[0])]), GroupError::InvalidRequest);
    shard.heartbeat(join("c", &["t"]));
    shard.heartbeat(owning("a", 2, &[("t", &[0, 1])]));
    let moved = shard.heartbeat(owning("b", 2, &[("t", &[2])]));
    assert_eq!(moved.member_epoch, 3);
    assert_eq!(shard.heartbeat(owning("b", 2, &[("t", &[2])])).member_epoch, 3);
    assert_refused(&mut shard, owning("b", 2, &[("t", &[2, 3])]), GroupError::FencedMemberEpoch);
    assert_refused(&mut shard, beat("b", 1), GroupError::FencedMemberEpoch);
}

#[test]
fn a_fenced_member_joins_anew_under_its_id() {
    let mut shard = two_members();
    let again = shard.heartbeat(join("a", &["t"]));
    assert_eq!((again.error, again.member_epoch, set(&again.assignment)), (0, 2, partitions("t", [0, 1])));
}

#[test]
fn groups_and_members_that_are_not_there() {
    let mut shard = Shard::new(&[("t", 1)]);
    assert_refused(&mut shard, beat("a", 1), GroupError::GroupIdNotFound);
    assert_refused(&mut shard, beat("a", -1), GroupError::GroupIdNotFound);
    assert_eq!(shard.describe().error, GroupError::GroupIdNotFound.code());
    shard.heartbeat(join("a", &["t"]));
    assert_refused(&mut shard, beat("b", 1), GroupError::UnknownMemberId);
    assert_refused(&mut shard, beat("b", -1), GroupError::UnknownMemberId);
}

#[test]
fn nonsense_is_refused() {
    let mut shard = Shard::new(&[("t", 1)]);
    let good = join("a", &["t"]);
    let nonsense = [
        ConsumerGroupHeartbeatRequest { group: String::new(), ..good.clone() },
        ConsumerGroupHeartbeatRequest { group: "g".repeat(40_000), ..good.clone() },
        ConsumerGroupHeartbeatRequest { instance: Some(String::new()), ..good.clone() },
        ConsumerGroupHeartbeatRequest { rack: Some(String::new()), ..good.clone() },
        ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: None, ..good.clone() },
        ConsumerGroupHeartbeatRequest { subscribed_topics: None, ..good.clone() },
        ConsumerGroupHeartbeatRequest { owned: None, ..good.clone() },
        ConsumerGroupHeartbeatRequest { owned: Some(list(&[("t", &[0])])), ..good.clone() },
        beat("", 1),
        beat("", -1),
        beat("a", -2),
        beat("a", -3),
    ];
    for request in nonsense {
        assert_refused(&mut shard, request, GroupError::InvalidRequest);
    }
    shard.heartbeat(good);
    let mut bad_topic = owning("a", 1, &[("t", &[0])]);
    bad_topic.owned.as_mut().unwrap().topics[0].topic_id = vec![1, 2, 3].into();
    assert_refused(&mut shard, bad_topic, GroupError::InvalidRequest);
}

#[test]
fn assignors_are_voted_for() {
    let mut shard = Shard::new(&[("t", 2), ("u", 2)]);
    let unknown = ConsumerGroupHeartbeatRequest { server_assignor: Some("mine".into()), ..join("a", &["t"]) };
    assert_refused(&mut shard, unknown, GroupError::UnsupportedAssignor);
    shard.heartbeat(join("a", &["t", "u"]));
    assert_eq!(shard.describe().assignor, "uniform");
    shard.heartbeat(ConsumerGroupHeartbeatRequest { server_assignor: Some("range".into()), ..join("b", &["t", "u"]) });
    assert_eq!(shard.describe().assignor, "range");
    let uniform = ConsumerGroupHeartbeatRequest { server_assignor: Some("uniform".into()), ..join("c", &["t", "u"]) };
    shard.heartbeat(uniform);
    assert_eq!(shard.describe().assignor, "uniform", "the first configured one of two with as many votes");
    let mut config = GroupsConfig::default();
    config.consumer.assignors = vec![Assignor::Uniform];
    let mut shard = Shard::with_config(config, &[]);
    let range = ConsumerGroupHeartbeatRequest { server_assignor: Some("range".into()), ..join("b", &["t"]) };
    assert_refused(&mut shard, range, GroupError::UnsupportedAssignor);
}

#[test]
fn a_group_is_bounded() {
    let mut config = GroupsConfig::default();
    config.consumer.max_members = 2;
    config.consumer.max_subscription_bytes = 3000;
    let mut shard = Shard::with_config(config, &[("t", 2)]);
    shard.heartbeat(join("a", &["t"]));
    let long = "x".repeat(2990);
    assert_refused(&mut shard, join("b", &[&long]), GroupError::GroupMaxSizeReached);
    let known = ConsumerGroupHeartbeatRequest { member_epoch: 1, ..join("a", &["t", &long]) };
    assert_refused(&mut shard, known, GroupError::GroupMaxSizeReached);
    shard.heartbeat(join("b", &["t"]));
    assert_refused(&mut shard, join("c", &["t"]), GroupError::GroupMaxSizeReached);
    assert_eq!(shard.heartbeat(join("b", &["t"])).error, 0, "a member may join again");
    shard.reload();
}

#[test]
fn topics_come_grow_and_go() {
    let mut shard = Shard::new(&[("t", 1)]);
    shard.heartbeat(join("a", &["t", "u"]));
    shard.set_topics(&[("t", 1), ("other", 9)]);
    assert_eq!(shard.heartbeat(beat("a", 1)).member_epoch, 1, "not one of its topics");
    shard.set_topics(&[("t", 3), ("u", 1)]);
    let grown = shard.heartbeat(beat("a", 1));
    assert_eq!((grown.member_epoch, set(&grown.assignment).len()), (2, 4));
    shard.set_topics(&[("t", 3)]);
    let gone = shard.heartbeat(beat("a", 2));
    assert_eq!((gone.member_epoch, set(&gone.assignment)), (2, partitions("t", 0..3)));
    assert_eq!(shard.heartbeat(owning("a", 2, &[("t", &[0, 1, 2])])).member_epoch, 3);
    assert_eq!(state(&mut shard), "Stable");
    // A change that happened while nobody was there to see it.
    shard.topics = topics_of(&[("t", 4)]);
    shard.reload();
    assert_eq!(set(&shard.heartbeat(beat("a", 3)).assignment), partitions("t", 0..4));
}

#[test]
fn a_subscription_changes() {
    let mut shard = Shard::new(&[("t", 1), ("u", 1)]);
    shard.heartbeat(join("a", &["t"]));
    let changed = ConsumerGroupHeartbeatRequest { subscribed_topics: Some(names(&["u"])), ..beat("a", 1) };
    let asked = shard.heartbeat(changed);
    assert_eq!((asked.member_epoch, set(&asked.assignment)), (1, Partitions::new()));
    let given = shard.heartbeat(owning("a", 1, &[]));
    assert_eq!((given.member_epoch, set(&given.assignment)), (2, partitions("u", [0])));
    // Neither another order nor a repetition is a change.
    let both = ConsumerGroupHeartbeatRequest { subscribed_topics: Some(names(&["u", "t"])), ..beat("a", 2) };
    assert_eq!(shard.heartbeat(both).member_epoch, 3);
    let same = ConsumerGroupHeartbeatRequest { subscribed_topics: Some(names(&["t", "u", "t"])), ..beat("a", 3) };
    assert_eq!(shard.heartbeat(same).member_epoch, 3);
}

fn join_by_regex(member: &str, regex: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topics: None,
        subscribed_regex: Some(regex.to_owned()),
        ..join(member, &[])
    }
}

#[test]
fn a_regular_expression_matches_whole_names() {
    let mut shard = Shard::new(&[("ab", 1), ("abc", 1), ("xab", 1)]);
    let joined = shard.heartbeat(join_by_regex("a", "a|ab.?"));
    let expected: Partitions = partitions("ab", [0]).into_iter().chain(partitions("abc", [0])).collect();
    assert_eq!(set(&joined.assignment), expected);
    shard.set_topics(&[("ab", 1), ("abc", 1), ("xab", 1), ("abd", 2)]);
    assert_eq!(set(&shard.heartbeat(beat("a", 1)).assignment).len(), 4);
    assert_eq!(shard.describe().members[0].subscribed_regex, "a|ab.?");
    // An empty one takes it back.
    let none = ConsumerGroupHeartbeatRequest { subscribed_regex: Some(String::new()), ..owning("a", 2, &[]) };
    assert_eq!(set(&shard.heartbeat(none).assignment), Partitions::new());
}

#[test]
fn a_regular_expression_must_be_one_and_small() {
    let mut shard = Shard::new(&[("t", 1)]);
    for pattern in ["(", "a)|(b", r"(a)\1", "(?=a)", r"\pL{1000}", "a{100000}"] {
        assert_refused(&mut shard, join_by_regex("a", pattern), GroupError::InvalidRegularExpression);
    }
    let joined = shard.heartbeat(join_by_regex("a", "(?x) t  # in verbose mode"));
    assert_eq!(set(&joined.assignment), partitions("t", [0]));
}

fn join_as(instance: &str, member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest { instance: Some(instance.to_owned()), ..join(member, &["t"]) }
}

fn as_instance(instance: &str, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest { instance: Some(instance.to_owned()), ..request }
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join_as("i", "a"));
    shard.heartbeat(join("b", &["t"]));
    shard.heartbeat(as_instance("i", owning("a", 1, &[("t", &[0, 1])])));
    shard.heartbeat(beat("b", 2));
    assert_eq!(shard.heartbeat(as_instance("i", beat("a", -2))).member_epoch, -2);
    shard.reload();
    // Nobody else is given anything meanwhile.
    assert_eq!(shard.heartbeat(beat("b", 2)).assignment, None);
    let back = shard.heartbeat(join_as("i", "a2"));
    assert_eq!((back.member_epoch, set(&back.assignment)), (2, partitions("t", [0, 1])));
    assert_eq!(state(&mut shard), "Stable");
    assert_refused(&mut shard, as_instance("i", beat("a", 2)), GroupError::FencedInstanceId);
    assert_refused(&mut shard, beat("a", 2), GroupError::UnknownMemberId);
    shard.reload();
}

#[test]
fn an_instance_has_one_member() {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join_as("i", "a"));
    assert_refused(&mut shard, join_as("i", "b"), GroupError::UnreleasedInstanceId);
    assert_refused(&mut shard, as_instance("i", beat("b", 1)), GroupError::FencedInstanceId);
    assert_refused(&mut shard, as_instance("i", beat("b", -1)), GroupError::FencedInstanceId);
    assert_refused(&mut shard, as_instance("j", beat("a", 1)), GroupError::UnknownMemberId);
    // It may not have heard the answer to its join.
    assert_eq!(shard.heartbeat(join_as("i", "a")).error, 0);
    shard.heartbeat(as_instance("i", beat("a", -1)));
    assert_eq!(state(&mut shard), "Empty");
    assert_eq!(shard.heartbeat(join_as("i", "b")).error, 0);
}

#[test]
fn a_static_member_that_stays_away_is_fenced() {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join_as("i", "a"));
    shard.heartbeat(as_instance("i", beat("a", -2)));
    shard.pass(46 * SECOND);
    assert_eq!(state(&mut shard), "Empty");
    assert_eq!(shard.heartbeat(join_as("i", "b")).member_epoch, 3);
}

#[test]
fn commits_need_the_present_epoch() {
    let mut shard = two_members();
    assert_eq!(commit(&mut shard, "a", 2), 0);
    assert_eq!(commit(&mut shard, "a", 1), GroupError::StaleMemberEpoch.code());
    assert_eq!(commit(&mut shard, "a", 3), GroupError::StaleMemberEpoch.code());
    assert_eq!(commit(&mut shard, "c", 2), GroupError::UnknownMemberId.code());
    assert_eq!(commit(&mut shard, "", -1), GroupError::UnknownMemberId.code());
    let mut fetch = |member: Option<&str>, member_epoch| {
        let member = member.map(str::to_owned);
        let request = FetchOffsetsRequest { group: GROUP.to_owned(), member, member_epoch, ..Default::default() };
        match shard.call(Request::FetchOffsets(request)) {
            Response::FetchOffsets(response) => response.error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(None, -1), 0);
    assert_eq!(fetch(Some("a"), 2), 0);
    assert_eq!(fetch(Some("a"), 1), GroupError::StaleMemberEpoch.code());
    assert_eq!(fetch(Some("c"), 1), GroupError::UnknownMemberId.code());
    shard.heartbeat(beat("a", -1));
    shard.heartbeat(beat("b", -1));
    assert_eq!(commit(&mut shard, "", -1), 0, "a tool may, when nobody is there");
}

#[test]
fn a_group_is_listed_described_and_deleted() {
    let mut shard = two_members();
    let described = shard.describe();
    assert_eq!((described.group_epoch, described.assignment_epoch, described.members.len()), (2, 2, 2));
    let member = &described.members[0];
    assert_eq!((member.member.as_str(), member.member_epoch, member.is_classic), ("a", 2, false));
    assert_eq!(member.subscribed_topics, ["t"]);
    let assigned = &member.assignment.as_ref().unwrap().topics[0];
    assert_eq!((assigned.topic.as_str(), assigned.partitions.as_slice()), ("t", [0, 1].as_slice()));
    assert_eq!(member.assignment, member.target_assignment);

    let delete = |shard: &mut Shard| match shard.call(Request::DeleteGroup(DeleteGroupRequest { group: GROUP.into() }))
    {
        Response::DeleteGroup(response) => response.error,
        other => panic!("{other:?}"),
    };
    assert_eq!(delete(&mut shard), GroupError::NonEmptyGroup.code());
    let Response::ListGroups(listed) = shard.call(Request::ListGroups(ListGroupsRequest::default())) else { panic!() };
    let [listing] = listed.groups.as_slice() else { panic!("{listed:?}") };
    assert_eq!((listing.r#type.as_str(), listing.state.as_str()), ("consumer", "Stable"));
    shard.heartbeat(beat("a", -1));
    shard.heartbeat(beat("b", -1));
    assert_eq!(delete(&mut shard), 0);
    shard.reload();
    assert_eq!(shard.describe().error, GroupError::GroupIdNotFound.code());
}

#[test]
fn a_reload_goes_on_in_the_middle() {
    let mut shard = Shard::new(&[("t", 4)]);
    shard.heartbeat(join("a", &["t"]));
    shard.heartbeat(join("b", &["t"]));
    shard.heartbeat(beat("a", 1));
    shard.reload();
    assert_eq!(shard.heartbeat(beat("b", 2)).assignment, None, "the first member has them still");
    assert_eq!(shard.heartbeat(owning("a", 1, &[("t", &[0, 1])])).member_epoch, 2);
    shard.reload();
    assert_eq!(set(&shard.heartbeat(beat("b", 2)).assignment), partitions("t", [2, 3]));
    // Its time to revoke begins anew, and ends.
    shard.heartbeat(join("c", &["t"]));
    shard.heartbeat(beat("a", 2));
    shard.reload();
    for _ in 0..3 {
        shard.pass(30 * SECOND);
        shard.heartbeat(beat("b", 2));
        shard.heartbeat(beat("c", 3));
    }
    assert_refused(&mut shard, beat("a", 2), GroupError::UnknownMemberId);
}

#[test]
fn an_empty_group_changes_its_protocol() {
    let mut shard = Shard::new(&[("t", 2)]);
    let classic = |member: &str| JoinGroupRequest {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        protocol_type: "mine".to_owned(),
        protocols: vec![bmq_proto::coordinator::GroupProtocol { name: "p".into(), metadata: Default::default() }],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        ..Default::default()
    };
    shard.send(Request::JoinGroup(classic("")));
    // Its members are no consumers.
    assert_refused(&mut shard, join("a", &["t"]), GroupError::GroupIdNotFound);
    shard.pass(600 * SECOND);
    assert_eq!(commit(&mut shard, "", -1), 0);
    assert_eq!(shard.heartbeat(join("a", &["t"])).error, 0);
    shard.reload();
    let (token, answers) = shard.send(Request::JoinGroup(classic("")));
    let [(answered, Response::JoinGroup(refused))] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((*answered, refused.error), (token, GroupError::InconsistentGroupProtocol.code()));
    shard.heartbeat(beat("a", -1));
    shard.send(Request::JoinGroup(classic("")));
    assert_refused(&mut shard, beat("a", 1), GroupError::GroupIdNotFound);
    // The offsets do not mind.
    let request = FetchOffsetsRequest { group: GROUP.to_owned(), ..Default::default() };
    let Response::FetchOffsets(fetched) = shard.call(Request::FetchOffsets(request)) else { panic!() };
    assert_eq!(fetched.offsets.len(), 1);
}
