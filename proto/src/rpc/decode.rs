//! Checks shared by all conversions from messages: what a field must hold, and the error that names the field.

use crate::{BytePosition, ErrorCode, Offset, ServiceError};
use crate::{Epoch, TopicId};

/// A message that no version of ours writes, or only a newer one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not the message they should be.
    #[error("bytes are not a {message}")]
    Malformed {
        /// The message's name.
        message: &'static str,
        /// What protobuf found.
        source: prost::DecodeError,
    },
    /// A field without which the message means nothing.
    #[error("{field} is missing")]
    Missing {
        /// The field's name, as `message.field`.
        field: &'static str,
    },
    /// A field has a value that it must not have.
    #[error("{field} is {found}, must be {expected}")]
    Invalid {
        /// The field's name, as `message.field`.
        field: &'static str,
        /// The value, or for bytes their number.
        found: i128,
        /// What the value may be.
        expected: &'static str,
    },
}

impl DecodeError {
    /// The answer to a request that cannot be read.
    pub(super) fn refusal(&self) -> ServiceError {
        ServiceError::not_applied(ErrorCode::InvalidArgument, format!("request refused: {self}"))
    }

    /// What a caller makes of an answer that it cannot read.
    pub(super) fn unreadable_answer(&self) -> ServiceError {
        ServiceError::unknown(ErrorCode::Internal, format!("answer cannot be read: {self}"))
    }
}

/// The only schema of stored records.
pub(super) const SCHEMA: u32 = 1;

pub(super) fn invalid(field: &'static str, found: impl Into<i128>, expected: &'static str) -> DecodeError {
    DecodeError::Invalid { field, found: found.into(), expected }
}

pub(super) fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

pub(super) fn schema(field: &'static str, found: u32) -> Result<(), DecodeError> {
    if found == SCHEMA { Ok(()) } else { Err(invalid(field, found, "1, the only schema this version knows")) }
}

/// Any epoch, 0 for "never claimed" included.
pub(super) fn epoch(field: &'static str, found: u32) -> Result<Epoch, DecodeError> {
    if i32::try_from(found).is_err() {
        return Err(invalid(field, found, "at most 2^31 - 1"));
    }
    Ok(Epoch(found))
}

pub(super) fn offset(field: &'static str, found: u64) -> Result<Offset, DecodeError> {
    at_most_i64(field, found).map(Offset)
}

pub(super) fn position(field: &'static str, found: u64) -> Result<BytePosition, DecodeError> {
    at_most_i64(field, found).map(BytePosition)
}

fn at_most_i64(field: &'static str, found: u64) -> Result<u64, DecodeError> {
    if i64::try_from(found).is_err() {
        return Err(invalid(field, found, "at most 2^63 - 1"));
    }
    Ok(found)
}

pub(super) fn topic_id(field: &'static str, bytes: &[u8]) -> Result<TopicId, DecodeError> {
    TopicId::from_slice(bytes).map_err(|_| wrong_id_length(field, bytes))
}

pub(super) fn wrong_id_length(field: &'static str, bytes: &[u8]) -> DecodeError {
    invalid(field, bytes.len() as i128, "16 bytes long")
}

/// Converts all of a repeated field, or stops at the first that cannot be.
pub(super) fn all<A, B>(values: Vec<A>) -> Result<Vec<B>, DecodeError>
where
    B: TryFrom<A, Error = DecodeError>,
{
    values.into_iter().map(B::try_from).collect()
}

/// Converts an optional field.
pub(super) fn optional<A, B>(value: Option<A>) -> Result<Option<B>, DecodeError>
where
    B: TryFrom<A, Error = DecodeError>,
{
    value.map(B::try_from).transpose()
}
