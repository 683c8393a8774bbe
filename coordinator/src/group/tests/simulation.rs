//! Members driven at random against a coordinator that may die at any point, with a log that may lose what was not
//! stored yet, and a history that must make sense to an observer of the answers.

mod client;
mod history;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::coordinator::{CommitOffsetsRequest, CommittedOffset, FetchOffsetsRequest};
use bmq_proto::internal::GroupRecord;
use proptest::prelude::*;
use uuid::Uuid;

use super::GROUP;
use crate::group::Groups;
use crate::group::config::GroupsConfig;
use crate::shard::{Context, Effect, Now, ReplyToken, Request, Response, ShardState};
use crate::topics::Topics;
use client::Client;
use history::History;

const CLIENTS: usize = 5;

/// What may happen next.
#[derive(Debug, Clone)]
enum Event {
    /// The client does what a client does next: joins, syncs, or sends a heartbeat.
    Act(usize),
    /// It subscribes to something else, or is a leader that saw new partitions.
    Rejoin(usize, bool),
    Leave(usize),
    /// Its process dies, and another takes its place.
    Restart(usize),
    Commit(usize),
    Fetch,
    /// The log stores that many of the oldest things on their way.
    Store(usize),
    Pass(Duration),
    /// The coordinator dies; what is on its way is lost.
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let client = 0..CLIENTS;
    prop_oneof![
        12 => client.clone().prop_map(Event::Act),
        2 => (client.clone(), any::<bool>()).prop_map(|(client, changed)| Event::Rejoin(client, changed)),
        1 => client.clone().prop_map(Event::Leave),
        1 => client.clone().prop_map(Event::Restart),
        3 => client.prop_map(Event::Commit),
        2 => Just(Event::Fetch),
        8 => (1_usize..6).prop_map(Event::Store),
        5 => (1_u64..4000).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
        1 => Just(Event::Crash),
    ]
}

/// What the coordinator wants done, in order, and has not been done.
type OnTheWay = VecDeque<Effect<GroupRecord>>;

struct World {
    config: GroupsConfig,
    groups: Groups,
    topics: Topics,
    now: Now,
    stored: Vec<GroupRecord>,
    on_the_way: OnTheWay,
    clients: Vec<Client>,
    /// Who is to be answered; none for those whose process died.
    open: BTreeMap<ReplyToken, Option<usize>>,
    asked: u64,
    loads: u128,
    history: History,
}

impl World {
    fn new() -> Self {
        // The first two are static members; the last cannot skip an assignment, nor be given an id first.
        let clients = (0..CLIENTS).map(Client::new).collect();
        Self {
            config: GroupsConfig { max_members: CLIENTS, ..GroupsConfig::default() },
            groups: Groups::new(GroupsConfig::default(), Uuid::nil()),
            topics: Topics::default(),
            now: Now { monotonic: Monotonic(0), wall: WallMillis(1_000_000) },
            stored: Vec::new(),
            on_the_way: OnTheWay::new(),
            clients,
            open: BTreeMap::new(),
            asked: 0,
            loads: 0,
            history: History::default(),
        }
    }

    fn load(&mut self) {
        self.loads += 1;
        self.groups = self.groups_of(&self.stored.clone());
        // A snapshot says the same as the records that it stands for.
        let snapshot = self.groups.snapshot();
        assert_eq!(self.groups_of(&snapshot).snapshot(), snapshot);
        let effects = self.groups.finish_loading(Context { now: self.now, topics: &self.topics });
        self.take(effects);
    }

    fn groups_of(&self, records: &[GroupRecord]) -> Groups {
        let mut groups = Groups::new(self.config.clone(), Uuid::from_u128(self.loads << 64));
        records.iter().for_each(|record| groups.apply(record.clone()).unwrap());
        groups
    }

    fn take(&mut self, effects: Vec<Effect<GroupRecord>>) {
        self.groups.check();
        self.on_the_way.extend(effects);
    }

    fn ask(&mut self, client: Option<usize>, request: Request) {
        self.asked += 1;
        let token = ReplyToken(self.asked);
        self.open.insert(token, client);
        let effects = self.groups.handle(request, token, Context { now: self.now, topics: &self.topics });
        self.take(effects);
        if let Some(client) = client {
            self.clients[client].waits_for(token);
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Act(client) => {
                if let Some(request) = self.clients[client].next_request(self.asked) {
                    self.ask(Some(client), request);
                }
            }
            Event::Rejoin(client, changed) => self.clients[client].rejoin(changed),
            Event::Leave(client) => {
                if let Some(request) = self.clients[client].leave() {
                    self.forget(client);
                    self.ask(None, request);
                }
            }
            Event::Restart(client) => {
                self.forget(client);
                self.clients[client].restart();
            }
            Event::Commit(client) => self.commit(client),
            Event::Fetch => {
                let request = FetchOffsetsRequest { group: GROUP.into(), member_epoch: -1, ..Default::default() };
                self.ask(None, Request::FetchOffsets(request));
            }
            Event::Store(count) => self.store(count),
            Event::Pass(duration) => self.pass(duration),
            Event::Crash => self.crash(),
        }
    }

    /// Nobody listens any more for what the client has asked.
    fn forget(&mut self, client: usize) {
        self.open.values_mut().filter(|asker| **asker == Some(client)).for_each(|asker| *asker = None);
    }

    fn commit(&mut self, client: usize) {
        let Some((member, generation)) = self.clients[client].membership() else { return };
        let offset = self.history.next_commit(ReplyToken(self.asked + 1));
        let request = CommitOffsetsRequest {
            group: GROUP.into(),
            member,
            generation_or_member_epoch: generation,
            offsets: vec![CommittedOffset { topic: "t".into(), offset, ..Default::default() }],
            ..Default::default()
        };
        self.ask(None, Request::CommitOffsets(request));
    }

    fn store(&mut self, count: usize) {
        for _ in 0..count {
            match self.on_the_way.pop_front() {
                None => return,
                Some(Effect::Append(records)) => self.stored.extend(records),
                Some(Effect::Reply { token, response }) => self.deliver(token, &response),
            }
        }
    }

    fn deliver(&mut self, token: ReplyToken, response: &Response) {
        let asker = self.open.remove(&token).expect("each request is answered once");
        let name = asker.map(|client| self.clients[client].name());
        self.history.observe(self.loads, token, response, name);
        if let Some(client) = asker {
            self.clients[client].hear(token, response);
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.monotonic + duration;
        while let Some(at) = self.groups.next_deadline().filter(|at| *at <= end) {
            self.now.monotonic = at.max(self.now.monotonic);
            let effects = self.groups.tick(Context { now: self.now, topics: &self.topics });
            self.take(effects);
        }
        self.now.monotonic = end;
    }

    /// The driver tells those who wait to look for the new coordinator.
    fn crash(&mut self) {
        self.on_the_way.clear();
        for (token, asker) in std::mem::take(&mut self.open) {
            if let Some(client) = asker {
                self.clients[client].retry(token);
            }
        }
        self.load();
    }

    /// Nothing goes wrong any more: all clients become members of one generation.
    fn settle(&mut self) {
        for _ in 0..400 {
            for client in 0..CLIENTS {
                self.happen(&Event::Act(client));
            }
            self.store(usize::MAX);
            self.pass(Duration::from_millis(500));
        }
        let generations: BTreeSet<Option<i32>> =
            self.clients.iter().map(|client| client.membership().map(|(_, generation)| generation)).collect();
        assert!(generations.len() == 1 && !generations.contains(&None), "the group does not settle: {generations:?}");
    }

    /// All clients are gone, and everybody who waits is answered.
    fn fall_silent(&mut self) {
        self.pass(Duration::from_secs(3600));
        self.store(usize::MAX);
        assert!(self.open.is_empty(), "these are not answered: {:?}", self.open.keys());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_members_are_told_makes_sense(events in prop::collection::vec(event(), 1..300), settles: bool) {
        let mut world = World::new();
        world.load();
        events.iter().for_each(|event| world.happen(event));
        if settles {
            world.settle();
        }
        world.fall_silent();
    }
}
