//! A batch on its way into the partition, checked before it reaches the partition's single task.

use bmq_common::clock::WallMillis;
use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::record_batch::{
    BatchError, BatchHeader, BatchLimits, RecordLimits, TimestampType, check_keys, recompress, stamp_append_time,
    state_max_timestamp, validate_produced,
};
use bmq_proto::{Epoch, ErrorCode, ServiceError};
use bytes::Bytes;

use crate::config::BatchRules;

/// The most bytes that a batch's records may have while they are compressed anew.
const MAX_DECOMPRESSED_BYTES: usize = 64 << 20;

/// Finds the waiting caller again; the machine only carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyToken(pub u64);

/// What is said to a caller.
pub type AppendReply = Result<Appended, ServiceError>;

/// Where an append came from: appends of one lane keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The stream between proxy and broker.
    pub stream: u64,
    /// The client connection behind it.
    pub channel: u64,
}

/// A batch whose header, size and checksum were found good.
#[derive(Debug, Clone)]
pub struct ValidatedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl ValidatedBatch {
    /// Checks a producer's batch. Costs a pass over its bytes, so it is done on the caller's task.
    pub fn check(bytes: Bytes, max_batch_bytes: usize) -> Result<Self, ServiceError> {
        let header = validate_produced(&bytes, &BatchLimits { max_batch_bytes })
            .map_err(|error| ServiceError::not_applied(error.code(), error.to_string()))?;
        Ok(Self { header, bytes })
    }

    /// Makes the batch what the topic wants stored: compressed so, with the time of the append, and in any case with
    /// its highest timestamp stated; refuses it if it lacks keys that are needed. This is the owner's to do: it alone
    /// knows the topic's settings of the moment for certain, and every way into the log leads through it. What needs no
    /// change is not copied.
    pub fn made_to(self, rules: &BatchRules, max_batch_bytes: usize, now: WallMillis) -> Result<Self, ServiceError> {
        let made = self.rewritten(rules, now).and_then(|made| match made.len() {
            size if size > max_batch_bytes => Err(BatchError::TooLarge { size, max: max_batch_bytes }),
            _ => Ok(made),
        });
        made.map_err(|error| ServiceError::not_applied(error.code(), error.to_string()))
    }

    fn rewritten(self, rules: &BatchRules, now: WallMillis) -> Result<Self, BatchError> {
        let limits = RecordLimits { max_decompressed_bytes: MAX_DECOMPRESSED_BYTES, ..RecordLimits::default() };
        let mut bytes = self.bytes;
        if rules.keyed {
            check_keys(&bytes, &limits)?;
        }
        if let Some(codec) = rules.compression {
            bytes = recompress(&bytes, codec, MAX_DECOMPRESSED_BYTES)?;
        }
        bytes = match rules.timestamp_type {
            TimestampType::LogAppend => stamp_append_time(bytes, now.0),
            TimestampType::Create => state_max_timestamp(bytes, &limits)?,
        };
        Ok(Self { header: BatchHeader::parse(&bytes)?, bytes })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch's length in bytes.
    #[allow(clippy::len_without_is_empty)] // A batch is never empty.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// One append as the machine takes it. A batch that was found bad comes too: its refusal has its place in the order.
#[derive(Debug, Clone)]
pub struct Append {
    pub token: ReplyToken,
    pub lane: Lane,
    pub generation: u32,
    /// The epoch that the sender believes current.
    pub epoch: Epoch,
    pub ack: AckLevel,
    pub batch: Result<ValidatedBatch, ServiceError>,
}

/// The refusal of whoever does not own the partition: ask metadata who does.
pub fn not_owner(message: &str) -> ServiceError {
    ServiceError::not_applied(ErrorCode::NotOwner, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::record_batch::{BatchBuilder, Codec};

    const NOW: WallMillis = WallMillis(5_000);

    fn batch(key: Option<&[u8]>) -> ValidatedBatch {
        let mut builder = BatchBuilder::new(Codec::Lz4, 1_000);
        builder.append(1_000, key, Some(&[7; 300]), &[]).unwrap();
        ValidatedBatch::check(builder.build(), 1 << 20).unwrap()
    }

    #[test]
    fn a_batch_is_made_what_the_topic_wants() {
        let plain = BatchRules::default();
        let before = batch(None);
        assert_eq!(before.clone().made_to(&plain, 1 << 20, NOW).unwrap().into_bytes(), before.into_bytes());

        let stamped = BatchRules { timestamp_type: TimestampType::LogAppend, compression: Some(Codec::Gzip), ..plain };
        let made = batch(None).made_to(&stamped, 1 << 20, NOW).unwrap();
        assert_eq!((made.header().codec(), made.header().max_timestamp()), (Codec::Gzip, 5_000));
        assert_eq!(made.header().timestamp_type(), TimestampType::LogAppend);

        let larger = BatchRules { compression: Some(Codec::None), ..plain };
        let refused = batch(None).made_to(&larger, 200, NOW).unwrap_err();
        assert_eq!(refused.code, bmq_proto::ErrorCode::MessageTooLarge);

        let keyed = BatchRules { keyed: true, ..plain };
        assert!(batch(Some(b"key")).made_to(&keyed, 1 << 20, NOW).is_ok());
        let refused = batch(None).made_to(&keyed, 1 << 20, NOW).unwrap_err();
        assert_eq!(refused.code, bmq_proto::ErrorCode::InvalidArgument);
    }
}
