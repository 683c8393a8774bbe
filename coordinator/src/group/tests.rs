//! Groups without a log: a test hands in requests and time, keeps the records, and looks at the answers.

mod join;
mod offsets;
mod simulation;
mod stable;
mod static_members;
mod timeouts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::coordinator::{
    GroupClient, GroupHeartbeatRequest, GroupProtocol, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, LeavingMember, MemberAssignment, SyncGroupRequest, SyncGroupResponse,
};
use bmq_proto::internal::GroupRecord;
use bytes::Bytes;
use uuid::Uuid;

use super::Groups;
use super::config::GroupsConfig;
use super::error::GroupError;
use crate::shard::{Context, Effect, Now, ReplyToken, Request, Response, ShardState};
use crate::topics::Topics;

const GROUP: &str = "group";
const DELAY: Duration = Duration::from_secs(3);
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);

/// One shard's groups, with a log that stores everything at once.
struct Shard {
    groups: Groups,
    config: GroupsConfig,
    topics: Topics,
    now: Now,
    records: Vec<GroupRecord>,
    answers: BTreeMap<ReplyToken, Response>,
    asked: u64,
    loads: u128,
}

impl Shard {
    fn new() -> Self {
        Self::with(GroupsConfig::default())
    }

    fn with(config: GroupsConfig) -> Self {
        let mut shard = Self {
            groups: Groups::new(config.clone(), Uuid::nil()),
            config,
            topics: Topics::default(),
            now: Now { monotonic: Monotonic(0), wall: WallMillis(1_000_000) },
            records: Vec::new(),
            answers: BTreeMap::new(),
            asked: 0,
            loads: 0,
        };
        shard.reload();
        shard
    }

    /// Another coordinator takes over.
    fn reload(&mut self) {
        self.loads += 1;
        self.groups = Groups::new(self.config.clone(), Uuid::from_u128(self.loads << 64));
        for record in self.records.clone() {
            self.groups.apply(record).unwrap();
        }
        let effects = self.groups.finish_loading(Context { now: self.now, topics: &self.topics });
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect<GroupRecord>>) {
        for effect in effects {
            match effect {
                Effect::Append(records) => self.records.extend(records),
                Effect::Reply { token, response } => {
                    assert!(self.answers.insert(token, response).is_none(), "{token:?} is answered twice");
                }
            }
        }
        self.groups.check();
    }

    fn ask(&mut self, request: Request) -> ReplyToken {
        self.asked += 1;
        let token = ReplyToken(self.asked);
        let effects = self.groups.handle(request, token, Context { now: self.now, topics: &self.topics });
        self.take(effects);
        token
    }

    /// Lets time pass, and whatever is due on the way happen.
    fn advance(&mut self, duration: Duration) {
        let end = self.now.monotonic + duration;
        while let Some(at) = self.groups.next_deadline().filter(|at| *at <= end) {
            self.set_time(at.max(self.now.monotonic));
            let effects = self.groups.tick(Context { now: self.now, topics: &self.topics });
            self.take(effects);
        }
        self.set_time(end);
    }

    fn set_time(&mut self, at: Monotonic) {
        let passed = at.saturating_since(self.now.monotonic);
        let wall = WallMillis(self.now.wall.0 + i64::try_from(passed.as_millis()).unwrap());
        self.now = Now { monotonic: at, wall };
    }

    fn waits(&self, token: ReplyToken) -> bool {
        !self.answers.contains_key(&token)
    }

    fn joined(&self, token: ReplyToken) -> JoinGroupResponse {
        match &self.answers[&token] {
            Response::JoinGroup(response) => response.clone(),
            other => panic!("not a join: {other:?}"),
        }
    }

    fn synced(&self, token: ReplyToken) -> SyncGroupResponse {
        match &self.answers[&token] {
            Response::SyncGroup(response) => response.clone(),
            other => panic!("not a sync: {other:?}"),
        }
    }

    fn join(&mut self, request: JoinGroupRequest) -> ReplyToken {
        self.ask(Request::JoinGroup(request))
    }

    /// A dynamic member joins as clients do: for an id, and then with it.
    fn join_as_new(&mut self, client: &str) -> (String, ReplyToken) {
        let first = self.join(join(client));
        let answer = self.joined(first);
        assert_eq!(answer.error, GroupError::MemberIdRequired.code());
        let token = self.join(JoinGroupRequest { member: answer.member.clone(), ..join(client) });
        (answer.member, token)
    }

    fn sync(&mut self, joined: &JoinGroupResponse) -> ReplyToken {
        self.ask(Request::SyncGroup(sync(joined)))
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> i32 {
        let request = GroupHeartbeatRequest { group: GROUP.into(), generation, member: member.into(), instance: None };
        let token = self.ask(Request::GroupHeartbeat(request));
        match &self.answers[&token] {
            Response::GroupHeartbeat(response) => response.error,
            other => panic!("not a heartbeat: {other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> LeaveGroupResponse {
        let leaving = |(member, instance): &(&str, Option<&str>)| LeavingMember {
            member: (*member).into(),
            instance: instance.map(Into::into),
            reason: String::new(),
        };
        let request = LeaveGroupRequest { group: GROUP.into(), members: members.iter().map(leaving).collect() };
        let token = self.ask(Request::LeaveGroup(request));
        match &self.answers[&token] {
            Response::LeaveGroup(response) => response.clone(),
            other => panic!("not a leave: {other:?}"),
        }
    }

    /// A stable group of these clients; their member ids, the leader's first.
    fn stable(&mut self, clients: &[&str]) -> Vec<String> {
        let joining: Vec<_> = clients.iter().map(|client| self.join_as_new(client)).collect();
        self.advance(DELAY * 2);
        let joined: Vec<_> = joining.iter().map(|(_, token)| self.joined(*token)).collect();
        let syncs: Vec<_> = joined.iter().map(|joined| self.sync(joined)).collect();
        for token in syncs {
            assert_eq!(self.synced(token).error, 0);
        }
        let leader = joined[0].leader.clone();
        let (mut first, others): (Vec<_>, Vec<_>) = joining.into_iter().map(|(id, _)| id).partition(|id| *id == leader);
        first.extend(others);
        first
    }

    fn state(&self) -> String {
        self.groups.groups[GROUP].membership.listing(GROUP).state
    }
}

/// A first join of a dynamic member.
fn join(client: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group: GROUP.into(),
        client: Some(GroupClient { id: client.into(), host: "host".into() }),
        member: String::new(),
        instance: None,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &["t"]), protocol("sticky", &["t"])],
        session_timeout_ms: millis(SESSION),
        rebalance_timeout_ms: millis(REBALANCE),
        require_known_member: true,
        supports_skipping_assignment: true,
        reason: String::new(),
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap()
}

/// A consumer's metadata for these topics.
fn protocol(name: &str, topics: &[&str]) -> GroupProtocol {
    let mut metadata = vec![0, 3];
    metadata.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        metadata.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend([0xff; 4]);
    GroupProtocol { name: name.into(), metadata: metadata.into() }
}

/// What a member sends after this answer: the leader gives each member its own id.
fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    let assign = |member: &String| MemberAssignment {
        member: member.clone(),
        assignment: Bytes::from(format!("{member} in {}", joined.generation)),
    };
    let members: BTreeSet<String> = joined.members.iter().map(|member| member.member.clone()).collect();
    SyncGroupRequest {
        group: GROUP.into(),
        generation: joined.generation,
        member: joined.member.clone(),
        instance: None,
        protocol_type: Some(joined.protocol_type.clone()),
        protocol: Some(joined.protocol.clone()),
        assignments: members.iter().map(assign).collect(),
    }
}
