//! Rings and tails over gaps, new epochs and wrong answers.

use bmq_proto::broker::{PartitionBounds, TailEvent};
use bmq_proto::record_batch::{BatchBuilder, Codec, patch_assigned};
use bmq_proto::{Epoch, Offset};
use bytes::Bytes;

use super::ring::{PushError, Ring};
use super::tail::{Readable, Tail, TailError};

const PLENTY: usize = 1 << 20;

/// One batch of the given offsets.
fn batch(offsets: std::ops::Range<u64>) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 1);
    for _ in offsets.clone() {
        builder.append(1, None, Some(b"some value"), &[]).unwrap();
    }
    let mut batch = builder.build().to_vec();
    patch_assigned(&mut batch, Offset(offsets.start), Epoch(1));
    batch.into()
}

fn batches(offsets: &[std::ops::Range<u64>]) -> Bytes {
    offsets.iter().map(|range| batch(range.clone())).collect::<Vec<_>>().concat().into()
}

/// 10..12, 12..15 | 15..16 | 16..20
fn ring() -> Ring {
    let mut ring = Ring::new(Offset(10));
    ring.push(Offset(10), Offset(15), batches(&[10..12, 12..15])).unwrap();
    ring.push(Offset(15), Offset(16), batch(15..16)).unwrap();
    ring.push(Offset(16), Offset(20), batch(16..20)).unwrap();
    ring
}

#[test]
fn a_ring_is_read_by_whole_batches() {
    let ring = ring();
    let check = |offset: u64, max_bytes: usize, expect: &[std::ops::Range<u64>]| {
        let slice = ring.read(Offset(offset), max_bytes).unwrap();
        assert_eq!(slice.batches, batches(expect), "{offset}, {max_bytes}");
        assert_eq!(slice.next_offset.0, expect.last().unwrap().end);
    };
    check(10, PLENTY, &[10..12, 12..15, 15..16, 16..20]);
    check(13, PLENTY, &[12..15, 15..16, 16..20]);
    check(13, 1, std::slice::from_ref(&(12..15)));
    check(10, batches(&[10..12, 12..15, 15..16]).len(), &[10..12, 12..15, 15..16]);
    check(19, PLENTY, std::slice::from_ref(&(16..20)));
    assert_eq!(ring.read(Offset(9), PLENTY), None);
    assert_eq!(ring.read(Offset(20), PLENTY), None);
    assert_eq!(ring.bytes_from(Offset(13)), Some(batches(&[12..15, 15..16, 16..20]).len() as u64));
    assert_eq!(ring.bytes_from(Offset(20)), Some(0));
    assert_eq!(ring.bytes_from(Offset(21)), None);
}

#[test]
fn a_ring_forgets_the_oldest_first_and_keeps_the_newest() {
    let mut ring = ring();
    ring.shrink_to(batches(&[15..16, 16..20]).len());
    assert_eq!(ring.range(), Offset(15)..Offset(20));
    ring.shrink_to(0);
    assert_eq!((ring.range(), ring.held()), (Offset(16)..Offset(20), batch(16..20).len()));
}

#[test]
fn a_ring_takes_only_what_continues_it() {
    let mut ring = ring();
    assert!(matches!(ring.push(Offset(21), Offset(22), batch(21..22)), Err(PushError::Gap { .. })));
    assert!(matches!(ring.push(Offset(20), Offset(21), batch(20..22)), Err(PushError::Mismatch { .. })));
    assert!(matches!(ring.push(Offset(20), Offset(21), batch(19..21)), Err(PushError::Mismatch { .. })));
    assert!(matches!(ring.push(Offset(20), Offset(21), Bytes::new()), Err(PushError::Mismatch { .. })));
    let cut = batch(20..21).slice(..70);
    assert!(matches!(ring.push(Offset(20), Offset(21), cut), Err(PushError::Batch(_))));
    assert_eq!(ring.range(), Offset(10)..Offset(20));
}

#[test]
fn a_ring_is_cut_above_an_offset() {
    let mut ring = ring();
    ring.truncate(Offset(16));
    assert_eq!(ring.range(), Offset(10)..Offset(16));
    ring.truncate(Offset(12));
    assert_eq!((ring.range(), ring.held()), (Offset(10)..Offset(10), 0));
    ring.truncate(Offset(3));
    assert_eq!(ring.range(), Offset(10)..Offset(10), "an empty ring begins where its reader is");
}

fn event(epoch: u32, base: u64, next: u64, high_watermark: u64) -> TailEvent {
    let bounds =
        PartitionBounds { epoch: Epoch(epoch), log_start: Offset::ZERO, high_watermark: Offset(high_watermark) };
    let batches = if base == next { Bytes::new() } else { batch(base..next) };
    TailEvent { bounds, base_offset: Offset(base), next_offset: Offset(next), batches }
}

fn followed() -> Tail {
    let mut tail = Tail::new(Offset(10));
    assert_eq!(tail.begin(Epoch(1), Offset::ZERO), Offset(10));
    tail.apply(event(1, 10, 12, 12), PLENTY).unwrap();
    tail
}

#[test]
fn a_gap_begins_the_ring_anew() {
    let mut tail = followed();
    tail.apply(event(1, 15, 16, 16), PLENTY).unwrap();
    assert_eq!(tail.live(Epoch(1)).unwrap().ring, Offset(15)..Offset(16));
}

#[test]
fn a_new_epoch_cuts_what_lies_above_its_start() {
    let mut tail = followed();
    tail.apply(event(1, 12, 14, 14), PLENTY).unwrap();
    tail.end(false);
    assert!(tail.live(Epoch(1)).is_none(), "not followed just now");
    assert_eq!(tail.begin(Epoch(2), Offset(13)), Offset(12));
    tail.apply(event(2, 12, 14, 14), PLENTY).unwrap();
    assert_eq!(tail.live(Epoch(2)).unwrap().ring, Offset(10)..Offset(14));
    assert!(tail.live(Epoch(3)).is_none(), "a newer epoch is known");
}

#[test]
fn what_cannot_be_true_is_not_taken() {
    let mut tail = followed();
    assert!(matches!(tail.apply(event(2, 12, 13, 13), PLENTY), Err(TailError::OtherEpoch { .. })));
    assert!(matches!(tail.apply(event(1, 12, 14, 13), PLENTY), Err(TailError::AboveHighWatermark { .. })));
    assert!(matches!(
        tail.apply(event(1, 12, 12, 11), PLENTY),
        Err(TailError::WentBack { .. }) | Err(TailError::AboveHighWatermark { .. })
    ));
    assert_eq!(tail.live(Epoch(1)).unwrap().ring, Offset(10)..Offset(12));
}

#[test]
fn readers_are_woken_when_their_bytes_are_there() {
    let mut tail = followed();
    let size = batch(12..13).len() as u64;
    assert!(matches!(tail.wait(Offset(11), 1), Readable::Now));
    assert!(matches!(tail.wait(Offset(5), 1), Readable::Now), "elsewhere");
    let wait = |tail: &mut Tail, offset: u64, min_bytes: u64| match tail.wait(Offset(offset), min_bytes) {
        Readable::Later(number, woken) => (number, woken),
        Readable::Now => panic!("there is nothing yet"),
    };
    let (_, mut soon) = wait(&mut tail, 12, 1);
    let (_, mut later) = wait(&mut tail, 12, size + 1);
    let (number, gone) = wait(&mut tail, 12, 1);
    let (_, mut ahead) = wait(&mut tail, 13, 1);
    drop(gone);
    tail.leave(number);
    tail.apply(event(1, 12, 13, 13), PLENTY).unwrap();
    assert!(soon.try_recv().is_ok() && later.try_recv().is_err() && ahead.try_recv().is_err());
    tail.apply(event(1, 13, 14, 14), PLENTY).unwrap();
    assert!(later.try_recv().is_ok() && ahead.try_recv().is_ok());
    let (_, mut last) = wait(&mut tail, 14, 1);
    tail.close();
    assert!(last.try_recv().is_ok());
    assert!(matches!(tail.wait(Offset(14), 1), Readable::Now), "nobody waits for a closed tail");
}
