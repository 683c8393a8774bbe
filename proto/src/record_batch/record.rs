//! The records of a batch, read one by one as they are asked for.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::{BatchError, BatchHeader, Bound, HEADER_LEN, MIN_RECORD_LEN, TimestampType, varint};
use crate::ids::Offset;

/// A record with its place in the partition. Keys, values and headers are slices of the batch (or of its
/// decompressed records) and keep all of that in memory: copy what is to be kept long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where the record stands in its partition.
    pub offset: Offset,
    /// Milliseconds since 1970, −1 for none.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// The headers in their order; keys may repeat.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Limits on what a reader opens.
#[derive(Debug, Clone, Copy)]
pub struct RecordLimits {
    /// Bytes that the records of a batch may have when decompressed.
    pub max_decompressed_bytes: usize,
    /// Headers that a record may have.
    pub max_headers: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { max_decompressed_bytes: 64 << 20, max_headers: 64 << 10 }
    }
}

/// Opens the one batch that `batch` is: decompresses it within the limits, and iterates over its records.
///
/// The CRC is not checked: see [`super::verify_crc`]. The records of a control batch are markers, not a user's.
pub fn records(batch: &Bytes, limits: &RecordLimits) -> Result<RecordIter, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.total_len() > batch.len() {
        return Err(BatchError::Truncated { needed: header.total_len(), have: batch.len() });
    }
    Bound::Exactly(0).check("number of bytes after the batch", (batch.len() - header.total_len()) as i64)?;

    let records = header.codec().decompress(batch.slice(HEADER_LEN..), limits.max_decompressed_bytes)?;
    header.check_record_count(records.len())?;
    Ok(RecordIter {
        header,
        max_headers: limits.max_headers,
        records,
        position: 0,
        remaining: header.record_count(),
        min_offset_delta: 0,
    })
}

/// The iterator of [`records`]. Ends after the last record, or with one error.
#[derive(Debug, Clone)]
pub struct RecordIter {
    header: BatchHeader,
    max_headers: usize,
    /// The records, decompressed.
    records: Bytes,
    /// Where in `records` the next one begins; their end after an error.
    position: usize,
    /// Records still to come; 0 after an error.
    remaining: u32,
    /// The least offset delta the next record may have: offsets grow.
    min_offset_delta: i64,
}

impl RecordIter {
    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn stop(&mut self) {
        self.remaining = 0;
        self.position = self.records.len();
    }

    fn read_record(&mut self) -> Result<Record, BatchError> {
        let mut fields = Fields { bytes: &self.records, position: self.position, end: self.records.len() };
        let body_len = fields.varint("record length")?;
        Bound::AtLeast(MIN_RECORD_LEN as i64 - 1).check("record length", body_len)?;
        Bound::AtMost(fields.left() as i64).check("record length", body_len)?;
        fields.end = fields.position + body_len as usize;
        // The attributes of a record have no meaning yet.
        fields.position += 1;

        let timestamp_delta = fields.varint("record timestamp delta")?;
        let offset_delta = fields.varint("record offset delta")?;
        Bound::AtLeast(self.min_offset_delta).check("record offset delta", offset_delta)?;
        Bound::AtMost(self.header.last_offset_delta().into()).check("record offset delta", offset_delta)?;
        let record = Record {
            offset: self.header.base_offset().plus(offset_delta as u64),
            timestamp: match self.header.timestamp_type() {
                TimestampType::Create => self.header.base_timestamp().wrapping_add(timestamp_delta),
                TimestampType::LogAppend => self.header.max_timestamp(),
            },
            key: fields.nullable("record key length")?,
            value: fields.nullable("record value length")?,
            headers: fields.headers(self.max_headers)?,
        };
        Bound::Exactly(0).check("number of bytes after the record's fields", fields.left() as i64)?;

        self.position = fields.end;
        self.min_offset_delta = offset_delta + 1;
        Ok(record)
    }
}

impl Iterator for RecordIter {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            let left = self.records.len() - self.position;
            self.stop();
            return Bound::Exactly(0).check("number of bytes after the last record", left as i64).err().map(Err);
        }
        let record = self.read_record();
        match record {
            Ok(_) => self.remaining -= 1,
            Err(_) => self.stop(),
        }
        Some(record)
    }
}

impl FusedIterator for RecordIter {}

/// Reads fields, none of which may go beyond `end`. Lengths and counts are checked against it before they are used.
struct Fields<'a> {
    bytes: &'a Bytes,
    position: usize,
    end: usize,
}

impl Fields<'_> {
    fn left(&self) -> usize {
        self.end - self.position
    }

    /// An integer. Lengths and counts of more than 32 bits fail the bounds that their callers check.
    fn varint(&mut self, field: &'static str) -> Result<i64, BatchError> {
        let (value, len) = varint::get(&self.bytes[self.position..self.end])
            .ok_or(BatchError::BadVarint { field, position: self.position })?;
        self.position += len;
        Ok(value)
    }

    /// Bytes after their length, which is −1 for null.
    fn nullable(&mut self, field: &'static str) -> Result<Option<Bytes>, BatchError> {
        let len = self.varint(field)?;
        Bound::AtLeast(-1).check(field, len)?;
        if len == -1 {
            return Ok(None);
        }
        self.take(field, len).map(Some)
    }

    fn take(&mut self, field: &'static str, len: i64) -> Result<Bytes, BatchError> {
        Bound::AtLeast(0).check(field, len)?;
        Bound::AtMost(self.left() as i64).check(field, len)?;
        let start = self.position;
        self.position += len as usize;
        Ok(self.bytes.slice(start..self.position))
    }

    fn headers(&mut self, max_headers: usize) -> Result<Vec<(Bytes, Option<Bytes>)>, BatchError> {
        let count = self.varint("record header count")?;
        Bound::AtLeast(0).check("record header count", count)?;
        // Each takes at least the bytes of its two lengths.
        Bound::AtMost((self.left() / 2).min(max_headers) as i64).check("record header count", count)?;
        let mut headers = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let key_len = self.varint("header key length")?;
            let key = self.take("header key length", key_len)?;
            headers.push((key, self.nullable("header value length")?));
        }
        Ok(headers)
    }
}
