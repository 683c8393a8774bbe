//! The one error that crosses a service boundary: what went wrong, whether it may have happened, whether to retry.
//!
//! Codes are few; each outer protocol maps them once. A code alone decides whether a retry can help; the error as a
//! whole says whether the request may have taken effect.

use std::fmt;

/// What went wrong, in the words of every interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request makes no sense as it stands.
    InvalidArgument,
    /// A record batch is malformed or its checksum is wrong.
    InvalidBatch,
    /// A record batch is larger than the topic allows.
    MessageTooLarge,
    /// No such topic.
    UnknownTopic,
    /// The topic exists, but it has no such partition.
    UnknownPartition,
    /// A topic of that name exists already.
    TopicExists,
    /// No such consumer group.
    UnknownGroup,
    /// The consumer group has members, which would be disturbed.
    GroupInUse,
    /// The node asked is not the partition's owner, or not any more.
    NotOwner,
    /// The request carries an epoch or a term that a newer one has replaced.
    Fenced,
    /// The offset lies outside [log start, high watermark].
    OutOfRange,
    /// A producer's sequence leaves a gap.
    OutOfOrderSequence,
    /// A producer's epoch was replaced by a newer one.
    ProducerFenced,
    /// A queue is full or a limit is reached.
    Busy,
    /// An earlier request of the same lane was refused, so this one is too.
    OutOfTurn,
    /// The service, or one that it needs, cannot be reached just now.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// Storage failed.
    Storage,
    /// What storage holds is not what was written: these records cannot be read, or the partition refuses writes until
    /// an operator has looked at its damage.
    Damaged,
    /// Records changed under the transaction, or they do not allow it.
    Conflict,
    /// This version does not do that.
    Unsupported,
    /// A bug on our side.
    Internal,
}

impl ErrorCode {
    /// Every code, for exhaustive tables.
    pub const ALL: [ErrorCode; 22] = [
        ErrorCode::InvalidArgument,
        ErrorCode::InvalidBatch,
        ErrorCode::MessageTooLarge,
        ErrorCode::UnknownTopic,
        ErrorCode::UnknownPartition,
        ErrorCode::TopicExists,
        ErrorCode::UnknownGroup,
        ErrorCode::GroupInUse,
        ErrorCode::NotOwner,
        ErrorCode::Fenced,
        ErrorCode::OutOfRange,
        ErrorCode::OutOfOrderSequence,
        ErrorCode::ProducerFenced,
        ErrorCode::Busy,
        ErrorCode::OutOfTurn,
        ErrorCode::Unavailable,
        ErrorCode::Timeout,
        ErrorCode::Storage,
        ErrorCode::Damaged,
        ErrorCode::Conflict,
        ErrorCode::Unsupported,
        ErrorCode::Internal,
    ];

    /// Whether the same request may succeed later, here or at the place that newer metadata names.
    pub fn is_retriable(self) -> bool {
        matches!(
            self,
            ErrorCode::NotOwner
                | ErrorCode::Busy
                | ErrorCode::OutOfTurn
                | ErrorCode::Unavailable
                | ErrorCode::Timeout
                | ErrorCode::Storage
        )
    }
}

/// Whether a failed request may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happened {
    /// It certainly did not and will not.
    NotApplied,
    /// It may have, or may yet.
    Unknown,
}

/// An error as services tell it to each other and to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    pub code: ErrorCode,
    pub happened: Happened,
    /// For a person: lower case, no full stop, says what to do where that is known.
    pub message: String,
}

impl ServiceError {
    /// The request certainly took no effect.
    pub fn not_applied(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, happened: Happened::NotApplied, message: message.into() }
    }

    /// The request may have taken effect.
    pub fn unknown(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, happened: Happened::Unknown, message: message.into() }
    }

    /// See [`ErrorCode::is_retriable`]. Whether a retry is *safe* is the caller's to decide, from [`Self::happened`].
    pub fn is_retriable(&self) -> bool {
        self.code.is_retriable()
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        match self.happened {
            Happened::NotApplied => Ok(()),
            Happened::Unknown => out.write_str(" (it may have been applied)"),
        }
    }
}

impl std::error::Error for ServiceError {}
