//! One lane: the batches of one client connection for one partition. Whatever the owner answers, they are applied and
//! answered in the order in which they came.
//!
//! Pure: events go in, actions come out; time comes with the events.
//!
//! ```text
//!   front                                  cursor                back
//!   | done | sent | done | sent | sent |   queued | refused | queued |
//!   └ answered to the client from here     └ next to be forwarded
//! ```
//!
//! Invariants:
//! * every batch is answered to the client exactly once, in order;
//! * before `cursor` nothing is queued;
//! * a new generation begins only when nothing is in flight: then everything sent has a known fate, so what is sent
//!   next cannot overtake it, on whichever stream and to whichever owner it goes;
//! * a batch whose fate is unknown is sent again only if its producer id lets the owner recognise it, and alone;
//! * a batch that was unknown once is never answered as certainly not applied.

use std::collections::VecDeque;

use bmq_common::Monotonic;
use bmq_proto::broker::Appended;
use bmq_proto::{ErrorCode, Happened, ServiceError};
use bytes::Bytes;

/// The client's name for a batch; the reply carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The lane's name for one sending of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TryId(pub u64);

/// A batch on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneBatch {
    pub ticket: Ticket,
    pub payload: Bytes,
    /// Whether the batch carries a producer id, so that the owner recognises it when it comes again.
    pub idempotent: bool,
    /// Never earlier than that of a batch pushed before.
    pub deadline: Monotonic,
}

/// What happened to a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client sent a batch.
    Push(LaneBatch),
    /// The client sent something that is refused at the edge; its answer keeps its turn.
    Refuse { ticket: Ticket, error: ServiceError },
    /// One sending was answered, or its stream broke.
    Answered { id: TryId, result: Result<Appended, ServiceError> },
    /// The pause asked for with [`Action::Pause`] is over.
    Resume,
    /// Time passed.
    Expire { now: Monotonic },
}

/// What the driver shall do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a batch to the owner. `fresh` if nothing is in flight: only then may the driver turn to another stream.
    /// After `deadline` the client has its answer, so a batch that was not sent by then must not be.
    Forward { id: TryId, generation: u32, payload: Bytes, fresh: bool, deadline: Monotonic },
    /// Tell the client.
    Reply { ticket: Ticket, result: Result<Appended, ServiceError> },
    /// Wait for newer metadata or for a back-off, then send [`Event::Resume`]. `failures` counts the pauses since the
    /// last success.
    Pause { failures: u32 },
}

#[derive(Debug)]
enum Fate {
    Queued,
    Sent(TryId),
    Done(Result<Appended, ServiceError>),
}

#[derive(Debug)]
struct Entry {
    ticket: Ticket,
    payload: Bytes,
    idempotent: bool,
    deadline: Monotonic,
    /// An earlier sending may have been applied.
    maybe_applied: bool,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Batches go out as the window allows.
    Flowing,
    /// One was refused or its fate is unknown: nothing goes out until everything in flight is answered.
    Draining { pause: bool },
    /// Nothing is in flight; the driver was told to pause.
    Paused,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Lane {
    entries: VecDeque<Entry>,
    /// Index of the first entry that may be queued.
    cursor: usize,
    in_flight: usize,
    /// The one batch in flight was unknown before: nothing may follow it yet.
    retrying_unknown: bool,
    phase: Phase,
    generation: u32,
    failures: u32,
    /// What the owner said when it refused a batch last, since the last success: what batches wait for.
    last_refusal: Option<String>,
    next_try: u64,
    window: usize,
}

impl Lane {
    /// At most `window` batches are in flight at once.
    pub fn new(window: usize) -> Self {
        assert!(window > 0, "a lane without a window never sends");
        Self {
            entries: VecDeque::new(),
            cursor: 0,
            in_flight: 0,
            retrying_unknown: false,
            phase: Phase::Flowing,
            generation: 0,
            failures: 0,
            last_refusal: None,
            next_try: 0,
            window,
        }
    }

    /// When the oldest batch not answered yet must be.
    pub fn earliest_deadline(&self) -> Option<Monotonic> {
        self.entries.iter().find(|entry| !matches!(entry.fate, Fate::Done(_))).map(|entry| entry.deadline)
    }

    /// Takes an event and says what to do.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Push(batch) => self.push(batch),
            Event::Refuse { ticket, error } => self.refuse(ticket, error),
            Event::Answered { id, result } => self.take_answer(id, result),
            Event::Resume => {
                if self.phase == Phase::Paused {
                    self.phase = Phase::Flowing;
                }
            }
            Event::Expire { now } => self.expire(now),
        }
        self.settle()
    }

    fn push(&mut self, batch: LaneBatch) {
        let LaneBatch { ticket, payload, idempotent, deadline } = batch;
        debug_assert!(self.entries.back().is_none_or(|last| last.deadline <= deadline), "deadlines go back");
        self.entries.push_back(Entry {
            ticket,
            payload,
            idempotent,
            deadline,
            maybe_applied: false,
            fate: Fate::Queued,
        });
    }

    fn refuse(&mut self, ticket: Ticket, error: ServiceError) {
        let deadline = self.entries.back().map_or(Monotonic::ZERO, |last| last.deadline);
        let fate = Fate::Done(Err(error));
        let payload = Bytes::new();
        self.entries.push_back(Entry { ticket, payload, idempotent: false, deadline, maybe_applied: false, fate });
    }

    /// Takes in what became of one sending. An answer for a batch that the client was told about before (its deadline
    /// passed) changes nothing.
    fn take_answer(&mut self, id: TryId, result: Result<Appended, ServiceError>) {
        let is_meant = |entry: &Entry| matches!(entry.fate, Fate::Sent(sent) if sent == id);
        let Some(index) = self.entries.iter().position(is_meant) else {
            return;
        };
        self.leave_flight();
        let entry = &mut self.entries[index];
        let error = match result {
            Ok(appended) => {
                entry.fate = Fate::Done(Ok(appended));
                self.failures = 0;
                self.last_refusal = None;
                return;
            }
            Err(error) => error,
        };
        let mut pause = error.code != ErrorCode::OutOfTurn;
        if pause {
            self.last_refusal = Some(error.message.clone());
        }
        match error.happened {
            Happened::Unknown if entry.idempotent => {
                entry.maybe_applied = true;
                entry.fate = Fate::Queued;
            }
            Happened::NotApplied if is_worth_another_try(error.code) => entry.fate = Fate::Queued,
            happened => {
                entry.fate = Fate::Done(Err(entry.final_error(error)));
                // A refusal of this batch alone says nothing about the owner.
                pause = happened == Happened::Unknown;
            }
        }
        let pause_already = matches!(self.phase, Phase::Draining { pause: true });
        self.phase = Phase::Draining { pause: pause || pause_already };
    }

    fn leave_flight(&mut self) {
        assert!(self.in_flight > 0, "an answer without a batch in flight");
        self.in_flight -= 1;
        self.retrying_unknown = false;
    }

    fn expire(&mut self, now: Monotonic) {
        let mut expired_in_flight = 0;
        let cause = self.last_refusal.as_ref().map(|said| format!(", last: {said}")).unwrap_or_default();
        for entry in self.entries.iter_mut().take_while(|entry| entry.deadline <= now) {
            let error = match entry.fate {
                Fate::Done(_) => continue,
                Fate::Queued => ServiceError::not_applied(
                    ErrorCode::Timeout,
                    format!("no owner of the partition took the batch before its deadline{cause}"),
                ),
                Fate::Sent(_) => {
                    expired_in_flight += 1;
                    ServiceError::unknown(
                        ErrorCode::Timeout,
                        format!("the partition's owner did not answer before the batch's deadline{cause}"),
                    )
                }
            };
            entry.fate = Fate::Done(Err(entry.final_error(error)));
        }
        for _ in 0..expired_in_flight {
            self.leave_flight();
        }
    }

    /// Does all that the present state asks for.
    fn settle(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.reply(&mut actions);
        if let Phase::Draining { pause } = self.phase
            && self.in_flight == 0
        {
            self.begin_generation(pause, &mut actions);
        }
        self.forward(&mut actions);
        actions
    }

    /// Answers the client as far as the order allows.
    fn reply(&mut self, actions: &mut Vec<Action>) {
        while let Some(Entry { fate: Fate::Done(_), .. }) = self.entries.front()
            && let Some(Entry { ticket, fate: Fate::Done(result), .. }) = self.entries.pop_front()
        {
            self.cursor = self.cursor.saturating_sub(1);
            actions.push(Action::Reply { ticket, result });
        }
    }

    fn begin_generation(&mut self, pause: bool, actions: &mut Vec<Action>) {
        assert!(self.in_flight == 0, "a generation ends with its last answer");
        self.generation += 1;
        self.cursor = 0;
        let anything_queued = self.entries.iter().any(|entry| matches!(entry.fate, Fate::Queued));
        if !(pause && anything_queued) {
            self.phase = Phase::Flowing;
            return;
        }
        self.phase = Phase::Paused;
        self.failures += 1;
        actions.push(Action::Pause { failures: self.failures });
    }

    fn forward(&mut self, actions: &mut Vec<Action>) {
        while self.phase == Phase::Flowing && !self.retrying_unknown && self.in_flight < self.window {
            let Some(entry) = self.entries.get_mut(self.cursor) else {
                return;
            };
            if !matches!(entry.fate, Fate::Queued) {
                self.cursor += 1;
                continue;
            }
            if entry.maybe_applied && self.in_flight > 0 {
                return;
            }
            let id = TryId(self.next_try);
            entry.fate = Fate::Sent(id);
            self.retrying_unknown = entry.maybe_applied;
            let (payload, fresh, deadline) = (entry.payload.clone(), self.in_flight == 0, entry.deadline);
            self.next_try += 1;
            self.in_flight += 1;
            self.cursor += 1;
            actions.push(Action::Forward { id, generation: self.generation, payload, fresh, deadline });
        }
    }
}

impl Entry {
    /// A refusal of a later sending does not undo what an earlier one may have done.
    fn final_error(&self, error: ServiceError) -> ServiceError {
        let happened = if self.maybe_applied { Happened::Unknown } else { error.happened };
        ServiceError { happened, ..error }
    }
}

/// Whether a batch that was certainly not applied may be taken when it comes again, here or at a newer owner.
fn is_worth_another_try(code: ErrorCode) -> bool {
    // Fenced means that this proxy's metadata was old; the client knows nothing of epochs.
    code.is_retriable() || code == ErrorCode::Fenced
}
