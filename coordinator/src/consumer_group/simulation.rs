//! A group under everything that can happen to it at random, with members that behave as real ones do.
//!
//! Members join, are slow to revoke, lose requests and answers, stop for a while, die, leave, come back under their
//! instance id, and change what they want; topics come, grow and go; the coordinator is replaced between requests and
//! in the middle of one, with any part of its appends stored. After each step no partition is owned by two members that
//! live and are not fenced, and no member was told an older epoch. Once all are quiet, everybody has its target.

mod classic;
mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmq_common::rng::Random;
use bmq_proto::coordinator::ConsumerGroupHeartbeatRequest;
use bmq_proto::{PartitionId, TopicId, TopicPartition};

use super::harness::*;
use super::records::partitions_of;
use crate::assignor::Partitions;
use crate::group::config::GroupsConfig;
use crate::group::error::GroupError;
use crate::shard::Request;
use classic::ClassicMember;
use member::Member;

const STEPS: usize = 600;
const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
/// Longer than any session and any time to revoke.
const PATIENCE: Duration = Duration::from_secs(50);

struct Simulation {
    random: Random,
    shard: Shard,
    topics: BTreeMap<&'static str, (TopicId, u32)>,
    members: Vec<Member>,
    /// Speak the classic protocol; only in a group with a member of the new one that stays.
    classic: Vec<ClassicMember>,
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
        let topics = BTreeMap::from([("a", (topic_id("a"), 5)), ("b", (topic_id("b"), 3))]);
        let shard = Shard::with_config(config, &[("a", 5), ("b", 3)]);
        Self { random, shard, topics, members: Vec::new(), classic: Vec::new(), away: Vec::new(), named: 0 }
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
            0 => self.members[index].miss_answer(),
            // The answer is.
            1 => {
                self.members[index].miss_answer();
                self.shard.heartbeat(request);
            }
            // The coordinator is, in the middle of it.
            2 => {
                self.members[index].miss_answer();
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

    /// A classic member says the next thing it has to say, or what is wrong goes wrong.
    fn speak_classic(&mut self, index: usize) {
        let request = self.classic[index].request(&self.shard.topics);
        match self.random.below(20) {
            0 => self.classic[index].miss_answer(),
            1 => {
                self.shard.call(request);
                self.classic[index].miss_answer();
            }
            2 => {
                let crash = Crash { appends: self.pick(4) };
                self.shard.crash_in(request, crash);
                self.classic[index].miss_answer();
            }
            _ => {
                let response = self.shard.call(request);
                self.classic[index].take(response, &self.shard.topics);
            }
        }
    }

    /// One that joins, dies, revokes, or speaks.
    fn step_classic(&mut self) {
        let topics = TOPICS.into_iter().filter(|_| self.random.chance(2, 3)).collect();
        let eager = self.random.chance(1, 2);
        let Some(index) = (!self.classic.is_empty()).then(|| self.pick(self.classic.len())) else {
            return self.classic.push(ClassicMember::new(topics, eager));
        };
        match self.random.below(20) {
            0 if self.classic.len() < 4 => self.classic.push(ClassicMember::new(topics, eager)),
            1 => drop(self.classic.swap_remove(index)),
            2..5 => self.classic[index].reconcile(),
            _ => self.speak_classic(index),
        }
    }

    /// A topic comes, grows, or goes; one that comes again has another id.
    fn change_topics(&mut self) {
        self.named += 1;
        let name = TOPICS[self.pick(TOPICS.len())];
        let fresh = topic_id(&format!("{name}-{}", self.named));
        match self.random.below(3) {
            0 => drop(self.topics.remove(name)),
            1 => self.topics.entry(name).or_insert((fresh, 0)).1 += 2,
            _ => drop(self.topics.entry(name).or_insert((fresh, 1))),
        }
        let topics = self.topics.iter().map(|(name, (id, size))| (*id, *name, *size));
        self.shard.replace_topics(topics_with_ids(topics));
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
        let members = self.members.iter().map(|member| (&member.id, &member.owned));
        let classic = self.classic.iter().map(|member| (&member.id, &member.owned));
        for (id, owned) in members.chain(classic).filter(|(id, _)| known.contains(*id)) {
            for partition in owned {
                let other = owners.insert(*partition, id.clone());
                assert_eq!(other, None, "{partition} is owned twice, also by {id}");
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
            for index in 0..self.classic.len() {
                let request = self.classic[index].request(&self.shard.topics);
                let response = self.shard.call(request);
                self.classic[index].take(response, &self.shard.topics);
                self.classic[index].reconcile();
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
        assert_eq!(described.members.len(), self.members.len() + self.classic.len());
        let members = self.members.iter().map(|member| (&member.id, &member.owned));
        let owned: BTreeMap<&String, &Partitions> =
            members.chain(self.classic.iter().map(|member| (&member.id, &member.owned))).collect();
        for member in &described.members {
            let target = partitions_of(member.target_assignment.as_ref()).unwrap();
            assert_eq!(owned[&member.member], &target, "{member:?}");
            assert_eq!(member.member_epoch, described.group_epoch);
        }
        self.check_complete();
    }

    /// All partitions of topics that somebody wants are owned.
    fn check_complete(&self) {
        let mut wanted = Partitions::new();
        for (name, (id, size)) in &self.topics {
            let by_regex = |regex: Option<&str>| match regex {
                Some("[ab]") => ["a", "b"].contains(name),
                Some(_) => true,
                None => false,
            };
            let is_wanted = self.members.iter().any(|member| member.topics.contains(name) || by_regex(member.regex));
            if is_wanted || self.classic.iter().any(|member| member.topics.contains(name)) {
                wanted.extend((0..*size).map(|number| TopicPartition { topic: *id, partition: PartitionId(number) }));
            }
        }
        let mut owned: Partitions = self.members.iter().flat_map(|member| member.owned.iter().copied()).collect();
        owned.extend(self.classic.iter().flat_map(|member| member.owned.iter().copied()));
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

/// While a group is upgraded. One member of the new protocol stays, so that the group keeps it.
#[test]
fn nor_with_members_of_the_classic_protocol() {
    for seed in 1000..1060 {
        let mut simulation = Simulation::new(seed);
        simulation.join();
        let request = simulation.members[0].request();
        simulation.deliver(0, request);
        for _ in 0..STEPS {
            match simulation.random.below(10) {
                0..4 => simulation.step_classic(),
                4..6 => simulation.heartbeat(0),
                6..8 => simulation.members[0].reconcile(),
                8 if simulation.random.chance(1, 4) => simulation.change_topics(),
                8 => drop(simulation.shard.pass(Duration::from_secs(simulation.random.below(2)))),
                _ if simulation.random.chance(1, 4) => simulation.shard.reload(),
                _ => {}
            }
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
