//! The decisions, under simulated time.

use bmq_proto::meta::{
    Intent, MetaChange, NodeKind, Owner, PartitionHead, SessionRecord, TopicConfig, TopicRecord, TopicState,
};
use bmq_proto::{Incarnation, PartitionId};

use super::*;

const SESSION: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(1);
const TOPIC: TopicId = TopicId([1; 16]);

/// A state, the time, and what the metadata service would hold.
struct Stage {
    state: State,
    now: Monotonic,
    term: Term,
}

fn topic(partitions: u32, state: TopicState) -> WatchEvent {
    let (name, config) = ("orders".to_owned(), TopicConfig::new());
    WatchEvent::Change(MetaChange::Topic(TopicRecord { id: TOPIC, name, partitions, config, state }))
}

fn broker(node: u32) -> WatchEvent {
    let (kind, node, address) = (NodeKind::Broker, NodeId(node), format!("127.0.0.1:{node}"));
    WatchEvent::Change(MetaChange::Session(SessionRecord {
        kind,
        node,
        incarnation: Incarnation(1),
        address,
        endpoints: Default::default(),
    }))
}

fn broker_gone(node: u32) -> WatchEvent {
    WatchEvent::Change(MetaChange::SessionGone(NodeKind::Broker, NodeId(node)))
}

fn partition(number: u32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition: PartitionId(number) }
}

fn intent(number: u32, node: Option<u32>) -> WatchEvent {
    WatchEvent::Change(match node {
        Some(node) => MetaChange::Intent(partition(number), Intent { node: NodeId(node), term: Term(1) }),
        None => MetaChange::IntentGone(partition(number)),
    })
}

fn owner(number: u32, node: Option<u32>) -> WatchEvent {
    let owner = node.map(|node| Owner { node: NodeId(node), incarnation: Incarnation(1) });
    WatchEvent::Change(MetaChange::Head(partition(number), PartitionHead { owner, ..Default::default() }))
}

/// The one write of intents among `actions`, which has nothing else.
fn written(actions: &[Action]) -> (WriteId, Vec<(u32, Option<u32>)>) {
    let [Action::WriteIntents { write, changes, .. }] = actions else {
        panic!("not one write: {actions:?}");
    };
    let short = |(at, node): &IntentChange| (at.partition.0, node.map(|node| node.0));
    (*write, changes.iter().map(short).collect())
}

impl Stage {
    /// A controller that holds the term and sees `found`.
    fn active(found: Vec<WatchEvent>) -> (Stage, Vec<Action>) {
        let mut stage = Stage { state: State::new(SESSION, RETRY), now: Monotonic::ZERO, term: Term(1) };
        let actions = stage.step(Event::TermTaken(stage.term));
        assert_eq!(actions, [Action::ListAgain]);
        let actions = stage.list(found);
        (stage, actions)
    }

    /// Three brokers, a topic of three partitions, one at each.
    fn settled() -> Stage {
        let mut found = vec![topic(3, TopicState::Active)];
        found.extend((1..=3).map(broker));
        found.extend((0..3).flat_map(|number| [intent(number, Some(number + 1)), owner(number, Some(number + 1))]));
        let (stage, actions) = Stage::active(found);
        assert_eq!(actions, []);
        stage
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.state.step(event, self.now)
    }

    fn list(&mut self, found: Vec<WatchEvent>) -> Vec<Action> {
        let list = [WatchEvent::Reset].into_iter().chain(found).chain([WatchEvent::Synced]);
        self.step(Event::Watched(list.collect()))
    }

    fn watch(&mut self, events: impl IntoIterator<Item = WatchEvent>) -> Vec<Action> {
        self.step(Event::Watched(events.into_iter().collect()))
    }

    /// Sleeps as the driver does, and steps.
    fn wake(&mut self) -> Vec<Action> {
        self.now = self.state.next_wake(self.now).expect("there is something to wake for");
        self.step(Event::Tick)
    }
}

#[test]
fn new_partitions_are_spread_and_written_once() {
    let (mut stage, actions) = Stage::active(vec![topic(4, TopicState::Active), broker(1), broker(2)]);
    let (write, changes) = written(&actions);
    assert_eq!(changes, [(0, Some(1)), (1, Some(2)), (2, Some(1)), (3, Some(2))]);
    assert_eq!(stage.step(Event::Tick), []);
    assert_eq!(stage.step(Event::IntentsWritten { write, success: true }), []);
    assert_eq!(stage.watch((0..4).map(|number| intent(number, Some(1 + number % 2)))), []);
    assert_eq!(stage.state.next_wake(stage.now), None);
}

#[test]
fn a_standby_watches_and_decides_nothing() {
    let mut stage = Stage { state: State::new(SESSION, RETRY), now: Monotonic::ZERO, term: Term(1) };
    assert_eq!(stage.list(vec![topic(4, TopicState::Active), broker(1)]), []);
    let gone = WatchEvent::Change(MetaChange::SessionGone(NodeKind::Controller, NodeId(9)));
    assert_eq!(stage.watch([gone]), [Action::TryForTerm]);
    assert_eq!(stage.step(Event::TermTaken(Term(2))), [Action::ListAgain]);
    assert_eq!(stage.watch([broker(2)]), [], "decides only on a list that is younger than the term");
}

#[test]
fn one_death_moves_at_once() {
    let mut stage = Stage::settled();
    let (_, changes) = written(&stage.watch([broker_gone(2)]));
    assert_eq!(changes, [(1, Some(1))]);
}

#[test]
fn many_deaths_wait_for_a_return() {
    let mut stage = Stage::settled();
    assert_eq!(stage.watch([broker_gone(2), broker_gone(3)]), []);
    assert_eq!(stage.state.figures().held_brokers, 2);
    assert_eq!(stage.watch([broker(3)]), []);
    let began = stage.now;
    let (_, changes) = written(&stage.wake());
    assert_eq!(stage.now.saturating_since(began), SESSION);
    assert_eq!(changes, [(1, Some(1))]);
}

#[test]
fn a_new_controller_gives_missing_brokers_a_session_time() {
    let found = vec![topic(1, TopicState::Active), broker(1), intent(0, Some(2))];
    let (mut stage, actions) = Stage::active(found);
    assert_eq!(actions, []);
    let (_, changes) = written(&stage.wake());
    assert_eq!((changes, stage.now), (vec![(0, Some(1))], Monotonic::ZERO + SESSION));
}

#[test]
fn writes_come_in_chunks() {
    let (mut stage, mut actions) = Stage::active(vec![topic(250, TopicState::Active), broker(1)]);
    let mut lengths = Vec::new();
    while !actions.is_empty() {
        let (write, changes) = written(&actions);
        lengths.push(changes.len());
        actions = stage.step(Event::IntentsWritten { write, success: true });
    }
    assert_eq!(lengths, [100, 100, 50]);
}

#[test]
fn what_the_watch_tells_late_does_not_undo_a_write() {
    let mut stage = Stage::settled();
    let (write, _) = written(&stage.watch([broker_gone(2)]));
    assert_eq!(stage.step(Event::IntentsWritten { write, success: true }), []);
    assert_eq!(stage.watch([intent(1, Some(2))]), [], "older than what was written");
    assert_eq!(stage.watch([intent(1, Some(1))]), []);
    let (_, changes) = written(&stage.watch([intent(1, Some(7))]));
    assert_eq!(changes, [(1, Some(1))], "a broker that nobody knows");
}

#[test]
fn a_failed_write_is_planned_anew_after_a_pause() {
    let mut stage = Stage::settled();
    let (write, _) = written(&stage.watch([broker_gone(2)]));
    assert_eq!(stage.step(Event::IntentsWritten { write, success: false }), []);
    assert_eq!(stage.watch([broker_gone(1)]), [], "the pause holds, and two that ended together wait");
    let began = stage.now;
    assert_eq!(stage.wake(), []);
    assert_eq!(stage.now.saturating_since(began), RETRY);
    let (_, changes) = written(&stage.wake());
    assert_eq!(changes, [(0, Some(3)), (1, Some(3))]);
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_the_present_write() {
    let mut stage = Stage::settled();
    let (old, _) = written(&stage.watch([broker_gone(2)]));
    assert_eq!(stage.step(Event::TermTaken(Term(2))), [Action::ListAgain]);
    let mut found = vec![topic(3, TopicState::Active), broker(1), broker(3)];
    found.extend((0..3).map(|number| intent(number, Some(number + 1))));
    let (new, changes) = written(&stage.list(found));
    assert_eq!(changes, [(1, Some(1))]);
    assert_eq!(stage.step(Event::IntentsWritten { write: old, success: false }), []);
    assert_eq!(stage.state.next_wake(stage.now), None, "still in flight");
    assert_eq!(stage.step(Event::IntentsWritten { write: new, success: true }), []);
}

#[test]
fn a_topic_is_deleted_step_by_step() {
    let mut stage = Stage::settled();
    let (write, changes) = written(&stage.watch([topic(3, TopicState::Deleting)]));
    assert_eq!(changes, [(0, None), (1, None), (2, None)]);
    assert_eq!(stage.step(Event::IntentsWritten { write, success: true }), []);
    assert_eq!(stage.watch([owner(0, None), owner(1, None)]), []);
    // Nothing may be deleted before the watch has told of every claim that was made under the old intents.
    assert_eq!(stage.watch([owner(2, None)]), [], "the intents are not seen to be gone");
    let actions = stage.watch((0..3).map(|number| intent(number, None)));
    let [Action::DeleteData { topic: TOPIC, broker: asked }] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(stage.step(Event::DataDeleted { topic: TOPIC, success: false }), []);
    let again = stage.wake();
    let [Action::DeleteData { topic: TOPIC, broker: other }] = &again[..] else {
        panic!("{again:?}");
    };
    assert_ne!(asked.node, other.node, "another broker may have more luck");
    let purge = [Action::Purge { term: Term(1), topic: TOPIC }];
    assert_eq!(stage.step(Event::DataDeleted { topic: TOPIC, success: true }), purge);
    assert_eq!(stage.step(Event::Purged { topic: TOPIC, outcome: PurgeOutcome::MoreLeft }), purge);
    assert_eq!(stage.step(Event::Purged { topic: TOPIC, outcome: PurgeOutcome::Failed }), []);
    assert_eq!(stage.wake(), purge);
    assert_eq!(stage.step(Event::Purged { topic: TOPIC, outcome: PurgeOutcome::NothingLeft }), []);
    assert_eq!(stage.watch([WatchEvent::Change(MetaChange::TopicGone(TOPIC))]), []);
    assert_eq!(stage.state.figures().deleting_topics, 0);
}

#[test]
fn an_owner_that_is_gone_does_not_hold_up_a_deletion() {
    let found = vec![topic(1, TopicState::Deleting), broker(1), broker(2), owner(0, Some(2))];
    let (mut stage, actions) = Stage::active(found);
    assert_eq!(actions, []);
    let actions = stage.watch([broker_gone(2)]);
    assert!(matches!(&actions[..], [Action::DeleteData { broker, .. }] if broker.node == NodeId(1)), "{actions:?}");
}

#[test]
fn a_deletion_waits_for_a_broker() {
    let (mut stage, actions) = Stage::active(vec![topic(1, TopicState::Deleting)]);
    assert_eq!(actions, []);
    assert_eq!(stage.state.next_wake(stage.now), None);
    assert!(matches!(&stage.watch([broker(1)])[..], [Action::DeleteData { .. }]));
}
