//! The broker service's requests and answers as protobuf messages.

use super::decode::{DecodeError, epoch, invalid, offset, required};
use super::status::{error_from_message, error_message};
use crate::broker::{
    AckLevel, ActiveProducer, AppendAnswer, AppendItem, Appended, OwnerBatches, OwnerRead, PartitionBounds, TailEvent,
    TimeHint, TimeSearch,
};
use crate::internal as pb;
use crate::record_batch::ProducerKey;

impl From<AppendItem> for pb::AppendItem {
    fn from(item: AppendItem) -> Self {
        let ack = match item.ack {
            AckLevel::Memory => pb::AckLevel::Memory,
            AckLevel::Stored => pb::AckLevel::Stored,
        };
        Self {
            id: item.id,
            channel: item.channel,
            generation: item.generation,
            partition: Some(item.partition.into()),
            epoch: item.epoch.0,
            ack: ack.into(),
            batch: item.batch,
        }
    }
}

impl TryFrom<pb::AppendItem> for AppendItem {
    type Error = DecodeError;
    fn try_from(message: pb::AppendItem) -> Result<Self, DecodeError> {
        let ack = match pb::AckLevel::try_from(message.ack) {
            Ok(pb::AckLevel::Memory) => AckLevel::Memory,
            Ok(pb::AckLevel::Stored) => AckLevel::Stored,
            Ok(pb::AckLevel::Unspecified) | Err(_) => return Err(invalid("append.ack", message.ack, "1 or 2")),
        };
        Ok(Self {
            id: message.id,
            channel: message.channel,
            generation: message.generation,
            partition: required("append.partition", message.partition)?.try_into()?,
            epoch: epoch("append.epoch", message.epoch)?,
            ack,
            batch: message.batch,
        })
    }
}

impl From<AppendAnswer> for pb::AppendAnswer {
    fn from(answer: AppendAnswer) -> Self {
        let mut message = Self { id: answer.id, ..Self::default() };
        match answer.result {
            Ok(appended) => {
                message.base_offset = appended.base_offset.0;
                message.deduplicated = appended.deduplicated;
                message.append_time_ms = appended.append_time_ms;
            }
            Err(error) => message.error = Some(error_message(&error)),
        }
        message
    }
}

impl TryFrom<pb::AppendAnswer> for AppendAnswer {
    type Error = DecodeError;
    fn try_from(message: pb::AppendAnswer) -> Result<Self, DecodeError> {
        let result = match message.error {
            Some(error) => Err(error_from_message(error)),
            None => Ok(Appended {
                base_offset: offset("append_answer.base_offset", message.base_offset)?,
                deduplicated: message.deduplicated,
                append_time_ms: message.append_time_ms,
            }),
        };
        Ok(Self { id: message.id, result })
    }
}

impl From<PartitionBounds> for pb::PartitionBounds {
    fn from(bounds: PartitionBounds) -> Self {
        Self { epoch: bounds.epoch.0, log_start: bounds.log_start.0, high_watermark: bounds.high_watermark.0 }
    }
}

impl TryFrom<pb::PartitionBounds> for PartitionBounds {
    type Error = DecodeError;
    fn try_from(message: pb::PartitionBounds) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: epoch("bounds.epoch", message.epoch)?,
            log_start: offset("bounds.log_start", message.log_start)?,
            high_watermark: offset("bounds.high_watermark", message.high_watermark)?,
        })
    }
}

/// The time that a request names; without one it asks for the highest.
pub(super) fn time_search(at_or_after_ms: Option<i64>) -> TimeSearch {
    at_or_after_ms.map_or(TimeSearch::Highest, TimeSearch::AtOrAfter)
}

/// The reverse of [`time_search`].
pub(super) fn at_or_after(search: TimeSearch) -> Option<i64> {
    match search {
        TimeSearch::AtOrAfter(timestamp_ms) => Some(timestamp_ms),
        TimeSearch::Highest => None,
    }
}

impl From<TimeHint> for pb::TimeHint {
    fn from(hint: TimeHint) -> Self {
        Self { from: hint.from.0, timestamp_ms: hint.timestamp_ms }
    }
}

impl TryFrom<pb::TimeHint> for TimeHint {
    type Error = DecodeError;
    fn try_from(message: pb::TimeHint) -> Result<Self, DecodeError> {
        Ok(Self { from: offset("time_hint.from", message.from)?, timestamp_ms: message.timestamp_ms })
    }
}

impl From<ActiveProducer> for pb::ActiveProducer {
    fn from(producer: ActiveProducer) -> Self {
        let ActiveProducer { key, last_sequence, last_timestamp_ms } = producer;
        Self { id: key.id, epoch: key.epoch.into(), last_sequence, last_timestamp_ms }
    }
}

impl TryFrom<pb::ActiveProducer> for ActiveProducer {
    type Error = DecodeError;
    fn try_from(message: pb::ActiveProducer) -> Result<Self, DecodeError> {
        let pb::ActiveProducer { id, epoch, last_sequence, last_timestamp_ms } = message;
        let epoch = i16::try_from(epoch).map_err(|_| invalid("active_producer.epoch", epoch, "a number of 16 bits"))?;
        Ok(Self { key: ProducerKey { id, epoch }, last_sequence, last_timestamp_ms })
    }
}

impl From<OwnerRead> for pb::OwnerReadRequest {
    fn from(read: OwnerRead) -> Self {
        Self {
            partition: Some(read.partition.into()),
            epoch: read.epoch.0,
            offset: read.offset.0,
            max_bytes: read.max_bytes,
        }
    }
}

impl TryFrom<pb::OwnerReadRequest> for OwnerRead {
    type Error = DecodeError;
    fn try_from(message: pb::OwnerReadRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            partition: required("read.partition", message.partition)?.try_into()?,
            epoch: epoch("read.epoch", message.epoch)?,
            offset: offset("read.offset", message.offset)?,
            max_bytes: message.max_bytes,
        })
    }
}

impl From<OwnerBatches> for pb::OwnerReadResponse {
    fn from(read: OwnerBatches) -> Self {
        Self { bounds: Some(read.bounds.into()), batches: read.batches }
    }
}

impl TryFrom<pb::OwnerReadResponse> for OwnerBatches {
    type Error = DecodeError;
    fn try_from(message: pb::OwnerReadResponse) -> Result<Self, DecodeError> {
        Ok(Self { bounds: required("read.bounds", message.bounds)?.try_into()?, batches: message.batches })
    }
}

impl From<TailEvent> for pb::TailEvent {
    fn from(event: TailEvent) -> Self {
        Self {
            bounds: Some(event.bounds.into()),
            base_offset: event.base_offset.0,
            next_offset: event.next_offset.0,
            batches: event.batches,
        }
    }
}

impl TryFrom<pb::TailEvent> for TailEvent {
    type Error = DecodeError;
    fn try_from(message: pb::TailEvent) -> Result<Self, DecodeError> {
        let event = Self {
            bounds: required("tail.bounds", message.bounds)?.try_into()?,
            base_offset: offset("tail.base_offset", message.base_offset)?,
            next_offset: offset("tail.next_offset", message.next_offset)?,
            batches: message.batches,
        };
        if event.next_offset < event.base_offset {
            return Err(invalid("tail.next_offset", event.next_offset.0, "at least tail.base_offset"));
        }
        Ok(event)
    }
}
