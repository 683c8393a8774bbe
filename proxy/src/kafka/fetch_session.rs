//! Fetch sessions (KIP-227): a client tells its partitions once, and then only what changed; it is told only of
//! partitions that changed. Pure.
//!
//! Invariants:
//! * each request of a session carries the epoch after that of the request before it, or it is refused;
//! * the partitions that were told last stand last, so that none starves behind busy ones;
//! * there are at most so many sessions, and so many partitions in all of them; one that was not used for a while makes
//!   room for a new one, and a client that gets none goes on without.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bmq_common::Monotonic;

/// What the partitions of all sessions together may be.
const MAX_PARTITIONS: usize = 500_000;

/// How long a session stays unused before it may be dropped for another.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// The session epoch of a request that asks for a new session.
const INITIAL_EPOCH: i32 = 0;
/// The session epoch of a request that ends its session, or wants none.
const FINAL_EPOCH: i32 = -1;

/// A partition as requests name it: by its topic's name, or from version 13 on by its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionKey {
    pub topic: TopicKey,
    pub partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicKey {
    Name(Arc<str>),
    Id([u8; 16]),
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub fetch_offset: i64,
    pub max_bytes: i32,
    /// The epoch of the leader that the client believes in, or -1.
    pub current_leader_epoch: i32,
    /// The epoch of the batch that the client read last, or -1.
    pub last_fetched_epoch: i32,
}

/// What a client was told of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: i64,
    pub log_start: i64,
    pub has_records: bool,
    /// An error, or a diverging epoch: told each time.
    pub is_odd: bool,
}

/// Why a request's session cannot be used; the client begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionError {
    NotFound,
    WrongEpoch,
    /// The session names its topics by name and the request by id, or the other way round.
    OtherNaming,
}

/// The session's part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    pub by_id: bool,
    pub wanted: Vec<(PartitionKey, Wanted)>,
    pub forgotten: Vec<PartitionKey>,
}

/// What to read for a request, and what its answer is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPlan {
    pub partitions: Vec<(PartitionKey, Wanted)>,
    kind: PlanKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlanKind {
    /// All partitions are told, and nothing is remembered.
    Sessionless,
    /// All partitions are told, and remembered if there is room.
    Begin { by_id: bool },
    /// What changed is told.
    Continue { session: i32 },
}

/// What of an answer is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// 0 if there is no session.
    pub session_id: i32,
    /// For each partition of the plan, whether it is told.
    pub is_told: Vec<bool>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    last_used: Monotonic,
    /// In the order in which they are read.
    turns: BTreeMap<u64, PartitionKey>,
    partitions: HashMap<PartitionKey, Remembered>,
    next_turn: u64,
}

#[derive(Debug)]
struct Remembered {
    turn: u64,
    wanted: Wanted,
    /// What was told last; nothing before the first answer and after an odd one.
    told: Option<(i64, i64)>,
}

/// See the head of the file.
#[derive(Debug)]
pub struct FetchSessions {
    max_sessions: usize,
    sessions: HashMap<i32, Session>,
    partitions: usize,
}

impl FetchSessions {
    pub fn new(max_sessions: usize) -> Self {
        Self { max_sessions, sessions: HashMap::new(), partitions: 0 }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What a request asks for, with what its session remembers.
    pub fn plan(&mut self, request: SessionRequest, now: Monotonic) -> Result<FetchPlan, SessionError> {
        let SessionRequest { session_id, session_epoch, by_id, wanted, forgotten } = request;
        match session_epoch {
            INITIAL_EPOCH | FINAL_EPOCH => {
                self.remove(session_id);
                let is_new = session_epoch == INITIAL_EPOCH;
                let kind = if is_new { PlanKind::Begin { by_id } } else { PlanKind::Sessionless };
                Ok(FetchPlan { partitions: wanted, kind })
            }
            epoch => {
                let session = self.sessions.get_mut(&session_id).ok_or(SessionError::NotFound)?;
                if session.epoch != epoch {
                    return Err(SessionError::WrongEpoch);
                }
                let names_topics = !(wanted.is_empty() && forgotten.is_empty());
                if names_topics && session.by_id != by_id {
                    return Err(SessionError::OtherNaming);
                }
                let before = session.partitions.len();
                session.change(wanted, forgotten);
                session.epoch = next_epoch(epoch);
                session.last_used = now;
                self.partitions = self.partitions - before + session.partitions.len();
                let partitions = session.in_turn();
                if partitions.is_empty() || self.partitions > MAX_PARTITIONS {
                    self.remove(session_id);
                    return Ok(FetchPlan { partitions, kind: PlanKind::Sessionless });
                }
                Ok(FetchPlan { partitions, kind: PlanKind::Continue { session: session_id } })
            }
        }
    }

    /// Says which of the plan's partitions are sent, and remembers that. `told` goes with the plan's partitions;
    /// `fresh` is the id for a new session.
    pub fn select(&mut self, plan: FetchPlan, told: &[Told], fresh: i32, now: Monotonic) -> Selection {
        let everything = vec![true; told.len()];
        match plan.kind {
            PlanKind::Sessionless => Selection { session_id: 0, is_told: everything },
            PlanKind::Begin { by_id } => {
                let session_id = if self.make_room(plan.partitions.len(), fresh, now) { fresh } else { 0 };
                if session_id != 0 {
                    self.begin(session_id, by_id, plan.partitions, told, now);
                }
                Selection { session_id, is_told: everything }
            }
            PlanKind::Continue { session: session_id } => {
                let Some(session) = self.sessions.get_mut(&session_id) else {
                    // Evicted meanwhile; the next request will be told.
                    return Selection { session_id, is_told: everything };
                };
                let tell = |((key, _), told): (&(PartitionKey, Wanted), &Told)| session.tell(key, *told);
                Selection { session_id, is_told: plan.partitions.iter().zip(told).map(tell).collect() }
            }
        }
    }

    fn begin(
        &mut self,
        session_id: i32,
        by_id: bool,
        partitions: Vec<(PartitionKey, Wanted)>,
        told: &[Told],
        now: Monotonic,
    ) {
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            by_id,
            last_used: now,
            turns: BTreeMap::new(),
            partitions: HashMap::new(),
            next_turn: 0,
        };
        let keys: Vec<PartitionKey> = partitions.iter().map(|(key, _)| key.clone()).collect();
        session.change(partitions, Vec::new());
        for (key, told) in keys.iter().zip(told) {
            session.tell(key, *told);
        }
        self.partitions += session.partitions.len();
        self.sessions.insert(session_id, session);
    }

    /// Whether a session of so many partitions may be added, after one that was not used for a while is dropped.
    fn make_room(&mut self, partitions: usize, fresh: i32, now: Monotonic) -> bool {
        if fresh <= 0 || partitions == 0 || self.sessions.contains_key(&fresh) {
            return false;
        }
        let is_full = |sessions: &Self| {
            sessions.sessions.len() >= sessions.max_sessions || sessions.partitions + partitions > MAX_PARTITIONS
        };
        if is_full(self) {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last_used);
            let evictable = oldest.filter(|(_, session)| now.saturating_since(session.last_used) > EVICTABLE_AFTER);
            if let Some(id) = evictable.map(|(id, _)| *id) {
                self.remove(id);
            }
        }
        !is_full(self)
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.partitions -= session.partitions.len();
        }
    }
}

impl Session {
    fn change(&mut self, wanted: Vec<(PartitionKey, Wanted)>, forgotten: Vec<PartitionKey>) {
        for (key, wanted) in wanted {
            if let Some(known) = self.partitions.get_mut(&key) {
                known.wanted = wanted;
                continue;
            }
            let turn = self.take_turn();
            self.turns.insert(turn, key.clone());
            self.partitions.insert(key, Remembered { turn, wanted, told: None });
        }
        for key in forgotten {
            if let Some(known) = self.partitions.remove(&key) {
                self.turns.remove(&known.turn);
            }
        }
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn in_turn(&self) -> Vec<(PartitionKey, Wanted)> {
        self.turns.values().map(|key| (key.clone(), self.partitions[key].wanted.clone())).collect()
    }

    /// Whether the partition is to be told; remembers it as told if so.
    fn tell(&mut self, key: &PartitionKey, told: Told) -> bool {
        let next_turn = self.take_turn();
        // Forgotten by a later request of the session, which came before this one was answered.
        let Some(known) = self.partitions.get_mut(key) else {
            return true;
        };
        let bounds = (told.high_watermark, told.log_start);
        let is_told = told.has_records || told.is_odd || known.told != Some(bounds);
        known.told = (!told.is_odd).then_some(bounds);
        if told.has_records {
            self.turns.remove(&known.turn);
            known.turn = next_turn;
            self.turns.insert(next_turn, key.clone());
        }
        is_told
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Monotonic = Monotonic::ZERO;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Name("t".into()), partition }
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { fetch_offset: offset, max_bytes: 1, current_leader_epoch: -1, last_fetched_epoch: -1 }
    }

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)]) -> SessionRequest {
        let wanted = partitions.iter().map(|(partition, offset)| (key(*partition), wanted(*offset))).collect();
        SessionRequest { session_id, session_epoch, by_id: false, wanted, forgotten: Vec::new() }
    }

    fn told(high_watermark: i64, has_records: bool) -> Told {
        Told { high_watermark, log_start: 0, has_records, is_odd: false }
    }

    fn order(plan: &FetchPlan) -> Vec<(i32, i64)> {
        plan.partitions.iter().map(|(key, wanted)| (key.partition, wanted.fetch_offset)).collect()
    }

    /// Sessions with one of three partitions, id 7, told the high watermark 5.
    fn begun() -> FetchSessions {
        let mut sessions = FetchSessions::new(2);
        let plan = sessions.plan(request(0, 0, &[(0, 5), (1, 5), (2, 5)]), NOW).unwrap();
        let selection = sessions.select(plan, &[told(5, false); 3], 7, NOW);
        assert_eq!(selection, Selection { session_id: 7, is_told: vec![true; 3] });
        sessions
    }

    #[test]
    fn only_what_changed_is_asked_and_told() {
        let mut sessions = begun();
        let plan = sessions.plan(request(7, 1, &[]), NOW).unwrap();
        assert_eq!(order(&plan), [(0, 5), (1, 5), (2, 5)]);
        let selection = sessions.select(plan, &[told(6, true), told(5, false), told(6, false)], 0, NOW);
        assert_eq!(selection, Selection { session_id: 7, is_told: vec![true, false, true] });
        // What had records stands last; what is asked anew replaces what was asked before.
        let plan = sessions.plan(request(7, 2, &[(0, 6)]), NOW).unwrap();
        assert_eq!(order(&plan), [(1, 5), (2, 5), (0, 6)]);
        let selection = sessions.select(plan, &[told(5, false), told(6, false), told(6, false)], 0, NOW);
        assert_eq!(selection.is_told, [false; 3]);
    }

    #[test]
    fn errors_are_told_each_time_and_once_more_when_they_are_over() {
        let mut sessions = begun();
        let odd = Told { is_odd: true, ..told(-1, false) };
        let mut answer = |epoch: i32, first: Told| {
            let plan = sessions.plan(request(7, epoch, &[]), NOW).unwrap();
            sessions.select(plan, &[first, told(5, false), told(5, false)], 0, NOW).is_told[0]
        };
        assert!(answer(1, odd) && answer(2, odd) && answer(3, told(5, false)) && !answer(4, told(5, false)));
    }

    #[test]
    fn epochs_are_checked() {
        let mut sessions = begun();
        assert_eq!(sessions.plan(request(8, 1, &[]), NOW), Err(SessionError::NotFound));
        assert_eq!(sessions.plan(request(7, 2, &[]), NOW), Err(SessionError::WrongEpoch));
        let by_id = SessionRequest { by_id: true, ..request(7, 1, &[(0, 1)]) };
        assert_eq!(sessions.plan(by_id, NOW), Err(SessionError::OtherNaming));
        // A refused request does not count.
        assert!(sessions.plan(request(7, 1, &[]), NOW).is_ok());
        // The end of the session.
        let plan = sessions.plan(request(7, -1, &[(0, 9)]), NOW).unwrap();
        assert_eq!(order(&plan), [(0, 9)]);
        assert_eq!(sessions.select(plan, &[told(5, false)], 9, NOW).session_id, 0);
        assert_eq!(sessions.plan(request(7, 2, &[]), NOW), Err(SessionError::NotFound));
        assert_eq!((sessions.len(), sessions.partitions), (0, 0));
        assert_eq!(next_epoch(i32::MAX), 1);
    }

    #[test]
    fn forgotten_partitions_are_not_read_and_the_last_one_ends_the_session() {
        let mut sessions = begun();
        let forget = |partitions: &[i32], epoch| SessionRequest {
            forgotten: partitions.iter().map(|partition| key(*partition)).collect(),
            ..request(7, epoch, &[])
        };
        assert_eq!(order(&sessions.plan(forget(&[1], 1), NOW).unwrap()), [(0, 5), (2, 5)]);
        assert_eq!(order(&sessions.plan(forget(&[0, 2], 2), NOW).unwrap()), []);
        assert!(sessions.is_empty());
    }

    #[test]
    fn a_full_house_takes_no_more_until_somebody_has_been_away() {
        let mut sessions = begun();
        let mut begin = |fresh: i32, now: Monotonic| {
            let plan = sessions.plan(request(0, 0, &[(0, 0)]), now).unwrap();
            sessions.select(plan, &[told(0, false)], fresh, now).session_id
        };
        // Later than the first one, so that it is known which of them goes.
        let soon = NOW + Duration::from_secs(1);
        assert_eq!(begin(8, soon), 8);
        assert_eq!(begin(9, soon), 0);
        let later = NOW + EVICTABLE_AFTER + Duration::from_secs(1);
        assert_eq!(begin(9, later), 9);
        assert_eq!((sessions.len(), sessions.partitions), (2, 2));
    }
}
