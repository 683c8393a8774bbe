//! Random commands of two owners keep the invariants; and each command's refusals and repeats by example.

use bmq_proto::meta::{EpochStart, Owner, SegmentEnd, SegmentState};
use bmq_proto::{BytePosition, Happened, Incarnation, NodeId, PartitionId, Term, TopicId, TopicPartition};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::*;

mod whole_segments;

const PARTITION: TopicPartition = TopicPartition { topic: TopicId([7; 16]), partition: PartitionId(0) };
const HEADER: u64 = 512;

fn command(nonce: u64, kind: PartitionCommandKind) -> PartitionCommand {
    PartitionCommand { partition: PARTITION, nonce, now_ms: nonce as i64, kind }
}

fn owner(node: u32) -> Owner {
    Owner { node: NodeId(node), incarnation: Incarnation(u64::from(node)) }
}

fn intent(node: u32) -> Intent {
    Intent { node: NodeId(node), term: Term(1) }
}

fn file(epoch: u32, nonce: u64) -> FileId {
    FileId { epoch: Epoch(epoch), nonce }
}

fn end(offset: u64) -> SegmentEnd {
    SegmentEnd { offset: Offset(offset), position: BytePosition(HEADER + offset * 10) }
}

/// The records with a counter for nonces.
#[derive(Default)]
struct World {
    records: PartitionRecords,
    last_nonce: u64,
}

impl World {
    fn run(&mut self, kind: PartitionCommandKind) -> Result<Changes, ServiceError> {
        self.run_as(1, kind)
    }

    fn run_as(&mut self, intended: u32, kind: PartitionCommandKind) -> Result<Changes, ServiceError> {
        self.last_nonce += 1;
        let command = command(self.last_nonce, kind);
        let before = self.records.clone();
        let changes = apply(&self.records, Some(&intent(intended)), &command)?;
        self.records.absorb(changes.clone());
        check_step(&before, &self.records, &command);
        Ok(changes)
    }

    fn claim(&mut self) -> Epoch {
        self.run(PartitionCommandKind::Claim { owner: owner(1) }).unwrap();
        self.records.head.epoch
    }

    /// Claims and recovers, with nothing open.
    fn ready(&mut self) -> Epoch {
        let epoch = self.claim();
        let start = self.records.head.sealed_end;
        self.run(PartitionCommandKind::FinishRecovery { epoch, found: None, start }).unwrap();
        epoch
    }

    fn open(&mut self, epoch: Epoch, nonce: u64, seal: Option<SegmentEnd>) -> Result<Changes, ServiceError> {
        let base_offset = seal.map_or(self.records.head.sealed_end, |end| end.offset);
        self.run(open_segment(epoch, file(epoch.0, nonce), base_offset, seal))
    }
}

fn open_segment(epoch: Epoch, file: FileId, base_offset: Offset, seal: Option<SegmentEnd>) -> PartitionCommandKind {
    let start_position = BytePosition(HEADER);
    PartitionCommandKind::OpenSegment { epoch, file, start_position, base_offset, seal }
}

fn close_segment(epoch: Epoch, base_offset: u64, file: FileId) -> PartitionCommandKind {
    let max_timestamp_ms = Some(base_offset as i64);
    PartitionCommandKind::CloseSegment { epoch, base_offset: Offset(base_offset), file, max_timestamp_ms }
}

fn replace_segments(epoch: Epoch, replaced: Vec<(Offset, FileId)>, file: FileId) -> PartitionCommandKind {
    PartitionCommandKind::ReplaceSegments {
        epoch,
        replaced,
        file,
        start_position: BytePosition(HEADER),
        end_position: BytePosition(HEADER + 5),
        max_timestamp_ms: None,
    }
}

/// What every applied command leaves true.
fn check_step(before: &PartitionRecords, after: &PartitionRecords, command: &PartitionCommand) {
    check_records(after);
    if let Some(epoch) = command.kind.epoch() {
        assert_eq!(epoch, before.head.epoch, "a command of another epoch was applied");
    }
    let changed = before != after;
    let is_checkpoint = matches!(command.kind, PartitionCommandKind::Checkpoint { .. });
    assert_eq!(after.head.version, before.head.version + u64::from(changed && !is_checkpoint));
    assert_eq!(after.head.epoch > before.head.epoch, matches!(command.kind, PartitionCommandKind::Claim { .. }));
    assert!(after.head.sealed_end >= before.head.sealed_end, "the log's end went back");
    for (base_offset, segment) in &before.segments {
        let Some(fixed) = segment.end() else { continue };
        let holds = |later: &&SegmentRecord| {
            later.base_offset <= *base_offset && later.end().is_some_and(|end| end.offset >= fixed.offset)
        };
        let holder = after.segments.values().find(holds);
        if let Some(new) = holder.filter(|new| new.file != segment.file) {
            assert!(segment.is_closed() && new.compacted, "{segment:?} was replaced by {new:?}");
            assert!(after.garbage.contains_key(&segment.file), "{segment:?} is forgotten");
            continue;
        }
        let Some(later) = after.segments.get(base_offset) else {
            let below = fixed.offset <= after.head.log_start && fixed.offset < after.head.sealed_end;
            assert!(below, "{segment:?} was dropped");
            assert!(after.garbage.contains_key(&segment.file), "{segment:?} is forgotten");
            continue;
        };
        assert_eq!((later.end(), later.file), (Some(fixed), segment.file), "a sealed segment changed");
        assert!(later.is_closed() >= segment.is_closed(), "a closed segment is closed for ever");
    }
    assert!(after.head.log_start >= before.head.log_start, "the log start went back");
    let place = |records: &PartitionRecords| records.checkpoint.map(|checkpoint| checkpoint.offset);
    assert!(place(after) >= place(before), "a checkpoint went back");
    assert!(after.head.epoch_chain.starts_with(&before.head.epoch_chain), "the past was rewritten");
}

fn check_records(records: &PartitionRecords) {
    let head = &records.head;
    let mut expected = records.segments.first_key_value().map_or(head.sealed_end, |(base_offset, _)| *base_offset);
    assert!(expected <= head.sealed_end && expected <= head.log_start.min(head.sealed_end), "records are missing");
    assert!(head.log_start <= head.sealed_end || head.open.is_some());
    let mut open = None;
    for (base_offset, segment) in &records.segments {
        assert_eq!((*base_offset, segment.base_offset), (expected, expected), "segments follow each other");
        assert!(open.is_none(), "only the last segment is open");
        assert!(!records.garbage.contains_key(&segment.file), "{} is garbage and in use", segment.file);
        match segment.end() {
            Some(end) => {
                let bytes = end.position > segment.start_position || segment.compacted;
                assert!(end.offset > expected && bytes, "an empty range was sealed");
                expected = end.offset;
            }
            None => open = Some(segment.file),
        }
    }
    assert_eq!(head.sealed_end, expected);
    assert_eq!(head.open, open);
    let grows = |pair: &[EpochStart]| pair[0].epoch < pair[1].epoch && pair[0].start <= pair[1].start;
    assert!(head.epoch_chain.windows(2).all(grows), "{:?}", head.epoch_chain);
    let last = head.epoch_chain.last();
    assert!(last.is_none_or(|last| last.epoch <= head.epoch && last.start <= head.sealed_end));
    assert!(!head.recovered || last.is_some_and(|last| last.epoch == head.epoch));
}

/// A command as random numbers, made concrete against the records so that about half of them can apply.
#[derive(Debug, Clone)]
struct Draw {
    /// Which of two owners acts, each under the epoch that it last claimed.
    second: bool,
    kind: u8,
    /// Spoils one field of the command if small.
    spoil: u8,
    records: u64,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let draw = (any::<bool>(), 0..26u8, 0..24u8, 0..4u64);
    let draw = draw.prop_map(|(second, kind, spoil, records)| Draw { second, kind, spoil, records });
    prop::collection::vec(draw, 1..120)
}

fn concrete(draw: &Draw, records: &PartitionRecords, epoch: Epoch, nonce: u64) -> PartitionCommandKind {
    let head = &records.head;
    let spoilt = |field: u8| u64::from(draw.spoil == field);
    let found = head.open.unwrap_or(file(epoch.0.max(1), 999));
    let offset = head.sealed_end.0 + draw.records + spoilt(0);
    let end = SegmentEnd { offset: Offset(offset), position: BytePosition(HEADER + draw.records * 10 + spoilt(1)) };
    let seal = head.open.map(|_| end).filter(|_| draw.spoil != 2);
    let node = 1 + u32::from(draw.second);
    match draw.kind {
        0 | 1 => PartitionCommandKind::Claim { owner: owner(node) },
        2 => PartitionCommandKind::RecordFloor { epoch, file: found, floor: BytePosition(draw.records * 100) },
        3..=6 => {
            let start = head.open.map_or(head.sealed_end, |_| end.offset);
            let start = Offset(start.0 + spoilt(3));
            PartitionCommandKind::FinishRecovery { epoch, found: head.open.map(|file| (file, end)), start }
        }
        7..=11 => {
            let base_offset = seal.map_or(head.sealed_end, |end| end.offset);
            let file = file(epoch.0 + u32::from(draw.spoil == 4), nonce);
            open_segment(epoch, file, Offset(base_offset.0 + spoilt(5)), seal)
        }
        12 | 13 => PartitionCommandKind::SealSegment { epoch, file: found, end },
        14 | 15 => {
            let nth = records.segments.values().nth(draw.records as usize);
            let (base_offset, file) = nth.map_or((Offset(1), found), |segment| (segment.base_offset, segment.file));
            PartitionCommandKind::CloseSegment { epoch, base_offset, file, max_timestamp_ms: None }
        }
        16 => {
            let checkpoint = Checkpoint { epoch, file: found, position: end.position, offset: end.offset };
            PartitionCommandKind::Checkpoint { checkpoint }
        }
        17 | 18 => PartitionCommandKind::Release { epoch },
        22..=25 => {
            let named = records.segments.values().take(1 + draw.records as usize / 2);
            let replaced = named.map(|segment| (segment.base_offset, segment.file)).collect();
            let file = file(epoch.0 + u32::from(draw.spoil == 7), nonce);
            replace_segments(epoch, replaced, file)
        }
        19 | 20 => {
            let nth = records.segments.values().nth(draw.records as usize);
            let log_start = nth.and_then(SegmentRecord::end).map_or(head.sealed_end, |end| end.offset);
            PartitionCommandKind::MoveLogStart {
                epoch,
                log_start: Offset(log_start.0 + spoilt(6)),
                drop_below: log_start,
            }
        }
        _ => {
            let file = records.garbage.keys().next().copied().unwrap_or(found);
            PartitionCommandKind::ForgetGarbage { epoch, file }
        }
    }
}

/// Commands that were applied, and how many kinds of them.
fn run_all(draws: &[Draw]) -> std::collections::BTreeMap<&'static str, usize> {
    let mut world = World::default();
    let mut epochs = [Epoch(1), Epoch(1)];
    let mut applied = std::collections::BTreeMap::new();
    for draw in draws {
        let actor = usize::from(draw.second);
        let kind = concrete(draw, &world.records, epochs[actor], world.last_nonce + 1);
        let before = world.records.clone();
        match world.run_as(1 + u32::from(draw.second), kind.clone()) {
            Ok(changes) if changes.is_empty() => assert_eq!(before, world.records),
            Ok(_) => {
                *applied.entry(kind.name()).or_default() += 1;
                if let PartitionCommandKind::Claim { .. } = kind {
                    epochs[actor] = world.records.head.epoch;
                }
                check_repeats(&mut world, &kind);
            }
            Err(error) => {
                assert_eq!(error.happened, Happened::NotApplied);
                assert_eq!(before, world.records);
            }
        }
    }
    applied
}

/// A command that came once comes again: by the same nonce, and (a claim apart) by its content alone.
fn check_repeats(world: &mut World, kind: &PartitionCommandKind) {
    let after = world.records.clone();
    let same = command(world.last_nonce, kind.clone());
    let view = answer(&after, &same);
    let again = apply(&after, None, &same);
    if !matches!(kind, PartitionCommandKind::Checkpoint { .. }) {
        assert_eq!(again, Ok(Changes::default()));
    }
    if matches!(kind, PartitionCommandKind::Claim { .. }) {
        return;
    }
    // `Release` ends the claim under which a seal may be repeated; nothing else does.
    let content = world.run(kind.clone());
    assert_eq!(content, Ok(Changes::default()), "{kind:?} applied twice");
    assert_eq!(answer(&world.records, &same), view);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn random_commands_of_two_owners_keep_the_invariants(draws in draws()) {
        run_all(&draws);
    }
}

#[test]
fn the_random_commands_reach_every_kind() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut applied = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let draws = draws().new_tree(&mut runner).unwrap().current();
        run_all(&draws).into_iter().for_each(|(kind, count)| *applied.entry(kind).or_insert(0) += count);
    }
    assert_eq!(applied.len(), 11, "{applied:?}");
    assert!(applied.values().all(|count| *count >= 20), "{applied:?}");
}

#[test]
fn a_partition_lives_through_claim_roll_and_release() {
    let mut world = World::default();
    let first = world.ready();
    world.open(first, 1, None).unwrap();
    world.open(first, 2, Some(end(5))).unwrap();
    world.run(close_segment(first, 0, file(1, 1))).unwrap();

    let second = world.claim();
    assert_eq!(world.records.head.open, Some(file(1, 2)), "a claim leaves open what was open");
    assert!(!world.records.head.recovered);
    let floor = BytePosition(700);
    world.run(PartitionCommandKind::RecordFloor { epoch: second, file: file(1, 2), floor }).unwrap();
    let found = Some((file(1, 2), end(9)));
    world.run(PartitionCommandKind::FinishRecovery { epoch: second, found, start: Offset(9) }).unwrap();
    assert_eq!(world.records.segments[&Offset(5)].floor, Some(floor));
    assert_eq!(world.records.segments[&Offset(5)].state, SegmentState::Sealed { end: end(9) });
    let chain: Vec<_> = world.records.head.epoch_chain.iter().map(|it| (it.epoch.0, it.start.0)).collect();
    assert_eq!(chain, [(1, 0), (2, 9)]);

    world.run(PartitionCommandKind::Release { epoch: second }).unwrap();
    assert_eq!(world.records.head.owner, None);
    let refused = world.open(second, 3, None).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotOwner);
}

#[test]
fn an_empty_range_becomes_garbage() {
    let mut world = World::default();
    let epoch = world.ready();
    world.open(epoch, 1, None).unwrap();
    world.open(epoch, 2, Some(SegmentEnd { offset: Offset(0), position: BytePosition(HEADER) })).unwrap();
    assert_eq!(world.records.segments.len(), 1);
    assert_eq!(world.records.segments[&Offset(0)].file, file(1, 2));
    assert!(world.records.garbage.contains_key(&file(1, 1)));
    let refused = world.open(epoch, 1, Some(end(5))).unwrap_err();
    assert!(refused.message.contains("is garbage"), "{refused}");
    world.run(PartitionCommandKind::ForgetGarbage { epoch, file: file(1, 1) }).unwrap();
    assert!(world.records.garbage.is_empty());
}

#[test]
fn refusals_name_their_reason() {
    let mut world = World::default();
    let check = |result: Result<Changes, ServiceError>, code: ErrorCode, text: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(text), "no `{text}` in: {error}");
    };
    let other = PartitionCommandKind::Claim { owner: owner(2) };
    check(world.run(other), ErrorCode::NotOwner, "meant for node 1, not for 2");
    let nobody = apply(&world.records, None, &command(5, PartitionCommandKind::Claim { owner: owner(2) }));
    check(nobody, ErrorCode::NotOwner, "meant for no node");
    let epoch = world.claim();
    check(world.open(epoch, 1, None), ErrorCode::Conflict, "not recovered yet");
    let finish = |start| PartitionCommandKind::FinishRecovery { epoch, found: None, start };
    check(world.run(finish(Offset(3))), ErrorCode::InvalidArgument, "the log ends at 0");
    world.run(finish(Offset(0))).unwrap();
    check(world.open(Epoch(9), 1, None), ErrorCode::Fenced, "epoch 9, but the partition is at epoch 1");
    check(world.run(open_segment(epoch, file(3, 1), Offset(0), None)), ErrorCode::InvalidArgument, "created under");
    world.open(epoch, 1, None).unwrap();
    check(world.open(epoch, 2, None), ErrorCode::Conflict, "has no end given");
    check(world.run(PartitionCommandKind::Release { epoch }), ErrorCode::Conflict, "seal it first");
    let seal = |offset, position| {
        let end = SegmentEnd { offset: Offset(offset), position: BytePosition(position) };
        PartitionCommandKind::SealSegment { epoch, file: file(1, 1), end }
    };
    check(world.run(seal(4, HEADER)), ErrorCode::InvalidArgument, "offsets in no bytes");
    check(world.run(seal(4, 10)), ErrorCode::InvalidArgument, "cannot end at");
    world.run(seal(4, 900)).unwrap();
    check(world.run(seal(5, 950)), ErrorCode::Conflict, "not the open segment");
    let none = command(0, PartitionCommandKind::Release { epoch });
    check(apply(&world.records, None, &none), ErrorCode::InvalidArgument, "nonce");
}

#[test]
fn a_repeat_that_others_overtook_is_still_known() {
    let mut world = World::default();
    let epoch = world.ready();
    world.open(epoch, 1, None).unwrap();
    let roll = open_segment(epoch, file(1, 2), Offset(5), Some(end(5)));
    world.run(roll.clone()).unwrap();
    world.run(close_segment(epoch, 0, file(1, 1))).unwrap();
    assert_eq!(world.run(roll.clone()), Ok(Changes::default()));
    let view = answer(&world.records, &command(99, roll));
    assert_eq!(view.segments.iter().map(|it| it.file).collect::<Vec<_>>(), [file(1, 1), file(1, 2)]);
}

#[test]
fn what_a_command_needs_is_enough_for_it() {
    let mut world = World::default();
    let epoch = world.ready();
    world.open(epoch, 1, None).unwrap();
    for nonce in 2..6 {
        world.open(epoch, nonce, Some(end(nonce * 5))).unwrap();
    }
    let full = world.records.clone();
    let commands = [
        open_segment(epoch, file(1, 6), Offset(30), Some(end(30))),
        open_segment(epoch, file(1, 5), Offset(25), Some(end(25))),
        PartitionCommandKind::SealSegment { epoch, file: file(1, 5), end: end(30) },
        close_segment(epoch, 10, file(1, 2)),
        PartitionCommandKind::MoveLogStart { epoch, log_start: Offset(12), drop_below: Offset(12) },
        replace_segments(epoch, vec![(Offset(0), file(1, 1)), (Offset(10), file(1, 2))], file(1, 9)),
        PartitionCommandKind::RecordFloor { epoch, file: file(1, 5), floor: BytePosition(600) },
    ];
    for kind in commands {
        let mut part = full.clone();
        match needs(&kind).segments {
            NeededSegments::All => {}
            NeededSegments::None => part.segments.retain(|base_offset, _| *base_offset == full.head.sealed_end),
            NeededSegments::First(limit) => {
                let first: Vec<_> = full.segments.keys().take(limit).copied().collect();
                part.segments.retain(|it, _| first.contains(it) || *it == full.head.sealed_end);
            }
            NeededSegments::Between(first, last) => {
                part.segments.retain(|it, _| (first..=last).contains(it) || *it == full.head.sealed_end);
            }
            NeededSegments::At(at) => part.segments.retain(|it, _| *it == at || *it == full.head.sealed_end),
            NeededSegments::LastUpTo(offset) => {
                let last: Vec<_> = full.segments.range(..=offset).rev().take(2).map(|(it, _)| *it).collect();
                part.segments.retain(|it, _| last.contains(it) || *it == full.head.sealed_end);
            }
        }
        let command = command(1_000, kind);
        assert_eq!(apply(&part, None, &command), apply(&full, None, &command), "{command:?}");
        assert_eq!(answer(&part, &command), answer(&full, &command), "{command:?}");
    }
}

#[test]
#[cfg(feature = "mutants")]
fn each_epoch_compare_can_be_dropped_and_is_missed() {
    let mut world = World::default();
    let first = world.ready();
    world.open(first, 1, None).unwrap();
    world.run(PartitionCommandKind::Claim { owner: owner(1) }).unwrap();
    let stale = command(50, PartitionCommandKind::SealSegment { epoch: first, file: file(1, 1), end: end(5) });
    assert_eq!(apply(&world.records, None, &stale).unwrap_err().code, ErrorCode::Fenced);
    mutant::activate(Some("drop-epoch-compare-open_segment"));
    assert_eq!(apply(&world.records, None, &stale).unwrap_err().code, ErrorCode::Fenced);
    mutant::activate(Some("drop-epoch-compare-seal_segment"));
    assert!(apply(&world.records, None, &stale).is_ok());
    mutant::activate(None);
}
