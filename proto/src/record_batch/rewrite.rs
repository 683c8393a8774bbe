//! What an owner may change of a validated batch before it gets offsets: how it is compressed, and its timestamps.
//!
//! These lie under the CRC, which is computed again. Records are never opened one by one for it, except to find the
//! highest timestamp where the producer left it out.

use bytes::{Bytes, BytesMut};

use super::{
    BatchError, BatchHeader, Codec, HEADER_LEN, LENGTH_PREFIX, RecordLimits, TimestampType, attribute, field, records,
};

/// The same batch with its records compressed by `codec`. `batch` is one validated batch.
///
/// # Errors
/// If the records cannot be decompressed within `max_decompressed_bytes`.
pub fn recompress(batch: &Bytes, codec: Codec, max_decompressed_bytes: usize) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.codec() == codec {
        return Ok(batch.clone());
    }
    let plain = header.codec().decompress(batch.slice(HEADER_LEN..), max_decompressed_bytes)?;
    header.check_record_count(plain.len())?;
    let mut out = Vec::with_capacity(HEADER_LEN + plain.len() / 2);
    out.extend_from_slice(&batch[..HEADER_LEN]);
    codec.compress(&plain, &mut out);
    set_length(&mut out)?;
    set_attributes(&mut out, |attributes| attributes & !attribute::CODEC | codec as i16);
    set_crc(&mut out);
    Ok(out.into())
}

/// The same batch with the time of the append for all its records; in place if nobody else holds its buffer.
///
/// # Panics
/// If `batch` is shorter than a header. Batches come here validated.
pub fn stamp_append_time(batch: Bytes, timestamp_ms: i64) -> Bytes {
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    set_attributes(&mut batch, |attributes| attributes | attribute::LOG_APPEND_TIME);
    batch[field::MAX_TIMESTAMP..field::PRODUCER_ID].copy_from_slice(&timestamp_ms.to_be_bytes());
    set_crc(&mut batch);
    batch.freeze()
}

/// Whether every record of the batch has a key, as compaction needs it. `batch` is one validated batch.
///
/// # Errors
/// If one has none, or the records cannot be read within the limits.
pub fn check_keys(batch: &Bytes, limits: &RecordLimits) -> Result<(), BatchError> {
    for (number, record) in records(batch, limits)?.enumerate() {
        if record?.key.is_none() {
            return Err(BatchError::KeyMissing { number });
        }
    }
    Ok(())
}

/// The same batch with the highest timestamp of its records in its header, where some producers leave it out: a search
/// by time goes by it.
///
/// # Errors
/// If the records cannot be read within the limits.
pub fn state_max_timestamp(batch: Bytes, limits: &RecordLimits) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(&batch)?;
    if header.max_timestamp() >= header.base_timestamp() || header.timestamp_type() == TimestampType::LogAppend {
        return Ok(batch);
    }
    let mut max_timestamp = header.max_timestamp();
    for record in records(&batch, limits)? {
        max_timestamp = max_timestamp.max(record?.timestamp);
    }
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    batch[field::MAX_TIMESTAMP..field::PRODUCER_ID].copy_from_slice(&max_timestamp.to_be_bytes());
    set_crc(&mut batch);
    Ok(batch.freeze())
}

pub(super) fn set_length(batch: &mut [u8]) -> Result<(), BatchError> {
    let size = batch.len();
    let length =
        i32::try_from(size - LENGTH_PREFIX).map_err(|_| BatchError::TooLarge { size, max: i32::MAX as usize })?;
    batch[field::LENGTH..field::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

pub(super) fn set_attributes(batch: &mut [u8], change: impl FnOnce(i16) -> i16) {
    let place = &mut batch[field::ATTRIBUTES..field::LAST_OFFSET_DELTA];
    let attributes = i16::from_be_bytes([place[0], place[1]]);
    place.copy_from_slice(&change(attributes).to_be_bytes());
}

pub(super) fn set_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[field::ATTRIBUTES..]);
    batch[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{BatchBuilder, BatchLimits, Record, validate_produced, verify_crc};

    const LIMITS: RecordLimits = RecordLimits { max_decompressed_bytes: 1 << 20, max_headers: 10 };

    fn sample(codec: Codec) -> Bytes {
        let mut builder = BatchBuilder::new(codec, 1_000);
        for number in 0..50_i64 {
            let key = number.to_string();
            builder.append(1_000 + number, Some(key.as_bytes()), Some(b"the same value"), &[]).unwrap();
        }
        builder.build()
    }

    fn read(batch: &Bytes) -> Vec<Record> {
        verify_crc(batch).unwrap();
        records(batch, &LIMITS).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn every_codec_becomes_every_other() {
        for from in Codec::ALL {
            for to in Codec::ALL {
                let batch = recompress(&sample(from), to, 1 << 20).unwrap();
                let header = validate_produced(&batch, &BatchLimits { max_batch_bytes: 1 << 20 }).unwrap();
                assert_eq!(header.codec(), to);
                assert_eq!(read(&batch), read(&sample(from)), "{from} to {to}");
            }
            let too_small = recompress(&sample(from), Codec::Zstd, 10);
            assert!(matches!(from, Codec::None | Codec::Zstd) || too_small.is_err(), "{from}");
        }
    }

    #[test]
    fn the_append_s_time_stands_for_all() {
        let batch = stamp_append_time(sample(Codec::Lz4), 7_777);
        assert_eq!(BatchHeader::parse(&batch).unwrap().timestamp_type(), TimestampType::LogAppend);
        assert!(read(&batch).iter().all(|record| record.timestamp == 7_777));
    }

    #[test]
    fn keys_are_looked_for() {
        assert!(check_keys(&sample(Codec::Snappy), &LIMITS).is_ok());
        let mut builder = BatchBuilder::new(Codec::Snappy, 0);
        builder.append(0, Some(b"key"), None, &[]).unwrap();
        builder.append(0, None, Some(b"value"), &[]).unwrap();
        assert!(matches!(check_keys(&builder.build(), &LIMITS), Err(BatchError::KeyMissing { number: 1 })));
    }

    #[test]
    fn a_highest_timestamp_that_was_left_out_is_found() {
        let mut left_out = sample(Codec::Gzip).to_vec();
        left_out[field::MAX_TIMESTAMP..field::PRODUCER_ID].copy_from_slice(&(-1_i64).to_be_bytes());
        set_crc(&mut left_out);
        let batch = state_max_timestamp(left_out.into(), &LIMITS).unwrap();
        assert_eq!(batch, sample(Codec::Gzip));
        assert_eq!(state_max_timestamp(batch.clone(), &LIMITS).unwrap(), batch);
    }
}
