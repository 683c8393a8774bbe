//! The index against its bytes: round trips, damage, lookups.

use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, Offset, PartitionId, TopicId, TopicPartition};
use proptest::prelude::*;

use super::{CHUNK_LEN, ChunkError, IndexBuilder, IndexedBatch, SegmentIndex};
use crate::segment::{FIRST_BATCH_POSITION, SegmentHeader};
use crate::{FolderPath, ProducerBatch, ProducerEntry, ProducerSnapshot, SegmentPath, StoreError};

fn path() -> SegmentPath {
    let partition = TopicPartition { topic: TopicId([2; 16]), partition: PartitionId(3) };
    FolderPath::new(ClusterId([1; 16]), partition).segment(FileId { epoch: Epoch(4), nonce: 5 })
}

fn producers() -> ProducerSnapshot {
    let batch = |n: i32| ProducerBatch {
        base_sequence: n,
        last_sequence: n + 1,
        base_offset: Offset(n as u64),
        record_count: 2,
    };
    let entry = |producer_id, count| ProducerEntry {
        producer_id,
        producer_epoch: 7,
        last_timestamp_ms: -1,
        batches: (0..count).map(batch).collect(),
    };
    ProducerSnapshot::new(vec![entry(9, 5), entry(-4, 0), entry(8, 1)])
}

/// A batch as the model keeps it: where it stands, and what it says.
#[derive(Debug, Clone, Copy)]
struct Placed {
    batch: IndexedBatch,
    position: BytePosition,
}

/// Builds a file and its index from (gap before, records, timestamp, length) of each batch.
fn build(base: u64, batches: &[(u64, u64, i64, usize)]) -> (Vec<u8>, Vec<Placed>, SegmentIndex) {
    let mut file = SegmentHeader::of(path()).encode().to_vec();
    let mut builder = IndexBuilder::new(path(), Offset(base));
    let mut placed = Vec::new();
    for (gap, records, max_timestamp_ms, length) in batches {
        let base_offset = builder.next_offset().plus(*gap);
        let batch =
            IndexedBatch { base_offset, next_offset: base_offset.plus(*records), max_timestamp_ms: *max_timestamp_ms };
        placed.push(Placed { batch, position: builder.position() });
        let bytes = vec![placed.len() as u8; *length];
        builder.add_batch(batch, &bytes);
        file.extend(bytes);
    }
    (file, placed, builder.finish(producers()))
}

fn some_batches() -> impl Strategy<Value = Vec<(u64, u64, i64, usize)>> {
    prop::collection::vec((0..3_u64, 1..50_u64, -1..5_000_i64, 1..200_000_usize), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_index_reads_back_and_finds_what_a_full_scan_finds(base in 0..1_000_u64, batches in some_batches()) {
        let (file, placed, index) = build(base, &batches);
        let decoded = SegmentIndex::decode(&index.encode(), path()).unwrap();
        prop_assert_eq!(&decoded, &index);
        prop_assert_eq!(index.end_position, BytePosition(file.len() as u64));
        for Placed { batch, position } in &placed {
            for offset in [batch.base_offset, Offset(batch.next_offset.0 - 1)] {
                let found = index.lookup_offset(offset);
                prop_assert!(found <= *position && position.since(found) < super::ENTRY_STEP + 200_000);
                prop_assert!(found == FIRST_BATCH_POSITION || placed.iter().any(|other| other.position == found));
            }
        }
        for timestamp in [-2, -1, 0, 1, 500, 2_500, 4_999, 5_000, i64::MIN, i64::MAX] {
            let found = index.lookup_time(timestamp);
            let expected = placed.iter().find(|placed| placed.batch.max_timestamp_ms >= timestamp);
            match expected {
                Some(first) => prop_assert!(found <= first.batch.base_offset),
                None => prop_assert!(found == index.end_offset || placed.is_empty()),
            }
        }
    }

    #[test]
    fn chunks_are_checked(batches in some_batches(), flip in any::<prop::sample::Index>()) {
        let (mut file, _, index) = build(0, &batches);
        let chunk = |file: &[u8], number: usize| {
            let range = index.chunk_range(number);
            file[range.start.0 as usize..range.end.0 as usize].to_vec()
        };
        for number in 0..index.chunks() {
            prop_assert_eq!(index.check_chunk(number, &chunk(&file, number)), Ok(()));
        }
        let at = flip.index(file.len());
        file[at] ^= 0x10;
        let damaged = chunk(&file, at / CHUNK_LEN);
        let noticed = matches!(index.check_chunk(at / CHUNK_LEN, &damaged), Err(ChunkError::Checksum { .. }));
        prop_assert!(noticed);
        let short = matches!(index.check_chunk(at / CHUNK_LEN, &damaged[1..]), Err(ChunkError::Length { .. }));
        prop_assert!(short);
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(SegmentIndex::decode(&bytes, path()).is_err());
    }

    /// Damage under a checksum that was made to fit: the decoder may accept what is still an index, and nothing else.
    #[test]
    fn no_content_is_too_strange(
        batches in some_batches(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let (_, _, index) = build(0, &batches);
        let encoded = index.encode();
        let mut content = encoded[..encoded.len() - 4].to_vec();
        if cut {
            content.truncate(length.index(content.len()));
        }
        for (at, value) in changes {
            if !content.is_empty() {
                let at = at.index(content.len());
                content[at] = value;
            }
        }
        let checksum = crc32fast::hash(&content).to_be_bytes();
        content.extend(checksum);
        if let Ok(decoded) = SegmentIndex::decode(&content, path()) {
            prop_assert_eq!(decoded.encode().to_vec(), content);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (_, _, index) = build(10, &[(0, 3, 5, 70_000), (0, 1, 4, 70_000), (2, 1, 9, 1)]);
    let bytes = index.encode().to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = SegmentIndex::decode(&flipped, path()).expect_err("a damaged index is not accepted");
        assert!(matches!(&error, StoreError::Damaged { path: named, .. } if *named == path().index_path()), "{error}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let (_, _, index) = build(10, &[(0, 3, 5, 70_000)]);
    let bytes = index.encode();
    for length in 0..bytes.len() {
        assert!(SegmentIndex::decode(&bytes[..length], path()).is_err(), "{length} bytes");
    }
}

#[test]
fn another_files_index_is_refused() {
    let (_, _, index) = build(0, &[]);
    let other = path().folder.segment(FileId { epoch: Epoch(4), nonce: 6 });
    assert!(SegmentIndex::decode(&index.encode(), other).is_err());
}

#[test]
fn an_empty_segment_has_an_index() {
    let (_, _, index) = build(7, &[]);
    assert_eq!(index.lookup_offset(Offset(7)), FIRST_BATCH_POSITION);
    assert_eq!((index.lookup_time(0), index.max_timestamp_ms(), index.chunks()), (Offset(7), None, 1));
}
