//! What can be wrong with the bytes of a batch.

use std::fmt;
use std::io;

use super::Codec;
use crate::error::ErrorCode;

/// A batch that cannot be used, and why.
///
/// All of these come from looking at bytes, so nothing has happened yet, and the same bytes fail again.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside the batch; what is there may be good. At the end of a segment this is a torn write.
    #[error("batch is cut short: needs {needed} bytes, has {have}")]
    Truncated {
        /// Bytes the batch needs, as far as is known: the header's, until that is there.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A field has a value that no writer of the format gives it.
    #[error("batch is corrupt: {field} is {found}, must be {expected}")]
    Corrupt {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: i64,
        /// What its value may be.
        expected: Bound,
    },
    /// A variable-length integer in the records does not end where it must.
    #[error("batch is corrupt: {field} at byte {position} of the records is not a whole varint")]
    BadVarint {
        /// The field's name.
        field: &'static str,
        /// Where the field begins in the uncompressed records.
        position: usize,
    },
    /// The bytes changed after the batch was built.
    #[error("batch is corrupt: its checksum is {stored:#010x}, its bytes give {computed:#010x}")]
    CrcMismatch {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// The compressed records cannot be decompressed.
    #[error("batch is corrupt: its records are not valid {codec}")]
    Decompress {
        /// The codec named by the header.
        codec: Codec,
        /// What the codec found.
        source: io::Error,
    },
    /// The batch is larger than is allowed.
    #[error("batch has {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// The batch's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The records grow past the limit when they are decompressed.
    #[error("records decompress to more than the {max} bytes that are allowed")]
    DecompressedTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The batch is well formed, but a producer may not send it.
    #[error("batch is not one that a producer may send: {field} is {found}, must be {expected}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: i64,
        /// What its value may be.
        expected: Bound,
    },
    /// A record without a key, where compaction goes by keys.
    #[error("record {number} of the batch has no key, and the topic is compacted")]
    KeyMissing {
        /// The record's place in the batch, from 0.
        number: usize,
    },
    /// The batch belongs to a transaction.
    #[error("transactional batches are not supported")]
    UnsupportedTransaction,
}

impl BatchError {
    /// Whether the bytes are not what a writer wrote, as against cut short, too large, or not allowed.
    pub fn is_corrupt(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. } | Self::BadVarint { .. } | Self::CrcMismatch { .. } | Self::Decompress { .. }
        )
    }

    /// The code under which a producer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::UnsupportedTransaction => ErrorCode::Unsupported,
            Self::KeyMissing { .. } => ErrorCode::InvalidArgument,
            Self::Truncated { .. }
            | Self::Corrupt { .. }
            | Self::BadVarint { .. }
            | Self::CrcMismatch { .. }
            | Self::Decompress { .. }
            | Self::Invalid { .. } => ErrorCode::InvalidBatch,
        }
    }
}

/// What a field's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// This value only.
    Exactly(i64),
    /// This value or a greater one.
    AtLeast(i64),
    /// This value or a smaller one.
    AtMost(i64),
}

impl Bound {
    /// `Ok` if `found` keeps to the bound, else the error that the batch is corrupt.
    pub(super) fn check(self, field: &'static str, found: i64) -> Result<(), BatchError> {
        if self.admits(found) { Ok(()) } else { Err(BatchError::Corrupt { field, found, expected: self }) }
    }

    /// `Ok` if `found` keeps to the bound, else the error that no producer may send the batch.
    pub(super) fn demand(self, field: &'static str, found: i64) -> Result<(), BatchError> {
        if self.admits(found) { Ok(()) } else { Err(BatchError::Invalid { field, found, expected: self }) }
    }

    fn admits(self, found: i64) -> bool {
        match self {
            Self::Exactly(value) => found == value,
            Self::AtLeast(value) => found >= value,
            Self::AtMost(value) => found <= value,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(value) => write!(out, "{value}"),
            Self::AtLeast(value) => write!(out, "at least {value}"),
            Self::AtMost(value) => write!(out, "at most {value}"),
        }
    }
}
