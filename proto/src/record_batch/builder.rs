//! Builds a batch, record by record.

use bytes::Bytes;

use super::{BatchError, Bound, Codec, HEADER_LEN, LENGTH_PREFIX, MAGIC, NO_TIMESTAMP, ProducerKey, field, varint};

/// A header to write: its key, and its value or null. Keys may repeat; order is kept.
pub type HeaderRef<'a> = (&'a [u8], Option<&'a [u8]>);

/// Records of one batch, uncompressed, in bytes. Leaves room in the 31 bits of the batch's length for what a codec
/// adds to bytes that it cannot compress.
const MAX_RECORDS_LEN: usize = 1 << 30;

/// A batch under construction. Records get the offset deltas 0, 1, 2 and so on.
#[derive(Debug)]
pub struct BatchBuilder {
    codec: Codec,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<(ProducerKey, i32)>,
    record_count: u32,
    /// Room for the header, then the records, uncompressed.
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch. Timestamps are stored relative to `base_timestamp` (milliseconds): take the first record's.
    pub fn new(codec: Codec, base_timestamp: i64) -> Self {
        Self {
            codec,
            // Any base reaches every timestamp, so one that the format does not allow need not be an error.
            base_timestamp: base_timestamp.max(NO_TIMESTAMP),
            max_timestamp: NO_TIMESTAMP,
            producer: None,
            record_count: 0,
            bytes: vec![0; HEADER_LEN],
        }
    }

    /// Makes the batch one of an idempotent producer; `base_sequence` is the first record's.
    pub fn set_producer(&mut self, producer: ProducerKey, base_sequence: i32) {
        assert!(producer.id >= 0 && producer.epoch >= 0, "{producer:?} is not an idempotent producer");
        assert!(base_sequence >= 0, "sequence {base_sequence} is negative");
        self.producer = Some((producer, base_sequence));
    }

    /// Adds a record and returns its place in the batch, from 0. `timestamp` is in milliseconds, −1 for none.
    ///
    /// # Errors
    /// `TooLarge` if the batch would pass 1 GiB, `Invalid` for other negative timestamps; the batch is then unchanged.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<u32, BatchError> {
        Bound::AtLeast(NO_TIMESTAMP).demand("record timestamp", timestamp)?;
        // Only −1 less the greatest timestamp is beyond the range; wrapping is undone by the reader's sum.
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.record_count);
        let body_len = 1 + varint::len(timestamp_delta) + varint::len(offset_delta) + payload_len(key, value, headers);

        let records_len = self.bytes.len() - HEADER_LEN + varint::len(body_len as i64) + body_len;
        if records_len > MAX_RECORDS_LEN {
            return Err(BatchError::TooLarge { size: records_len, max: MAX_RECORDS_LEN });
        }

        put_record(&mut self.bytes, (timestamp_delta, offset_delta), key, value, headers);
        debug_assert_eq!(self.bytes.len() - HEADER_LEN, records_len);

        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.record_count += 1;
        Ok(self.record_count - 1)
    }

    /// Records so far.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes that the finished batch will have if compression gains nothing, header included.
    pub fn estimated_len(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch: compressed, with base offset 0, no leader epoch, and its CRC.
    ///
    /// # Panics
    /// If there is no record.
    pub fn build(self) -> Bytes {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut batch = match self.codec {
            Codec::None => self.bytes,
            codec => {
                let mut compressed = Vec::with_capacity(HEADER_LEN + self.bytes.len() / 2);
                compressed.resize(HEADER_LEN, 0);
                codec.compress(&self.bytes[HEADER_LEN..], &mut compressed);
                compressed
            }
        };

        let length = i32::try_from(batch.len() - LENGTH_PREFIX).expect("MAX_RECORDS_LEN leaves room");
        let (producer, base_sequence) = self.producer.unwrap_or((ProducerKey { id: -1, epoch: -1 }, -1));
        let last_offset_delta = self.record_count - 1;
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(field::LENGTH, &length.to_be_bytes());
        put(field::LEADER_EPOCH, &(-1_i32).to_be_bytes());
        put(field::MAGIC, &MAGIC.to_be_bytes());
        put(field::ATTRIBUTES, &(self.codec as i16).to_be_bytes());
        put(field::LAST_OFFSET_DELTA, &last_offset_delta.to_be_bytes());
        put(field::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(field::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(field::PRODUCER_ID, &producer.id.to_be_bytes());
        put(field::PRODUCER_EPOCH, &producer.epoch.to_be_bytes());
        put(field::BASE_SEQUENCE, &base_sequence.to_be_bytes());
        put(field::RECORD_COUNT, &self.record_count.to_be_bytes());

        let crc = crc32c::crc32c(&batch[field::ATTRIBUTES..]);
        batch[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        batch.into()
    }
}

/// Appends a record with its deltas of timestamp and offset.
pub(super) fn put_record(
    out: &mut Vec<u8>,
    (timestamp_delta, offset_delta): (i64, i64),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[HeaderRef<'_>],
) {
    let body_len = 1 + varint::len(timestamp_delta) + varint::len(offset_delta) + payload_len(key, value, headers);
    varint::put(out, body_len as i64);
    out.push(0);
    varint::put(out, timestamp_delta);
    varint::put(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    varint::put(out, headers.len() as i64);
    for (key, value) in headers {
        put_nullable(out, Some(key));
        put_nullable(out, *value);
    }
}

/// The most bytes that a record adds to a batch before compression, wherever in the batch it stands.
pub fn max_record_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderRef<'_>]) -> usize {
    const LENGTH_AND_ATTRIBUTES: usize = 5 + 1;
    const TIMESTAMP_DELTA: usize = 10;
    const OFFSET_DELTA: usize = 5;
    LENGTH_AND_ATTRIBUTES + TIMESTAMP_DELTA + OFFSET_DELTA + payload_len(key, value, headers)
}

/// Bytes of key, value and headers, with their lengths and counts.
fn payload_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[HeaderRef<'_>]) -> usize {
    let header_len = |(key, value): &HeaderRef<'_>| nullable_len(Some(key)) + nullable_len(*value);
    nullable_len(key)
        + nullable_len(value)
        + varint::len(headers.len() as i64)
        + headers.iter().map(header_len).sum::<usize>()
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varint::len(-1),
        Some(bytes) => varint::len(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(out, -1),
        Some(bytes) => {
            varint::put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
