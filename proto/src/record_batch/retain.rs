//! A stored batch without some of its records, as compaction leaves it.
//!
//! What is kept stays at its offset, with its timestamp; so do the batch's range of offsets, its leader epoch, its
//! producer and its codec, unless that would make it larger than it was: then Zstandard takes its place. A batch whose
//! records without a value may go at some time carries that time, the delete horizon, in the place of its base
//! timestamp (KIP-534).

use bytes::Bytes;

use super::builder::put_record;
use super::rewrite::{set_attributes, set_crc, set_length};
use super::{
    BatchError, BatchHeader, Codec, HEADER_LEN, Record, RecordLimits, TimestampType, attribute, field, records,
};

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retained {
    /// All of it, as it is.
    Unchanged,
    Nothing,
    Batch(Bytes),
}

/// What becomes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Keep,
    /// Keep it for a time, if the whole batch allows: it has no value, and nothing older of its key is left.
    KeepTombstone,
}

/// Judges every record of the stored `batch` and leaves out what is to be dropped. If `delete_horizon_ms` is given, and
/// every record without a value that is kept may go some time, and there is one, the batch says that it may go then.
///
/// # Errors
/// If the records cannot be read within the limits.
pub fn retain(
    batch: &Bytes,
    limits: &RecordLimits,
    delete_horizon_ms: Option<i64>,
    mut judge: impl FnMut(&BatchHeader, &Record) -> Verdict,
) -> Result<Retained, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut kept = Vec::new();
    let (mut total, mut tombstones, mut may_go) = (0, 0, 0);
    for record in records(batch, limits)? {
        let record = record?;
        total += 1;
        let verdict = judge(&header, &record);
        if verdict == Verdict::Drop {
            continue;
        }
        tombstones += usize::from(record.value.is_none());
        may_go += usize::from(verdict == Verdict::KeepTombstone);
        kept.push(record);
    }
    if kept.is_empty() {
        return Ok(Retained::Nothing);
    }
    let horizon = delete_horizon_ms.filter(|_| !header.has_delete_horizon() && tombstones > 0 && may_go == tombstones);
    if kept.len() == total && horizon.is_none() {
        return Ok(Retained::Unchanged);
    }
    rebuild(batch, &header, &kept, horizon).map(Retained::Batch)
}

fn rebuild(
    batch: &Bytes,
    header: &BatchHeader,
    kept: &[Record],
    delete_horizon_ms: Option<i64>,
) -> Result<Bytes, BatchError> {
    let base_timestamp = delete_horizon_ms.unwrap_or(header.base_timestamp());
    let mut plain = Vec::new();
    for record in kept {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let offset_delta = record.offset.0 - header.base_offset().0;
        let deltas = (record.timestamp.wrapping_sub(base_timestamp), offset_delta as i64);
        put_record(&mut plain, deltas, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    let max_timestamp = match header.timestamp_type() {
        TimestampType::LogAppend => header.max_timestamp(),
        TimestampType::Create => kept.iter().map(|record| record.timestamp).max().unwrap_or(header.max_timestamp()),
    };
    let mut out = compressed(batch, &plain, header.codec());
    // The producer may have compressed harder than we do, and what is stored must fit where it was.
    if out.len() > batch.len() {
        out = compressed(batch, &plain, Codec::Zstd);
    }
    set_length(&mut out)?;
    if delete_horizon_ms.is_some() {
        set_attributes(&mut out, |attributes| attributes | attribute::DELETE_HORIZON);
    }
    out[field::BASE_TIMESTAMP..field::MAX_TIMESTAMP].copy_from_slice(&base_timestamp.to_be_bytes());
    out[field::MAX_TIMESTAMP..field::PRODUCER_ID].copy_from_slice(&max_timestamp.to_be_bytes());
    out[field::RECORD_COUNT..HEADER_LEN].copy_from_slice(&(kept.len() as u32).to_be_bytes());
    set_crc(&mut out);
    Ok(out.into())
}

fn compressed(batch: &Bytes, plain: &[u8], codec: Codec) -> Vec<u8> {
    let mut out = batch[..HEADER_LEN].to_vec();
    codec.compress(plain, &mut out);
    set_attributes(&mut out, |attributes| attributes & !attribute::CODEC | codec as i16);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchBuilder, patch_assigned, verify_crc};
    use crate::{Epoch, Offset};

    const LIMITS: RecordLimits = RecordLimits { max_decompressed_bytes: 1 << 20, max_headers: 10 };

    fn sample(codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new(codec, 1_000);
        for number in 0..10_i64 {
            let value = (number != 7).then_some(&b"value"[..]);
            builder.append(1_000 + number, Some(number.to_string().as_bytes()), value, &[(b"h", None)]).unwrap();
        }
        let mut batch = builder.build().to_vec();
        patch_assigned(&mut batch, Offset(500), Epoch(3));
        batch.into()
    }

    fn read(batch: &Bytes) -> Vec<Record> {
        verify_crc(batch).unwrap();
        records(batch, &LIMITS).unwrap().map(Result::unwrap).collect()
    }

    fn even(_: &BatchHeader, record: &Record) -> Verdict {
        if record.offset.0.is_multiple_of(2) { Verdict::Keep } else { Verdict::Drop }
    }

    #[test]
    fn what_is_kept_stays_as_it_was() {
        for codec in Codec::ALL {
            let batch = sample(codec);
            let Retained::Batch(left) = retain(&batch, &LIMITS, None, even).unwrap() else { panic!("{codec}") };
            let expected: Vec<_> = read(&batch).into_iter().filter(|record| record.offset.0 % 2 == 0).collect();
            assert_eq!(read(&left), expected);
            let (old, new) = (BatchHeader::parse(&batch).unwrap(), BatchHeader::parse(&left).unwrap());
            assert_eq!((new.base_offset(), new.next_offset()), (old.base_offset(), old.next_offset()));
            assert_eq!((new.leader_epoch(), new.codec()), (old.leader_epoch(), codec));
            assert_eq!((new.record_count(), new.max_timestamp()), (5, 1_008));
        }
        let batch = sample(Codec::None);
        assert_eq!(retain(&batch, &LIMITS, Some(5), |_, _| Verdict::Keep).unwrap(), Retained::Unchanged);
        assert_eq!(retain(&batch, &LIMITS, Some(5), |_, _| Verdict::Drop).unwrap(), Retained::Nothing);
    }

    #[test]
    fn a_delete_horizon_is_set_once_and_changes_no_timestamp() {
        let batch = sample(Codec::Lz4);
        let tombstone = |_: &BatchHeader, record: &Record| match record.value {
            Some(_) => Verdict::Keep,
            None => Verdict::KeepTombstone,
        };
        let Retained::Batch(left) = retain(&batch, &LIMITS, Some(99_000), tombstone).unwrap() else { panic!() };
        let header = BatchHeader::parse(&left).unwrap();
        assert!(header.has_delete_horizon() && header.base_timestamp() == 99_000);
        assert_eq!(read(&left), read(&batch));
        assert_eq!(retain(&left, &LIMITS, Some(200_000), tombstone).unwrap(), Retained::Unchanged);
    }
}
