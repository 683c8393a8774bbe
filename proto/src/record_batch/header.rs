//! The fixed header of a batch, parsed; and the CRC over what follows it.
//!
//! A `BatchHeader` comes only from `parse`, so its fields keep these bounds:
//! * `0 ≤ base offset ≤ last offset < i64::MAX`, so the next offset exists too;
//! * `record count ≤ last offset delta + 1`; less where compaction removed records, 0 if it removed all.

use super::{BatchError, Bound, Codec, HEADER_LEN, LENGTH_PREFIX, MAGIC, MIN_RECORD_LEN, attribute, field};
use crate::ids::{Epoch, Offset};

/// The fields of a batch's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    total_len: usize,
    base_offset: u64,
    leader_epoch: i32,
    crc: u32,
    attributes: i16,
    codec: Codec,
    last_offset_delta: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    record_count: u32,
}

/// An idempotent producer: its id, and the epoch that fences earlier users of that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerKey {
    /// The producer's id.
    pub id: i64,
    /// The producer's epoch.
    pub epoch: i16,
}

/// What the timestamps of a batch mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// Each record carries the time that its producer gave it.
    Create,
    /// All records have the batch's max timestamp, the time of the append.
    LogAppend,
}

impl BatchHeader {
    /// Parses the header at the start of `bytes`, which may end before the batch does, or go on after it.
    ///
    /// The CRC is not checked: see [`verify_crc`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // Older formats are shorter and have their magic at the same place; name it rather than ask for more bytes.
        if let Some(magic) = bytes.get(field::MAGIC) {
            Bound::Exactly(MAGIC.into()).check("magic", (*magic as i8).into())?;
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { needed: HEADER_LEN, have: bytes.len() });
        };

        let length = i64::from(i32::from_be_bytes(array(header, field::LENGTH)));
        Bound::AtLeast((HEADER_LEN - LENGTH_PREFIX) as i64).check("batch length", length)?;
        let base_offset = i64::from_be_bytes(array(header, field::BASE_OFFSET));
        Bound::AtLeast(0).check("base offset", base_offset)?;
        let last_offset_delta = i32::from_be_bytes(array(header, field::LAST_OFFSET_DELTA));
        Bound::AtLeast(0).check("last offset delta", last_offset_delta.into())?;
        Bound::AtMost(i64::MAX - 1 - i64::from(last_offset_delta)).check("base offset", base_offset)?;
        let record_count = i32::from_be_bytes(array(header, field::RECORD_COUNT));
        Bound::AtLeast(0).check("record count", record_count.into())?;
        Bound::AtMost(i64::from(last_offset_delta) + 1).check("record count", record_count.into())?;
        let attributes = i16::from_be_bytes(array(header, field::ATTRIBUTES));

        let header = Self {
            total_len: LENGTH_PREFIX + length as usize,
            base_offset: base_offset as u64,
            leader_epoch: i32::from_be_bytes(array(header, field::LEADER_EPOCH)),
            crc: u32::from_be_bytes(array(header, field::CRC)),
            attributes,
            codec: Codec::from_id(attributes & attribute::CODEC)?,
            last_offset_delta: last_offset_delta as u32,
            base_timestamp: i64::from_be_bytes(array(header, field::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(array(header, field::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(array(header, field::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(array(header, field::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(array(header, field::BASE_SEQUENCE)),
            record_count: record_count as u32,
        };
        if header.codec == Codec::None {
            header.check_record_count(header.total_len - HEADER_LEN)?;
        }
        Ok(header)
    }

    /// Whether that many records fit into `records_len` uncompressed bytes.
    pub(super) fn check_record_count(&self, records_len: usize) -> Result<(), BatchError> {
        Bound::AtMost((records_len / MIN_RECORD_LEN) as i64).check("record count", self.record_count.into())
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        self.total_len
    }

    /// The offset of the batch's first record, or where that was before compaction.
    pub fn base_offset(&self) -> Offset {
        Offset(self.base_offset)
    }

    /// The offset of the batch's last record, or where that was before compaction.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset + u64::from(self.last_offset_delta))
    }

    /// The offset after the batch's last.
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset + self.offset_count())
    }

    /// Offsets that the batch takes up; its record count unless compaction removed some.
    pub fn offset_count(&self) -> u64 {
        u64::from(self.last_offset_delta) + 1
    }

    /// The last offset less the base offset.
    pub fn last_offset_delta(&self) -> u32 {
        self.last_offset_delta
    }

    /// Records in the batch.
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// The epoch of the owner that appended the batch; none in a batch that a producer has just built.
    pub fn leader_epoch(&self) -> Option<Epoch> {
        u32::try_from(self.leader_epoch).ok().map(Epoch)
    }

    /// The CRC-32C that the header carries.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.has(attribute::LOG_APPEND_TIME) { TimestampType::LogAppend } else { TimestampType::Create }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.has(attribute::TRANSACTIONAL)
    }

    /// Whether the batch holds a marker for the log itself rather than records of a user.
    pub fn is_control(&self) -> bool {
        self.has(attribute::CONTROL)
    }

    /// Whether the base timestamp holds the time from which compaction may drop the batch's tombstones.
    pub fn has_delete_horizon(&self) -> bool {
        self.has(attribute::DELETE_HORIZON)
    }

    fn has(&self, attribute: i16) -> bool {
        self.attributes & attribute != 0
    }

    /// The timestamp, in milliseconds, that the records' timestamps are relative to; −1 for none.
    pub fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The greatest timestamp of the records in milliseconds, as the producer states it; some producers leave −1.
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The idempotent producer that sent the batch, if it is one.
    pub fn producer(&self) -> Option<ProducerKey> {
        (self.producer_id >= 0).then_some(ProducerKey { id: self.producer_id, epoch: self.producer_epoch })
    }

    /// The sequence number of the first record; means something only with a producer.
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence
    }

    /// The sequence number of the last record; means something only with a producer.
    pub fn last_sequence(&self) -> i32 {
        add_to_sequence(self.base_sequence, self.last_offset_delta)
    }

    pub(super) fn raw_producer_id(&self) -> i64 {
        self.producer_id
    }

    /// Checks the CRC of `batch`, whose header this is.
    pub(super) fn verify_crc_of(&self, batch: &[u8]) -> Result<(), BatchError> {
        let Some(covered) = batch.get(field::ATTRIBUTES..self.total_len) else {
            return Err(BatchError::Truncated { needed: self.total_len, have: batch.len() });
        };
        let computed = crc32c::crc32c(covered);
        if computed != self.crc {
            return Err(BatchError::CrcMismatch { stored: self.crc, computed });
        }
        Ok(())
    }
}

/// Checks the CRC of the batch at the start of `batch`. Base offset, length, leader epoch and magic lie outside it.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    BatchHeader::parse(batch)?.verify_crc_of(batch)
}

/// The sequence number `count` records after `sequence`; after `i32::MAX` comes 0.
pub fn add_to_sequence(sequence: i32, count: u32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

fn array<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    *header[at..].first_chunk().expect("every field lies inside the header")
}
