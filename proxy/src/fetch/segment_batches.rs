//! Takes whole batches out of bytes of a CLOSED segment, and notices every byte that is not as it was written. Pure.
//!
//! The CRC covers a batch from its attributes on. Before that stand the base offset, which continues the batch
//! before; the leader epoch, which is the segment's; and the length, without which the CRC would not fit. In a file
//! that compaction wrote offsets have gaps and epochs are older, so there only the chunk's checksum covers these two.

use bmq_proto::record_batch::{BatchError, BatchHeader, HEADER_LEN, verify_crc};
use bmq_proto::{Epoch, Offset};
use bytes::Bytes;

/// What is known of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Their checksum was compared: they are what was written.
    Checked,
    /// Nothing; the file's batches follow each other without gaps, under one epoch.
    Contiguous { epoch: Epoch },
    /// Nothing; the file was written by compaction under this epoch.
    Compacted { epoch: Epoch },
}

/// What is sought, and where the bytes stand.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Base offset of the batch that the bytes begin with, or the lowest that it can have.
    pub expected: Offset,
    /// Batches that end at or below this offset are passed over.
    pub offset: Offset,
    pub trust: Trust,
    /// At least one batch is taken, and no more than this many bytes of several.
    pub max_bytes: usize,
    /// Bytes from the first one given to the segment's end: no batch goes beyond.
    pub remaining: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Taken {
    pub batches: Bytes,
    /// Bytes that are done with, whether passed over or taken.
    pub consumed: usize,
    /// Base offset of the batch after those.
    pub expected: Offset,
    pub stop: Stop,
}

/// Why no more was taken.
#[derive(Debug)]
pub enum Stop {
    /// `max_bytes` are reached.
    Full,
    /// The bytes given end; the next batch needs at least this many from where it begins.
    Cut { needed: usize },
    /// The batch that begins at this byte is not as it was written.
    Damaged { at: usize, reason: String },
}

/// Takes batches from the front of `bytes`.
pub fn take_batches(bytes: &Bytes, wanted: Wanted) -> Taken {
    let mut expected = wanted.expected;
    let (mut start, mut end) = (0, 0);
    let stop = loop {
        let header = match check_batch(bytes, end, expected, wanted) {
            Ok(header) => header,
            Err(Flaw::Cut { needed }) => break Stop::Cut { needed },
            Err(Flaw::Damaged { reason }) if start == end => match find_intact(bytes, end + 1, wanted) {
                Some((at, base)) => {
                    (start, end, expected) = (at, at, base);
                    continue;
                }
                None => break Stop::Damaged { at: end, reason },
            },
            Err(Flaw::Damaged { reason }) => break Stop::Damaged { at: end, reason },
        };
        let length = header.total_len();
        let is_wanted = header.next_offset() > wanted.offset;
        if is_wanted && start < end && end - start + length > wanted.max_bytes {
            break Stop::Full;
        }
        end += length;
        expected = header.next_offset();
        if !is_wanted {
            start = end;
        }
    };
    Taken { batches: bytes.slice(start..end), consumed: end, expected, stop }
}

enum Flaw {
    Cut { needed: usize },
    Damaged { reason: String },
}

fn check_batch(bytes: &Bytes, at: usize, expected: Offset, wanted: Wanted) -> Result<BatchHeader, Flaw> {
    let damaged = |reason: String| Flaw::Damaged { reason };
    let rest = &bytes[at..];
    let remaining = wanted.remaining - at as u64;
    let header = match BatchHeader::parse(rest) {
        Ok(header) => header,
        Err(BatchError::Truncated { .. }) if remaining >= HEADER_LEN as u64 || remaining == 0 => {
            return Err(Flaw::Cut { needed: HEADER_LEN });
        }
        Err(error) => return Err(damaged(error.to_string())),
    };
    let length = header.total_len();
    if length as u64 > remaining {
        return Err(damaged(format!("batch has {length} bytes, its segment ends after {remaining}")));
    }
    check_place(&header, expected, wanted.trust).map_err(damaged)?;
    if length > rest.len() {
        return Err(Flaw::Cut { needed: length });
    }
    if wanted.trust != Trust::Checked {
        verify_crc(&rest[..length]).map_err(|error| damaged(error.to_string()))?;
    }
    Ok(header)
}

/// Whether the header names an offset and an epoch that it can have at its place; says what is wrong otherwise.
fn check_place(header: &BatchHeader, expected: Offset, trust: Trust) -> Result<(), String> {
    let base = header.base_offset();
    let epoch_text = || header.leader_epoch().map_or("none".to_owned(), |epoch| epoch.to_string());
    match trust {
        Trust::Contiguous { .. } if base != expected => {
            return Err(format!("batch begins at offset {base}, expected {expected}"));
        }
        Trust::Contiguous { epoch } if header.leader_epoch() != Some(epoch) => {
            return Err(format!("batch has leader epoch {}, its segment {epoch}", epoch_text()));
        }
        Trust::Compacted { epoch } if header.leader_epoch().is_none_or(|found| found > epoch) => {
            return Err(format!("batch has leader epoch {}, its segment {epoch}", epoch_text()));
        }
        // Going back would be a loop, whoever wrote it.
        _ if base < expected => return Err(format!("batch begins at offset {base}, before {expected}")),
        _ => {}
    }
    Ok(())
}

/// Finds the batch that holds the offset wanted behind a damaged one, whose length may be wrong.
fn find_intact(bytes: &Bytes, from: usize, wanted: Wanted) -> Option<(usize, Offset)> {
    let last = bytes.len().checked_sub(HEADER_LEN)?;
    (from..=last).find_map(|at| {
        // Few places look like a header, and fewer name the right offset; only those are worth a checksum.
        let header = BatchHeader::parse(&bytes[at..]).ok()?;
        let base = header.base_offset();
        let is_it = base <= wanted.offset && wanted.offset < header.next_offset();
        (is_it && check_batch(bytes, at, base, wanted).is_ok()).then_some((at, base))
    })
}

#[cfg(test)]
mod tests {
    use bmq_proto::record_batch::{BatchBuilder, Codec, patch_assigned};

    use super::*;

    const EPOCH: Epoch = Epoch(3);
    const TRUST: Trust = Trust::Contiguous { epoch: EPOCH };

    fn batch(base: u64, records: u32) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::None, 1_000);
        for number in 0..records {
            builder.append(1_000, None, Some(format!("value {number} of {base}").as_bytes()), &[]).unwrap();
        }
        let mut batch = builder.build().to_vec();
        patch_assigned(&mut batch, Offset(base), EPOCH);
        batch.into()
    }

    /// Three batches: 10..12, 12..15, 15..16.
    fn three() -> (Bytes, [usize; 4]) {
        let batches = [batch(10, 2), batch(12, 3), batch(15, 1)];
        let (a, b, c) = (batches[0].len(), batches[1].len(), batches[2].len());
        (batches.concat().into(), [0, a, a + b, a + b + c])
    }

    fn take(bytes: &Bytes, offset: u64, max_bytes: usize) -> Taken {
        let remaining = bytes.len() as u64;
        take_batches(bytes, Wanted { expected: Offset(10), offset: Offset(offset), trust: TRUST, max_bytes, remaining })
    }

    #[test]
    fn takes_what_is_wanted() {
        let (bytes, ends) = three();
        let all = take(&bytes, 10, 1 << 20);
        assert_eq!((all.batches, all.consumed, all.expected), (bytes.clone(), ends[3], Offset(16)));
        assert!(matches!(all.stop, Stop::Cut { needed: HEADER_LEN }));
        let second = take(&bytes, 14, 1);
        assert_eq!(
            (second.batches, second.consumed, second.expected),
            (bytes.slice(ends[1]..ends[2]), ends[2], Offset(15))
        );
        assert!(matches!(second.stop, Stop::Full));
        let cut = take_batches(
            &bytes.slice(..ends[2] + 70),
            Wanted {
                expected: Offset(10),
                offset: Offset(15),
                trust: TRUST,
                max_bytes: 1,
                remaining: bytes.len() as u64,
            },
        );
        assert!(cut.batches.is_empty() && cut.consumed == ends[2]);
        assert!(matches!(cut.stop, Stop::Cut { needed } if needed == ends[3] - ends[2]));
    }

    #[test]
    fn a_compacted_file_may_have_gaps_but_not_go_back() {
        let batches: Bytes = [batch(10, 2), batch(20, 1), batch(19, 1)].concat().into();
        let trusts = [Trust::Checked, Trust::Compacted { epoch: EPOCH.next() }];
        for trust in trusts {
            let remaining = batches.len() as u64;
            let wanted = Wanted { expected: Offset(10), offset: Offset(12), trust, max_bytes: 1 << 20, remaining };
            let taken = take_batches(&batches, wanted);
            assert_eq!(taken.expected, Offset(21), "{trust:?}");
            assert!(matches!(taken.stop, Stop::Damaged { .. }), "{trust:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_costs_one_batch_only() {
        let (bytes, ends) = three();
        for byte in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[byte] ^= 1 << (byte % 8);
            let flipped = Bytes::from(flipped);
            for (number, offset) in [10, 12, 15].into_iter().enumerate() {
                let taken = take(&flipped, offset, 1);
                let range = ends[number]..ends[number + 1];
                if range.contains(&byte) {
                    assert!(taken.batches.is_empty(), "byte {byte}, offset {offset}");
                    assert!(matches!(taken.stop, Stop::Damaged { at, .. } if at == range.start), "{:?}", taken.stop);
                } else {
                    assert_eq!(taken.batches, bytes.slice(range), "byte {byte}, offset {offset}");
                }
            }
        }
    }
}
