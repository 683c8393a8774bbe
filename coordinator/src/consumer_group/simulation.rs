//! A group under everything that can happen to it at random, with members that behave as real ones do.
//!
//! Members join, are slow to revoke, lose requests and answers, stop for a while, die, leave, come back under their
//! instance id, and change what they want; topics come, grow and go; the coordinator is replaced between requests and in
//! the middle of one, with any part of its appends stored. After each step no partition is owned by two members that
//! live and are not fenced, and no member was told an older epoch. Once all are quiet, everybody has its target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::rng::Random;
use bmq_proto::coordinator::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::harness::*;
use super::records::{list_of, partitions_of};
use crate::assignor::Partitions;
use crate::group::config::GroupsConfig;
use crate::group::error::GroupError;
use crate::shard::Request;

const STEPS: usize = 600;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
/// Longer than any session and any time to revoke.
const PATIENCE: Duration = Duration::from_secs(50);

/// A consumer process.
#[derive(Debug, Clone)]
struct Member {
    id: String,
    instance: Option<String>,
    assignor: Option<&'static str>,
    topics: Vec<&'static str>,
    regex: Option<&'static str>,
    epoch: i32,
    /// What it consumes.
    owned: Partitions,
    /// What it was last told to have.
    told: Partitions,
    /// The last heartbeat went wrong, so the next one says everything.
    must_tell_all: bool,
    /// What the coordinator knows that it owns.
    reported: Partitions,
}

impl Member {
    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let full = self.epoch == 0 || self.must_tell_all;
        let owned = full || self.owned != self.reported;
        ConsumerGroupHeartbeatRequest {
            instance: self.instance.clone(),
            rebalance_timeout_ms: full.then_some(20_000),
            subscribed_topics: full.then(|| names(&self.topics)),
            subscribed_regex: full.then(|| self.regex.unwrap_or_default().to_owned()),
            server_assignor: self.assignor.filter(|_| full).map(str::to_owned),
            owned: owned.then(|| list_of(&self.owned)),
            ..beat(&self.id, self.epoch)
        }
    }

    fn take(&mut self, response: &ConsumerGroupHeartbeatResponse) {
        let fenced = [GroupError::FencedMemberEpoch, GroupError::UnknownMemberId, GroupError::GroupIdNotFound];
        if fenced.iter().any(|error| response.error == error.code()) {
            return self.start_over();
        }
        assert_eq!(response.error, 0, "{self:?} is refused: {response:?}");
        assert!(response.member_epoch >= self.epoch, "{self:?} is told an older epoch: {response:?}");
        self.epoch = response.member_epoch;
        self.must_tell_all = false;
        self.reported.clone_from(&self.owned);
        if response.assignment.is_some() {
            self.told = set(&response.assignment);
        }
    }

    /// Gives up everything at once, and joins anew.
    fn start_over(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.told.clear();
        self.reported.clear();
    }

    /// Gives up what it shall no longer have, and takes what it shall have only then.
    fn reconcile(&mut self) {
        if self.owned.is_subset(&self.told) {
            self.owned.clone_from(&self.told);
        } else {
            self.owned = self.owned.intersection(&self.told).copied().collect();
        }
    }
}

struct Simulation {
    random: Random,
    shard: Shard,
    sizes: BTreeMap<&'static str, u32>,
    members: Vec<Member>,
    /// Static members that left for now or died.
    away: Vec<Member>,
    named: u32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let random = Random::from_seed(seed);
        let mut config = GroupsConfig::default();
        if random.chance(1, 2) {
            // Most steps take several appends.
            config.max_append_bytes = 400;
        }
        let sizes = BTreeMap::from([("a", 5), ("b", 3)]);
        let shard = Shard::with_config(config, &[("a", 5), ("b", 3)]);
        Self { random, shard, sizes, members: Vec::new(), away: Vec::new(), named: 0 }
    }

    fn pick(&self, count: usize) -> usize {
        usize::try_from(self.random.below(count as u64)).expect("it is below a usize")
    }

    fn subscribe(&self, member: &mut Member) {
        member.topics = TOPICS.into_iter().filter(|_| self.random.chance(2, 3)).collect();
        member.regex = [None, None, Some("[ab]"), Some(".")][self.pick(4)];
    }

    fn join(&mut self) {
        self.named += 1;
        let instance = self.random.chance(1, 3).then(|| format!("instance-{}", self.named));
        let mut member = Member {
            id: format!("member-{}", self.named),
            instance,
            assignor: [None, None, Some("range"), Some("uniform")][self.pick(4)],
            topics: Vec::new(),
            regex: None,
            epoch: 0,
            owned: Partitions::new(),
            told: Partitions::new(),
            must_tell_all: false,
            reported: Partitions::new(),
        };
        self.subscribe(&mut member);
        self.members.push(member);
    }

    /// A static member starts again under another member id.
    fn return_from_away(&mut self) {
        if self.away.is_empty() {
            return;
        }
        let mut member = self.away.swap_remove(self.pick(self.away.len()));
        self.named += 1;
        member.id = format!("member-{}", self.named);
        member.start_over();
        self.members.push(member);
    }

    fn heartbeat(&mut self, index: usize) {
        let request = self.members[index].request();
        match self.random.below(20) {
            // The request is lost.
            0 => self.members[index].must_tell_all = true,
            // The answer is.
            1 => {
                self.members[index].must_tell_all = true;
                self.shard.heartbeat(request);
            }
            // The coordinator is, in the middle of it.
            2 => {
                self.members[index].must_tell_all = true;
                let crash = Crash { appends: self.pick(4) };
                self.shard.crash_in(Request::ConsumerGroupHeartbeat(request), crash);
            }
            _ => self.deliver(index, request),
        }
    }

    fn deliver(&mut self, index: usize, request: ConsumerGroupHeartbeatRequest) {
        let response = self.shard.heartbeat(request);
        if response.error == GroupError::UnreleasedInstanceId.code() {
            // Its predecessor died without a word: it tries again later.
            return;
        }
        self.members[index].take(&response);
    }

    /// A member goes, with a word or without.
    fn depart(&mut self, index: usize) {
        let mut member = self.members.swap_remove(index);
        let epoch = match self.random.below(3) {
            0 => None,
            1 => Some(-1),
            _ => member.instance.as_ref().map(|_| -2),
        };
        if let Some(epoch) = epoch {
            let request =
                ConsumerGroupHeartbeatRequest { instance: member.instance.clone(), ..beat(&member.id, epoch) };
            self.shard.heartbeat(request);
        }
        if member.instance.is_some() {
            member.start_over();
            self.away.push(member);
        }
    }

    fn change_topics(&mut self) {
        let name = TOPICS[self.pick(TOPICS.len())];
        match self.random.below(3) {
            0 => drop(self.sizes.remove(name)),
            1 => *self.sizes.entry(name).or_default() += 2,
            _ => drop(self.sizes.entry(name).or_insert(1)),
        }
        let topics: Vec<(&str, u32)> = self.sizes.iter().map(|(name, size)| (*name, *size)).collect();
        self.shard.set_topics(&topics);
    }

    fn step(&mut self) {
        let member = (!self.members.is_empty()).then(|| self.pick(self.members.len()));
        match (self.random.below(100), member) {
            (0..5, _) if self.members.len() < 8 => self.join(),
            (5..8, _) => self.return_from_away(),
            (8..11, Some(member)) => self.depart(member),
            (11..14, Some(member)) => {
                let mut changed = self.members[member].clone();
                self.subscribe(&mut changed);
                changed.must_tell_all = true;
                self.members[member] = changed;
            }
            (14..17, _) => self.change_topics(),
            (17..19, _) => self.shard.reload(),
            (19..24, _) => drop(self.shard.pass(Duration::from_secs(self.random.below(8)))),
            (24..40, Some(member)) => self.members[member].reconcile(),
            (_, Some(member)) => self.heartbeat(member),
            (_, None) => self.join(),
        }
    }

    /// The safety rule. A member that the coordinator has fenced does not count: it will learn of it.
    fn check_owners(&mut self) {
        let known: BTreeSet<String> = self.shard.describe().members.into_iter().map(|member| member.member).collect();
        let mut owners = BTreeMap::new();
        for member in self.members.iter().filter(|member| known.contains(&member.id)) {
            for partition in &member.owned {
                let other = owners.insert(*partition, member.id.clone());
                assert_eq!(other, None, "{partition} is owned twice, also by {}", member.id);
            }
        }
    }

    /// Everybody speaks, and does at once what it is told, until nothing changes any more.
    fn settle(&mut self) {
        self.away.clear();
        let quiet_from = self.shard.now;
        for _ in 0..30 {
            // Some are fenced for the dead's sake: an instance id may be free only after its session.
            drop(self.shard.pass(Duration::from_secs(2)));
            for index in 0..self.members.len() {
                let request = self.members[index].request();
                self.deliver(index, request);
                self.members[index].reconcile();
                self.check_owners();
            }
        }
        assert!(self.shard.now.saturating_since(quiet_from) > PATIENCE);
        let described = self.shard.describe();
        if self.members.is_empty() {
            assert!(described.members.is_empty());
            return;
        }
        assert_eq!(described.state, "Stable", "{described:?}");
        assert_eq!(described.members.len(), self.members.len());
        for member in &described.members {
            let own = self.members.iter().find(|own| own.id == member.member).expect("all live");
            let target = partitions_of(member.target_assignment.as_ref()).unwrap();
            assert_eq!(own.owned, target, "{own:?}");
            assert_eq!(own.epoch, described.group_epoch);
        }
        self.check_complete();
    }

    /// All partitions of topics that somebody wants are owned.
    fn check_complete(&self) {
        let mut wanted = Partitions::new();
        for (name, size) in &self.sizes {
            let by_regex = |regex: Option<&str>| match regex {
                Some("[ab]") => ["a", "b"].contains(name),
                Some(_) => true,
                None => false,
            };
            if self.members.iter().any(|member| member.topics.contains(name) || by_regex(member.regex)) {
                wanted.extend(partitions(name, 0..*size));
            }
        }
        let owned: Partitions = self.members.iter().flat_map(|member| member.owned.iter().copied()).collect();
        assert_eq!(owned, wanted);
    }
}

#[test]
fn no_partition_has_two_owners_and_all_comes_to_rest() {
    for seed in 0..60 {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.step();
            simulation.check_owners();
        }
        simulation.settle();
    }
}

#[test]
fn the_same_seed_does_the_same() {
    let run = |seed| {
        let mut simulation = Simulation::new(seed);
        (0..STEPS).for_each(|_| simulation.step());
        (format!("{:?}", simulation.members), simulation.shard.describe())
    };
    assert_eq!(run(7), run(7));
}
