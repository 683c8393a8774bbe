//! What is built reads back the same, wherever it was in between.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::ids::Epoch;

const LIMITS: BatchLimits = BatchLimits { max_batch_bytes: 1 << 20 };

fn read(batch: &Bytes) -> Vec<Record> {
    records(batch, &RecordLimits::default()).unwrap().map(Result::unwrap).collect()
}

fn concatenated(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}

fn lies_inside(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    whole.start <= part.start && part.end <= whole.end
}

proptest! {
    #[test]
    fn records_come_back_in_order_at_their_offsets(
        codec in any_codec(),
        inputs in any_inputs(),
        base_timestamp: i64,
        producer in prop::option::of((0..=i64::MAX, 0..=i16::MAX, 0..=i32::MAX)),
        base_offset in 0..i64::MAX as u64 - 100,
        epoch in 0..=i32::MAX as u32,
    ) {
        let mut builder = BatchBuilder::new(codec, base_timestamp);
        if let Some((id, epoch, sequence)) = producer {
            builder.set_producer(ProducerKey { id, epoch }, sequence);
        }
        inputs.iter().for_each(|input| input.append_to(&mut builder));
        let estimated = builder.estimated_len();
        let produced = builder.build();
        if codec == Codec::None {
            prop_assert_eq!(produced.len(), estimated);
        }

        let header = validate_produced(&produced, &LIMITS).unwrap();
        prop_assert_eq!(header.codec(), codec);
        prop_assert_eq!(header.max_timestamp(), inputs.iter().map(|input| input.timestamp).max().unwrap());
        prop_assert_eq!(
            header.producer().map(|key| (key.id, key.epoch, header.base_sequence())),
            producer,
        );

        let stored = assign(produced, Offset(base_offset), Epoch(epoch));
        verify_crc(&stored).unwrap();
        let header = BatchHeader::parse(&stored).unwrap();
        prop_assert_eq!(header.base_offset(), Offset(base_offset));
        prop_assert_eq!(header.leader_epoch(), Some(Epoch(epoch)));
        prop_assert_eq!(header.next_offset(), Offset(base_offset + inputs.len() as u64));
        let expected: Vec<Record> = inputs.iter().zip(base_offset..).map(|(input, offset)| input.at(offset)).collect();
        prop_assert_eq!(read(&stored), expected);
    }

    #[test]
    fn split_gives_back_the_batches_without_copying(
        batches in prop::collection::vec((any_codec(), any_inputs()), 0..5),
    ) {
        let batches: Vec<Bytes> = batches.iter().map(|(codec, inputs)| build(*codec, inputs)).collect();
        let log = concatenated(&batches);
        let mut split = Vec::new();
        for item in split_batches(&log) {
            let (header, batch) = item.unwrap();
            prop_assert_eq!(header.total_len(), batch.len());
            prop_assert!(lies_inside(&batch, &log));
            split.push(batch);
        }
        prop_assert_eq!(split, batches);
    }
}

#[test]
fn records_are_slices_of_an_uncompressed_batch() {
    let batch = sample(Codec::None);
    for record in read(&batch) {
        assert!(lies_inside(&record.value.unwrap(), &batch));
    }
}

#[test]
fn assigns_in_place_when_nobody_else_holds_the_bytes() {
    let batch = Bytes::from(BytesMut::from(&sample(Codec::None)[..]));
    let address = batch.as_ptr();
    assert_eq!(assign(batch, Offset(7), Epoch(3)).as_ptr(), address);
}

#[test]
fn assigns_in_a_copy_when_the_bytes_are_shared() {
    let batch = sample(Codec::None);
    let held = batch.clone();
    let assigned = assign(batch, Offset(7), Epoch(3));
    assert_eq!(held, sample(Codec::None), "the other holder sees no change");
    assert_eq!(BatchHeader::parse(&assigned).unwrap().base_offset(), Offset(7));
}

#[test]
fn compacted_batches_may_have_gaps_or_no_records() {
    let batch = sample(Codec::None);
    let first_end = {
        let (len, len_len) = varint::get(&batch[HEADER_LEN..]).unwrap();
        HEADER_LEN + len_len + len as usize
    };
    let compacted = |kept: &[u8], count: u32| -> Bytes {
        edited(&batch, |bytes| {
            bytes.truncate(HEADER_LEN);
            bytes.extend_from_slice(kept);
            let length = (bytes.len() - LENGTH_PREFIX) as u32;
            bytes[field::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
            bytes[field::RECORD_COUNT..][..4].copy_from_slice(&count.to_be_bytes());
        })
        .into()
    };

    let without_first = compacted(&batch[first_end..], 2);
    let offsets: Vec<Offset> = read(&without_first).iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [Offset(1), Offset(2)]);

    let empty = compacted(&[], 0);
    assert_eq!(read(&empty), []);
    assert_eq!(BatchHeader::parse(&empty).unwrap().next_offset(), Offset(3));
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(add_to_sequence(5, 0), 5);
    assert_eq!(add_to_sequence(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(add_to_sequence(i32::MAX, 1), 0);
    assert_eq!(add_to_sequence(i32::MAX, 3), 2);
}

#[test]
fn record_with_a_timestamp_below_none_is_refused_and_leaves_no_trace() {
    let mut builder = BatchBuilder::new(Codec::None, 0);
    let error = builder.append(-2, None, Some(b"value"), &[]).unwrap_err();
    assert!(matches!(error, BatchError::Invalid { found: -2, .. }), "{error}");
    assert_eq!((builder.record_count(), builder.estimated_len()), (0, HEADER_LEN));
}

#[test]
fn codec_names_parse_back() {
    for codec in Codec::ALL {
        assert_eq!(codec.name().parse(), Ok(codec));
    }
    assert_eq!("lzma".parse::<Codec>().unwrap_err().to_string(), "`lzma` is not a compression codec");
}
