//! Segments that go as a whole: below the log start, and replaced by compaction.

use super::*;

#[test]
fn the_log_start_moves_and_segments_below_it_go() {
    let mut world = World::default();
    let epoch = world.ready();
    world.open(epoch, 1, None).unwrap();
    for number in 1..=40 {
        world.open(epoch, number + 1, Some(end(number * 10))).unwrap();
        world.run(close_segment(epoch, (number - 1) * 10, file(1, number))).unwrap();
    }
    let shift_and_drop = |log_start, drop_below| PartitionCommandKind::MoveLogStart {
        epoch,
        log_start: Offset(log_start),
        drop_below: Offset(drop_below),
    };
    let shift = |log_start| shift_and_drop(log_start, log_start);
    world.run(shift(15)).unwrap();
    assert_eq!(world.records.segments.first_key_value().unwrap().0, &Offset(10), "15 lies inside this one");
    world.run(shift(12)).unwrap();
    assert_eq!(world.records.head.log_start, Offset(15), "it never goes back");

    world.run(shift(405)).unwrap();
    assert_eq!((world.records.head.log_start, world.records.segments.len()), (Offset(405), 41 - 1 - 32));
    world.run(shift(405)).unwrap();
    let left: Vec<_> = world.records.segments.keys().map(|offset| offset.0).collect();
    assert_eq!(left, [390, 400], "the newest sealed one tells of the producers, the open one is in use");

    let below = PartitionCommandKind::SealSegment { epoch, file: file(1, 41), end: end(404) };
    assert!(world.run(below).unwrap_err().message.contains("the log starts at 405"));
    world.run(PartitionCommandKind::SealSegment { epoch, file: file(1, 41), end: end(405) }).unwrap();
    assert!(world.run(shift(406)).unwrap_err().message.contains("it ends at 405"));
    assert_eq!(world.run(shift_and_drop(405, 390)), Ok(Changes::default()), "the owner still needs that one");
    world.run(close_segment(epoch, 400, file(1, 41))).unwrap();
    world.run(shift(405)).unwrap();
    assert_eq!(world.records.segments.keys().map(|offset| offset.0).collect::<Vec<_>>(), [400]);
}

#[test]
fn a_compacted_segment_takes_the_place_of_closed_ones() {
    let mut world = World::default();
    let epoch = world.ready();
    world.open(epoch, 1, None).unwrap();
    for number in 1..=3 {
        world.open(epoch, number + 1, Some(end(number * 10))).unwrap();
    }
    let both = || vec![(Offset(0), file(1, 1)), (Offset(10), file(1, 2))];
    world.run(close_segment(epoch, 0, file(1, 1))).unwrap();
    let early = world.run(replace_segments(epoch, both(), file(1, 9))).unwrap_err();
    assert!(early.message.contains("is not the closed segment at 10"), "{early}");
    world.run(close_segment(epoch, 10, file(1, 2))).unwrap();
    let gap = vec![(Offset(0), file(1, 1)), (Offset(20), file(1, 3))];
    assert_eq!(world.run(replace_segments(epoch, gap, file(1, 9))).unwrap_err().code, ErrorCode::Conflict);
    let foreign = world.run(replace_segments(epoch, both(), file(2, 9))).unwrap_err();
    assert_eq!(foreign.code, ErrorCode::InvalidArgument);

    world.run(replace_segments(epoch, both(), file(1, 9))).unwrap();
    let new = &world.records.segments[&Offset(0)];
    assert!(new.compacted && new.is_closed() && new.end().unwrap().offset == Offset(20));
    assert_eq!(world.records.garbage.keys().copied().collect::<Vec<_>>(), [file(1, 1), file(1, 2)]);
    assert_eq!(world.run(replace_segments(epoch, both(), file(1, 9))), Ok(Changes::default()));
    let again = world.run(replace_segments(epoch, both(), file(1, 10))).unwrap_err();
    assert_eq!(again.code, ErrorCode::Conflict, "they are not there any more");
}
