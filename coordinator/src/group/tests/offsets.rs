//! Commits, reads, deletions and expiry of offsets.

use bmq_proto::TopicId;
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, DeleteOffsetsRequest, DeleteOffsetsResponse,
    FetchOffsetsRequest, TopicPartitionName, TopicPartitionNames,
};

use super::*;

const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
const SWEEP: Duration = Duration::from_secs(600);

fn at(topic: &str, partition: u32, offset: i64) -> CommittedOffset {
    CommittedOffset {
        topic: topic.into(),
        partition,
        offset,
        leader_epoch: 3,
        metadata: "as sent".into(),
        topic_id: vec![7; 16].into(),
    }
}

/// By a simple consumer.
fn commit(offsets: Vec<CommittedOffset>) -> CommitOffsetsRequest {
    CommitOffsetsRequest { group: GROUP.into(), generation_or_member_epoch: -1, offsets, ..Default::default() }
}

fn name(topic: &str, partition: u32) -> TopicPartitionName {
    TopicPartitionName { topic: topic.into(), partition, topic_id: Bytes::new() }
}

impl Shard {
    fn commit(&mut self, request: CommitOffsetsRequest) -> CommitOffsetsResponse {
        let token = self.ask(Request::CommitOffsets(request));
        match &self.answers[&token] {
            Response::CommitOffsets(response) => response.clone(),
            other => panic!("not a commit: {other:?}"),
        }
    }

    fn fetch(&mut self, partitions: Option<Vec<TopicPartitionName>>) -> Vec<CommittedOffset> {
        let request = FetchOffsetsRequest {
            group: GROUP.into(),
            member: None,
            member_epoch: -1,
            partitions: partitions.map(|partitions| TopicPartitionNames { partitions }),
        };
        let token = self.ask(Request::FetchOffsets(request));
        match &self.answers[&token] {
            Response::FetchOffsets(response) => response.offsets.clone(),
            other => panic!("not a fetch: {other:?}"),
        }
    }

    fn delete(&mut self, partitions: Vec<TopicPartitionName>) -> DeleteOffsetsResponse {
        let token = self.ask(Request::DeleteOffsets(DeleteOffsetsRequest { group: GROUP.into(), partitions }));
        match &self.answers[&token] {
            Response::DeleteOffsets(response) => response.clone(),
            other => panic!("not a deletion: {other:?}"),
        }
    }
}

#[test]
fn what_a_simple_consumer_commits_is_read_as_it_was_sent() {
    let mut shard = Shard::new();
    assert_eq!(shard.fetch(None), []);
    assert_eq!(shard.commit(commit(vec![at("t", 0, 5), at("u", 1, 6)])), CommitOffsetsResponse::default());
    shard.commit(commit(vec![at("t", 0, 4)]));
    for _ in 0..2 {
        assert_eq!(shard.fetch(None), [at("t", 0, 4), at("u", 1, 6)]);
        assert_eq!(shard.fetch(Some(vec![name("u", 1), name("u", 0), name("v", 0)])), [at("u", 1, 6)]);
        shard.reload();
    }
}

#[test]
fn offsets_of_an_older_topic_of_the_same_name_are_not_shown() {
    let mut shard = Shard::new();
    shard.commit(commit(vec![at("t", 0, 5)]));
    let with_id = |id: u8| TopicPartitionName { topic_id: vec![id; 16].into(), ..name("t", 0) };
    assert_eq!(shard.fetch(Some(vec![with_id(8)])), []);
    assert_eq!(shard.fetch(Some(vec![with_id(7)])), [at("t", 0, 5)]);
}

#[test]
fn a_member_commits_under_its_generation() {
    let mut shard = Shard::new();
    let members = shard.stable(&["a"]);
    let by = |member: &str, generation| CommitOffsetsRequest {
        member: member.into(),
        generation_or_member_epoch: generation,
        ..commit(vec![at("t", 0, 5)])
    };
    for (request, error) in [
        (by("", -1), GroupError::UnknownMemberId.code()),
        (by("stranger", 1), GroupError::UnknownMemberId.code()),
        (by(&members[0], 0), GroupError::IllegalGeneration.code()),
        (by(&members[0], -1), GroupError::IllegalGeneration.code()),
        (CommitOffsetsRequest { instance: Some("i".into()), ..by(&members[0], 1) }, GroupError::UnknownMemberId.code()),
        (CommitOffsetsRequest { group: "other".into(), ..by(&members[0], 1) }, GroupError::GroupIdNotFound.code()),
        (by(&members[0], 1), 0),
    ] {
        assert_eq!(shard.commit(request).error, error);
    }
    shard.advance(SESSION / 2);
    shard.commit(by(&members[0], 1));
    shard.advance(SESSION - Duration::from_millis(1));
    assert_eq!(shard.heartbeat(&members[0], 1), 0, "a commit is a sign of life");

    shard.join(JoinGroupRequest { member: members[0].clone(), ..join("a") });
    assert_eq!(shard.commit(by(&members[0], 2)).error, GroupError::RebalanceInProgress.code());
    let forced = CommitOffsetsRequest { forced: true, ..commit(vec![at("t", 0, 9)]) };
    assert_eq!(shard.commit(forced).error, 0);
    assert_eq!(shard.fetch(None), [at("t", 0, 9)]);
}

#[test]
fn metadata_that_is_too_long_fails_its_own_partition() {
    let mut shard = Shard::new();
    let long = CommittedOffset { metadata: "x".repeat(4097), ..at("t", 0, 1) };
    let longest = CommittedOffset { metadata: "x".repeat(4096), ..at("t", 1, 1) };
    let response = shard.commit(commit(vec![long, longest.clone()]));
    assert_eq!(response.error, 0);
    assert_eq!(response.partitions.len(), 1);
    assert_eq!(
        (response.partitions[0].partition, response.partitions[0].error),
        (0, GroupError::OffsetMetadataTooLarge.code())
    );
    assert_eq!(shard.fetch(None), [longest]);
}

#[test]
fn a_commit_is_bounded() {
    let config = GroupsConfig { max_append_bytes: 2000, max_offsets: 20, ..GroupsConfig::default() };
    let mut shard = Shard::with(config);
    let many = |count| (0..count).map(|partition| at("t", partition, 1)).collect();
    assert_eq!(shard.commit(commit(many(40))).error, GroupError::InvalidCommitOffsetSize.code());
    assert_eq!(shard.commit(commit(many(20))).error, 0);
    assert_eq!(shard.commit(commit(vec![at("u", 0, 1)])).error, GroupError::PolicyViolation.code());
    assert_eq!(shard.commit(commit(many(20))).error, 0, "known partitions take no room");
    let bad = CommittedOffset { topic_id: vec![1; 3].into(), ..at("t", 0, 1) };
    assert_eq!(shard.commit(commit(vec![bad])).error, GroupError::InvalidRequest.code());
}

#[test]
fn a_snapshot_has_many_offsets_in_several_records() {
    let mut shard = Shard::new();
    let long = |partition| CommittedOffset { metadata: "x".repeat(100), ..at("t", partition, 1) };
    shard.commit(commit((0..1000).map(long).collect()));
    let before = shard.fetch(None);
    shard.records = shard.groups.snapshot();
    assert!((3..10).contains(&shard.records.len()));
    shard.reload();
    assert_eq!(shard.fetch(None), before);
}

#[test]
fn offsets_are_deleted_unless_members_subscribe_to_the_topic() {
    let mut shard = Shard::new();
    assert_eq!(shard.delete(vec![name("t", 0)]).error, GroupError::GroupIdNotFound.code());
    shard.commit(commit(vec![at("t", 0, 1), at("u", 0, 1)]));
    shard.stable(&["a"]);
    let response = shard.delete(vec![name("t", 0), name("u", 0), name("u", 9)]);
    assert_eq!((response.error, response.partitions.len()), (0, 1));
    assert_eq!(response.partitions[0].error, GroupError::GroupSubscribedToTopic.code());
    shard.reload();
    assert_eq!(shard.fetch(None), [at("t", 0, 1)]);
}

#[test]
fn offsets_of_other_kinds_of_members_are_not_deleted_while_they_are_there() {
    let mut shard = Shard::new();
    shard.commit(commit(vec![at("t", 0, 1)]));
    shard.join(JoinGroupRequest { protocol_type: "other".into(), require_known_member: false, ..join("a") });
    shard.advance(DELAY);
    assert_eq!(shard.delete(vec![name("t", 0)]).error, GroupError::NonEmptyGroup.code());
}

#[test]
fn a_simple_consumers_offsets_expire_after_their_commit_and_the_group_with_them() {
    let mut shard = Shard::new();
    shard.commit(commit(vec![at("t", 0, 1)]));
    shard.advance(RETENTION / 2);
    shard.commit(commit(vec![at("t", 1, 1)]));
    shard.advance(RETENTION / 2 + SWEEP);
    assert_eq!(shard.fetch(None), [at("t", 1, 1)]);
    shard.advance(RETENTION / 2 + SWEEP);
    shard.reload();
    assert!(shard.groups.groups.is_empty());
}

#[test]
fn a_groups_offsets_expire_when_it_has_been_empty_for_long() {
    let mut shard = Shard::with(GroupsConfig { offsets_retention: HOUR, ..GroupsConfig::default() });
    let members = shard.stable(&["a"]);
    let request = CommitOffsetsRequest {
        member: members[0].clone(),
        generation_or_member_epoch: 1,
        ..commit(vec![at("t", 0, 1), at("u", 0, 1)])
    };
    shard.commit(request);
    let end = shard.now.monotonic + HOUR + SWEEP;
    while shard.now.monotonic < end {
        assert_eq!(shard.heartbeat(&members[0], 1), 0);
        shard.advance(SESSION / 2);
    }
    assert_eq!(shard.fetch(None), [at("t", 0, 1)], "nobody subscribes to u");
    shard.leave(&[(&members[0], None)]);
    shard.reload();
    shard.advance(HOUR - SWEEP);
    assert_eq!(shard.fetch(None), [at("t", 0, 1)]);
    shard.advance(SWEEP * 2);
    assert_eq!(shard.fetch(None), []);
    assert!(shard.groups.groups.is_empty());
}

#[test]
fn an_old_client_may_say_how_long_its_offsets_are_kept() {
    let mut shard = Shard::new();
    shard.commit(CommitOffsetsRequest { retention_ms: Some(1000), ..commit(vec![at("t", 0, 1)]) });
    shard.commit(CommitOffsetsRequest { retention_ms: Some(u64::MAX), ..commit(vec![at("t", 1, 1)]) });
    shard.reload();
    shard.advance(SWEEP);
    assert_eq!(shard.fetch(None), [at("t", 1, 1)]);
    shard.advance(RETENTION * 2);
    assert_eq!(shard.fetch(None), [at("t", 1, 1)]);
}

#[test]
fn offsets_go_with_their_topic() {
    let mut shard = Shard::new();
    let other = CommittedOffset { topic_id: Bytes::new(), ..at("u", 0, 2) };
    shard.commit(commit(vec![at("t", 0, 1), other.clone()]));
    let gone = TopicId([7; 16]);
    assert_eq!(shard.groups.topics_in_use(), BTreeSet::from([gone]));
    let effects =
        shard.groups.topics_changed(&BTreeSet::from([gone]), Context { now: shard.now, topics: &shard.topics });
    shard.take(effects);
    shard.reload();
    assert_eq!(shard.fetch(None), [other]);
}

#[test]
fn a_sweep_with_much_to_do_does_it_in_parts() {
    let mut shard = Shard::new();
    for group in 0..1500 {
        let request = CommitOffsetsRequest { group: format!("{group}"), ..commit(vec![at("t", 0, 1)]) };
        assert_eq!(shard.commit(request).error, 0);
    }
    shard.advance(RETENTION - SWEEP);
    let before = shard.records.len();
    while shard.records.len() == before {
        let next = shard.groups.next_deadline().unwrap().saturating_since(shard.now.monotonic);
        shard.advance(next);
    }
    assert!(!shard.groups.groups.is_empty());
    shard.advance(Duration::from_secs(1));
    assert!(shard.groups.groups.is_empty());
}
