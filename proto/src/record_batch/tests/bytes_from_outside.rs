//! Damaged, cut and hostile bytes: always an error, never a panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const LIMITS: RecordLimits = RecordLimits { max_decompressed_bytes: 64 << 10, max_headers: 100 };

/// Bytes that the CRC does not cover and nothing else can check: base offset and leader epoch.
fn is_patched(at: usize) -> bool {
    (field::BASE_OFFSET..field::LENGTH).contains(&at) || (field::LEADER_EPOCH..field::MAGIC).contains(&at)
}

/// Puts `bytes` through everything that takes bytes, and returns how many records came out.
fn read_all(bytes: &Bytes) -> usize {
    let _ = BatchHeader::parse(bytes);
    let _ = verify_crc(bytes);
    let _ = validate_produced(bytes, &BatchLimits { max_batch_bytes: 1 << 20 });
    let mut count = 0;
    for item in split_batches(bytes) {
        let Ok((header, batch)) = item else { break };
        let Ok(iter) = records(&batch, &LIMITS) else { continue };
        let results: Vec<_> = iter.collect();
        assert!(results.len() <= header.record_count() as usize + 1);
        assert!(results.iter().rev().skip(1).all(Result::is_ok), "an error is the last item");
        count += results.iter().filter(|result| result.is_ok()).count();
    }
    count
}

#[test]
fn every_flipped_bit_is_detected_but_where_we_patch() {
    for codec in Codec::ALL {
        let good = sample(codec);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut batch = good.to_vec();
                batch[at] ^= 1 << bit;
                let negative_offset = at == 0 && bit == 7;
                let passes = is_patched(at) && !negative_offset;
                assert_eq!(verify_crc(&batch).is_ok(), passes, "{codec}, bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn cut_at_any_length_is_cut_short_or_empty() {
    for codec in Codec::ALL {
        let batch = sample(codec);
        let log = Bytes::from([&batch[..], &batch[..]].concat());
        for len in 0..batch.len() {
            let cut = log.slice(..batch.len() + len);
            let mut items = split_batches(&cut);
            assert_eq!(items.next().unwrap().unwrap().1, batch);
            let needed = if len < HEADER_LEN { HEADER_LEN } else { batch.len() };
            match items.next() {
                None => assert_eq!(len, 0),
                Some(Err(BatchError::Truncated { needed: n, have })) => assert_eq!((n, have), (needed, len)),
                other => panic!("{other:?} at length {len}"),
            }
            assert!(items.next().is_none(), "an error is the last item");

            let cut = batch.slice(..len);
            assert!(matches!(verify_crc(&cut), Err(BatchError::Truncated { .. })));
            assert!(matches!(records(&cut, &LIMITS), Err(BatchError::Truncated { .. })));
        }
    }
}

#[test]
fn damage_between_batches_is_corrupt_not_cut_short() {
    let mut log = sample(Codec::None).to_vec();
    log.extend([0; 100]);
    let items: Vec<_> = split_batches(&log.into()).collect();
    assert!(items[0].is_ok());
    assert!(items[1].as_ref().unwrap_err().is_corrupt());
    assert_eq!(items.len(), 2);
}

#[test]
fn decompression_stops_at_the_limit() {
    let zeros = vec![0; 8 << 20];
    for codec in COMPRESSING {
        let mut builder = BatchBuilder::new(codec, 0);
        builder.append(0, None, Some(&zeros), &[]).unwrap();
        let len = builder.estimated_len() - HEADER_LEN;
        let batch = builder.build();
        assert!(batch.len() < 500_000, "{codec} makes a small batch of it");

        let limited = |max| records(&batch, &RecordLimits { max_decompressed_bytes: max, ..LIMITS });
        assert!(matches!(limited(len - 1), Err(BatchError::DecompressedTooLarge { max }) if max == len - 1));
        assert_eq!(limited(len).unwrap().map(Result::unwrap).count(), 1);
        assert!(limited(usize::MAX).is_ok());
    }
}

#[test]
fn codecs_refuse_bytes_that_are_not_theirs() {
    for codec in COMPRESSING {
        let batch = edited(&sample(Codec::None), |batch| batch[field::ATTRIBUTES + 1] = codec as u8);
        let error = records(&batch.into(), &LIMITS).unwrap_err();
        assert_eq!(error.to_string(), format!("batch is corrupt: its records are not valid {codec}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes.into());
    }

    /// Random bytes after a header that is in order, so that they reach the codecs and the record reader.
    #[test]
    fn random_records_do_no_harm(
        codec in any_codec(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        record_count in 0..50_u32,
    ) {
        let batch = edited(&sample(codec), |batch| {
            batch.truncate(HEADER_LEN);
            batch.extend(bytes);
            let length = (batch.len() - LENGTH_PREFIX) as u32;
            batch[field::LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
            batch[field::RECORD_COUNT..][..4].copy_from_slice(&record_count.to_be_bytes());
            batch[field::LAST_OFFSET_DELTA..][..4].copy_from_slice(&49_u32.to_be_bytes());
        });
        read_all(&batch.into());
    }

    /// A good batch with a few bytes changed anywhere, and a CRC that fits.
    #[test]
    fn altered_batches_do_no_harm(
        codec in any_codec(),
        inputs in any_inputs(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let batch = edited(&build(codec, &inputs), |batch| {
            for (at, byte) in changes {
                let at = at.index(batch.len());
                batch[at] = byte;
            }
        });
        read_all(&batch.into());
    }
}
