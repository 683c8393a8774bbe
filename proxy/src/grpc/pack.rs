//! Records of the API become a batch, and batches become records.

use bmq_common::Clock;
use bmq_proto::record_batch::{BatchBuilder, BatchError, BatchHeader, Codec, HeaderRef};
use bmq_proto::{ErrorCode, ServiceError, v1};
use bytes::Bytes;

/// Packs records into one uncompressed batch.
pub fn pack(records: &[v1::Record], max_bytes: usize, clock: &dyn Clock) -> Result<Bytes, ServiceError> {
    let Some(first) = records.first() else {
        return Err(ServiceError::not_applied(ErrorCode::InvalidArgument, "a batch needs at least one record"));
    };
    let now = clock.wall().0;
    let mut builder = BatchBuilder::new(Codec::None, first.timestamp_ms.unwrap_or(now));
    for record in records {
        let timestamp = record.timestamp_ms.unwrap_or(now);
        let headers: Vec<HeaderRef<'_>> =
            record.headers.iter().map(|header| (header.key.as_bytes(), header.value.as_deref())).collect();
        let appended = builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        appended.map_err(refused)?;
        if builder.estimated_len() > max_bytes {
            return Err(refused(BatchError::TooLarge { size: builder.estimated_len(), max: max_bytes }));
        }
    }
    Ok(builder.build())
}

/// Checks a ready batch as far as the edge must: that it is one batch, whole, and not too large. Its owner checks the
/// checksum and the rest.
pub fn check_batch(batch: &Bytes, max_bytes: usize) -> Result<BatchHeader, ServiceError> {
    let header = BatchHeader::parse(batch).map_err(refused)?;
    let size = header.total_len();
    if size > max_bytes {
        return Err(refused(BatchError::TooLarge { size, max: max_bytes }));
    }
    if size > batch.len() {
        return Err(refused(BatchError::Truncated { needed: size, have: batch.len() }));
    }
    if size < batch.len() {
        let text = format!("{} bytes follow the batch, send one batch at a time", batch.len() - size);
        return Err(ServiceError::not_applied(ErrorCode::InvalidBatch, text));
    }
    Ok(header)
}

pub fn refused(error: BatchError) -> ServiceError {
    ServiceError::not_applied(error.code(), error.to_string())
}

#[cfg(test)]
mod tests {
    use bmq_common::SystemClock;

    use super::*;

    #[test]
    fn what_is_packed_passes_the_check() {
        let record = v1::Record {
            key: Some(Bytes::from_static(b"k")),
            value: None,
            headers: vec![v1::Header { key: "h".into(), value: Some(Bytes::from_static(b"v")) }; 2],
            timestamp_ms: Some(5),
        };
        let batch = pack(&[record.clone(), record], 1 << 20, &SystemClock).unwrap();
        let header = check_batch(&batch, 1 << 20).unwrap();
        assert_eq!((header.record_count(), header.max_timestamp()), (2, 5));
    }

    #[test]
    fn bad_batches_are_refused() {
        let value = Some(Bytes::from(vec![7; 100]));
        let record = v1::Record { key: None, value, headers: Vec::new(), timestamp_ms: None };
        assert_eq!(pack(&[], 1 << 20, &SystemClock).unwrap_err().code, ErrorCode::InvalidArgument);
        let small = pack(std::slice::from_ref(&record), 100, &SystemClock).unwrap_err();
        assert_eq!(small.code, ErrorCode::MessageTooLarge);

        let batch = pack(&[record], 1 << 20, &SystemClock).unwrap();
        let check = |bytes: &[u8], max: usize, code: ErrorCode| {
            assert_eq!(check_batch(&Bytes::copy_from_slice(bytes), max).unwrap_err().code, code);
        };
        check(b"", 1 << 20, ErrorCode::InvalidBatch);
        check(&[0xff; 200], 1 << 20, ErrorCode::InvalidBatch);
        check(&batch[..batch.len() - 1], 1 << 20, ErrorCode::InvalidBatch);
        check(&[&batch[..], b"x"].concat(), 1 << 20, ErrorCode::InvalidBatch);
        check(&batch, batch.len() - 1, ErrorCode::MessageTooLarge);
    }
}
