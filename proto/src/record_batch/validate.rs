//! What a broker demands of a batch before it takes it from a producer.

use super::{BatchError, BatchHeader, Bound, NO_TIMESTAMP, TimestampType};

/// Limits on a batch that a producer sends.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The largest batch taken, as sent, in bytes.
    pub max_batch_bytes: usize,
}

/// Makes every check that a broker owes a producer's batch: `bytes` must be that one batch and nothing else.
///
/// Header and CRC only: the records stay closed, so what a compressed batch holds is for its readers to check.
pub fn validate_produced(bytes: &[u8], limits: &BatchLimits) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    // The limit comes before the length, so that the answer to an oversize batch is the same whole or cut short.
    if header.total_len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size: header.total_len(), max: limits.max_batch_bytes });
    }
    if header.total_len() > bytes.len() {
        return Err(BatchError::Truncated { needed: header.total_len(), have: bytes.len() });
    }
    Bound::Exactly(0).check("number of bytes after the batch", (bytes.len() - header.total_len()) as i64)?;
    header.verify_crc_of(bytes)?;

    check_records(&header)?;
    check_attributes(&header)?;
    check_timestamps(&header)?;
    check_producer(&header)?;
    Ok(header)
}

/// Only compaction makes batches that are empty or have gaps.
fn check_records(header: &BatchHeader) -> Result<(), BatchError> {
    Bound::AtLeast(1).demand("record count", header.record_count().into())?;
    Bound::Exactly(header.offset_count() as i64).demand("record count", header.record_count().into())
}

fn check_attributes(header: &BatchHeader) -> Result<(), BatchError> {
    if header.is_transactional() {
        return Err(BatchError::UnsupportedTransaction);
    }
    Bound::Exactly(0).demand("control bit", header.is_control().into())?;
    Bound::Exactly(0).demand("delete horizon bit", header.has_delete_horizon().into())?;
    // The time of the append is the broker's to write.
    Bound::Exactly(0).demand("log append time bit", (header.timestamp_type() == TimestampType::LogAppend).into())
}

/// A max timestamp below the base is taken: widely used producers leave −1 there.
fn check_timestamps(header: &BatchHeader) -> Result<(), BatchError> {
    Bound::AtLeast(NO_TIMESTAMP).demand("base timestamp", header.base_timestamp())?;
    Bound::AtLeast(NO_TIMESTAMP).demand("max timestamp", header.max_timestamp())
}

/// Without a producer id the epoch and the sequence mean nothing, and producers put various values there.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    Bound::AtLeast(-1).demand("producer id", header.raw_producer_id())?;
    let Some(producer) = header.producer() else {
        return Ok(());
    };
    Bound::AtLeast(0).demand("producer epoch", producer.epoch.into())?;
    Bound::AtLeast(0).demand("base sequence", header.base_sequence().into())
}
