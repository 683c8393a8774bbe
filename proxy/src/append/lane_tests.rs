//! Lanes against a model of owners that refuse, move, depose themselves, and lose answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bmq_common::Monotonic;
use bmq_proto::broker::Appended;
use bmq_proto::{ErrorCode, Happened, Offset, ServiceError};
use bytes::Bytes;
use proptest::prelude::*;

use super::lane::{Action, Event, Lane, LaneBatch, Ticket, TryId};

const WINDOW: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the world does next.
#[derive(Debug, Clone, Copy)]
enum Move {
    Push {
        idempotent: bool,
    },
    PushRefusedAtTheEdge,
    /// The owner looks at the next batch that it has received.
    Process(Verdict),
    /// The oldest answer of the owner arrives.
    Deliver,
    /// The stream breaks after the owner has taken some more; answers under way are lost.
    Break {
        taken_before: usize,
    },
    /// The pause is over.
    Resume,
    Wait(Duration),
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Take,
    Busy,
    TooLarge,
    /// It loses the partition with this batch in its buffer: the next owner may find it in storage or not.
    LoseOwnership {
        found_later: bool,
    },
}

#[derive(Debug, Clone)]
struct Item {
    id: TryId,
    generation: u32,
    number: u64,
    idempotent: bool,
}

/// The owner at the other end of the present stream.
#[derive(Default)]
struct Owner {
    received: VecDeque<Item>,
    answers: VecDeque<(TryId, Result<Appended, ServiceError>)>,
    refused_generation: Option<u32>,
    deposed: bool,
}

struct World {
    lane: Lane,
    now: Monotonic,
    owner: Owner,
    /// Numbers of the batches in the log, in its order.
    log: Vec<u64>,
    in_flight: BTreeMap<TryId, Item>,
    pushed: Vec<bool>,
    replies: Vec<Result<Appended, ServiceError>>,
    paused: bool,
}

impl World {
    fn new() -> Self {
        Self {
            lane: Lane::new(WINDOW),
            now: Monotonic::ZERO,
            owner: Owner::default(),
            log: Vec::new(),
            in_flight: BTreeMap::new(),
            pushed: Vec::new(),
            replies: Vec::new(),
            paused: false,
        }
    }

    fn make(&mut self, step: Move) {
        match step {
            Move::Push { idempotent } => {
                let number = self.pushed.len() as u64;
                self.pushed.push(idempotent);
                let payload = Bytes::copy_from_slice(&number.to_be_bytes());
                let deadline = self.now + PATIENCE;
                self.feed(Event::Push(LaneBatch { ticket: Ticket(number), payload, idempotent, deadline }));
            }
            Move::PushRefusedAtTheEdge => {
                let ticket = Ticket(self.pushed.len() as u64);
                self.pushed.push(false);
                let error = ServiceError::not_applied(ErrorCode::InvalidBatch, "garbage");
                self.feed(Event::Refuse { ticket, error });
            }
            Move::Process(verdict) => self.process(verdict),
            Move::Deliver => self.deliver(),
            Move::Break { taken_before } => self.break_stream(taken_before),
            Move::Resume => {
                if std::mem::take(&mut self.paused) {
                    self.feed(Event::Resume);
                }
            }
            Move::Wait(time) => {
                self.now = self.now + time;
                self.feed(Event::Expire { now: self.now });
            }
        }
    }

    fn feed(&mut self, event: Event) {
        for action in self.lane.step(event) {
            match action {
                Action::Forward { id, generation, payload, fresh, .. } => {
                    let number = u64::from_be_bytes(payload[..].try_into().unwrap());
                    let idempotent = self.pushed[number as usize];
                    // Those whose deadline passed are not the lane's any more.
                    self.in_flight.retain(|_, item| item.number >= self.replies.len() as u64);
                    assert_eq!(fresh, self.in_flight.is_empty());
                    let item = Item { id, generation, number, idempotent };
                    self.in_flight.insert(id, item.clone());
                    assert!(self.in_flight.len() <= WINDOW);
                    self.owner.received.push_back(item);
                }
                Action::Reply { ticket, result } => {
                    assert_eq!(ticket, Ticket(self.replies.len() as u64), "replies keep the order");
                    self.replies.push(result);
                }
                Action::Pause { failures } => {
                    assert!(failures > 0);
                    assert!(!std::mem::replace(&mut self.paused, true), "one pause at a time");
                }
            }
        }
    }

    fn process(&mut self, verdict: Verdict) {
        let Some(item) = self.owner.received.pop_front() else {
            return;
        };
        let result = self.judge(&item, verdict);
        self.owner.answers.push_back((item.id, result));
    }

    fn judge(&mut self, item: &Item, verdict: Verdict) -> Result<Appended, ServiceError> {
        if self.owner.refused_generation.is_some_and(|refused| refused >= item.generation) {
            return Err(ServiceError::not_applied(ErrorCode::OutOfTurn, "not your turn"));
        }
        let verdict = if self.owner.deposed { None } else { Some(verdict) };
        let code = match verdict {
            Some(Verdict::Take) => return Ok(self.apply(item)),
            Some(Verdict::LoseOwnership { found_later }) => {
                self.owner.deposed = true;
                if found_later {
                    self.apply(item);
                }
                return Err(ServiceError::unknown(ErrorCode::NotOwner, "lost"));
            }
            Some(Verdict::Busy) => ErrorCode::Busy,
            Some(Verdict::TooLarge) => ErrorCode::MessageTooLarge,
            None => ErrorCode::NotOwner,
        };
        self.owner.refused_generation = Some(item.generation);
        Err(ServiceError::not_applied(code, "refused"))
    }

    fn apply(&mut self, item: &Item) -> Appended {
        if item.idempotent
            && let Some(at) = self.log.iter().position(|number| *number == item.number)
        {
            return Appended { base_offset: Offset(at as u64), deduplicated: true, append_time_ms: None };
        }
        if let Some(last) = self.log.last() {
            assert!(*last < item.number, "batch {} after {last}: order or uniqueness is lost", item.number);
        }
        self.log.push(item.number);
        Appended { base_offset: Offset(self.log.len() as u64 - 1), deduplicated: false, append_time_ms: None }
    }

    fn deliver(&mut self) {
        if let Some((id, result)) = self.owner.answers.pop_front() {
            self.in_flight.remove(&id);
            self.feed(Event::Answered { id, result });
        }
    }

    fn break_stream(&mut self, taken_before: usize) {
        for _ in 0..taken_before {
            self.process(Verdict::Take);
        }
        self.owner = Owner::default();
        for (id, _) in std::mem::take(&mut self.in_flight) {
            let error = ServiceError::unknown(ErrorCode::Unavailable, "the stream broke");
            self.feed(Event::Answered { id, result: Err(error) });
        }
    }

    /// From now on everything works; checks what must be true at the end.
    fn finish(mut self) {
        self.break_stream(0);
        for _ in 0..self.pushed.len() * 4 + 4 {
            self.make(Move::Resume);
            self.make(Move::Process(Verdict::Take));
            self.make(Move::Deliver);
        }
        assert_eq!(self.replies.len(), self.pushed.len(), "everything is answered");
        assert_eq!(self.lane.earliest_deadline(), None);
        for (number, reply) in self.replies.iter().enumerate() {
            let at = self.log.iter().position(|applied| *applied == number as u64);
            match reply {
                Ok(appended) => assert_eq!(at, Some(appended.base_offset.0 as usize), "batch {number}"),
                Err(error) if error.happened == Happened::NotApplied => assert_eq!(at, None, "batch {number}"),
                Err(_) => {}
            }
        }
    }
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => any::<bool>().prop_map(|idempotent| Move::Push { idempotent }),
        1 => Just(Move::PushRefusedAtTheEdge),
        8 => Just(Move::Process(Verdict::Take)),
        1 => Just(Move::Process(Verdict::Busy)),
        1 => Just(Move::Process(Verdict::TooLarge)),
        1 => any::<bool>().prop_map(|found_later| Move::Process(Verdict::LoseOwnership { found_later })),
        8 => Just(Move::Deliver),
        1 => (0_usize..4).prop_map(|taken_before| Move::Break { taken_before }),
        4 => Just(Move::Resume),
        1 => (1_u64..20).prop_map(|seconds| Move::Wait(Duration::from_secs(seconds))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn order_and_fates_are_kept(moves in prop::collection::vec(moves(), 1..150)) {
        let mut world = World::new();
        moves.into_iter().for_each(|step| world.make(step));
        world.finish();
    }
}

fn push(number: u64, idempotent: bool) -> Event {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    Event::Push(LaneBatch { ticket: Ticket(number), payload, idempotent, deadline: Monotonic::ZERO + PATIENCE })
}

fn forwarded(actions: &[Action]) -> Vec<(u64, u32)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Forward { payload, generation, .. } => {
            Some((u64::from_be_bytes(payload[..].try_into().unwrap()), *generation))
        }
        _ => None,
    });
    sent.collect()
}

fn refused(id: u64, code: ErrorCode) -> Event {
    Event::Answered { id: TryId(id), result: Err(ServiceError::not_applied(code, "refused")) }
}

#[test]
fn a_refused_batch_and_those_after_it_go_again_in_order() {
    let mut lane = Lane::new(5);
    for number in 0..5 {
        assert_eq!(forwarded(&lane.step(push(number, false))), [(number, 0)]);
    }
    let appended = Appended { base_offset: Offset(9), deduplicated: false, append_time_ms: None };
    let told = lane.step(Event::Answered { id: TryId(0), result: Ok(appended) });
    assert_eq!(told, [Action::Reply { ticket: Ticket(0), result: Ok(appended) }]);
    assert_eq!(lane.step(refused(1, ErrorCode::NotOwner)), []);
    assert_eq!(lane.step(refused(2, ErrorCode::OutOfTurn)), []);
    assert_eq!(lane.step(refused(3, ErrorCode::OutOfTurn)), []);
    assert_eq!(lane.step(push(5, false)), []);
    assert_eq!(lane.step(refused(4, ErrorCode::OutOfTurn)), [Action::Pause { failures: 1 }]);
    assert_eq!(forwarded(&lane.step(Event::Resume)), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
}

#[test]
fn a_batch_refused_for_good_does_not_hold_up_the_next() {
    let mut lane = Lane::new(5);
    lane.step(push(0, false));
    lane.step(push(1, false));
    let told = lane.step(refused(0, ErrorCode::MessageTooLarge));
    assert!(matches!(told[..], [Action::Reply { ticket: Ticket(0), result: Err(_) }]));
    assert_eq!(forwarded(&lane.step(refused(1, ErrorCode::OutOfTurn))), [(1, 1)]);
}

#[test]
fn an_unknown_batch_is_sent_again_alone_and_never_called_not_applied() {
    let mut lane = Lane::new(5);
    (0..3).for_each(|number| drop(lane.step(push(number, true))));
    for id in 0..3 {
        let error = ServiceError::unknown(ErrorCode::Unavailable, "broken");
        lane.step(Event::Answered { id: TryId(id), result: Err(error) });
    }
    assert_eq!(forwarded(&lane.step(Event::Resume)), [(0, 1)]);
    let told = lane.step(refused(3, ErrorCode::OutOfOrderSequence));
    let Action::Reply { ticket: Ticket(0), result: Err(error) } = &told[0] else {
        panic!("{told:?}");
    };
    assert_eq!((error.code, error.happened), (ErrorCode::OutOfOrderSequence, Happened::Unknown));
    assert_eq!(forwarded(&told), [(1, 2)]);
}

#[test]
fn nothing_goes_beside_a_batch_that_was_unknown() {
    let unknown = |id: u64| {
        let error = ServiceError::unknown(ErrorCode::Unavailable, "broken");
        Event::Answered { id: TryId(id), result: Err(error) }
    };
    let taken = |id: u64| {
        let appended = Appended { base_offset: Offset(id), deduplicated: false, append_time_ms: None };
        Event::Answered { id: TryId(id), result: Ok(appended) }
    };
    let mut lane = Lane::new(5);
    lane.step(push(0, true));
    lane.step(push(1, true));
    lane.step(refused(0, ErrorCode::Busy));
    lane.step(unknown(1));
    lane.step(push(2, true));
    assert_eq!(forwarded(&lane.step(Event::Resume)), [(0, 1)], "what follows was unknown");
    assert_eq!(forwarded(&lane.step(taken(2))), [(1, 1)], "it is unknown itself");
    assert_eq!(forwarded(&lane.step(taken(3))), [(2, 1)]);
}

#[test]
fn a_deadline_tells_what_is_known() {
    let mut lane = Lane::new(1);
    lane.step(push(0, false));
    lane.step(push(1, false));
    let told = lane.step(Event::Expire { now: Monotonic::ZERO + PATIENCE });
    let happened: Vec<Happened> = told
        .into_iter()
        .map(|action| match action {
            Action::Reply { result: Err(error), .. } => error.happened,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(happened, [Happened::Unknown, Happened::NotApplied]);
}
