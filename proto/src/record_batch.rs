//! Kafka's record batch v2: the bytes that producers send, segments store and consumers receive.
//!
//! A batch crosses the whole system as it was sent: only its base offset and leader epoch are written, in place, when
//! the partition's owner assigns offsets. Services read the fixed header and check the CRC; only clients open the
//! records. The layout is described in `docs/formats/record-batch.md`; its source is Apache Kafka's protocol guide.
//!
//! ```text
//!  0            8        12           16    17    21                                   57     61
//!  | baseOffset | length | leaderEpoch| magic| crc | attributes … baseSequence          | count | records …
//!  └── patched ─┘        └─ patched ──┘            └──────────── covered by the CRC ────────────────────────▶
//!                        └──────────────────── `length` counts from here ───────────────────────────────────▶
//! ```
//!
//! Nothing in here panics, or allocates by a number it has not checked, on bytes from outside.

mod assign;
mod builder;
mod codec;
mod error;
mod header;
mod record;
mod retain;
mod rewrite;
mod snappy;
mod split;
mod validate;
mod varint;

#[cfg(test)]
mod tests;

pub use assign::{assign, patch_assigned};
pub use builder::{BatchBuilder, HeaderRef, max_record_len};
pub use codec::Codec;
pub use error::{BatchError, Bound};
pub use header::{BatchHeader, ProducerKey, TimestampType, add_to_sequence, verify_crc};
pub use record::{Record, RecordIter, RecordLimits, records};
pub use retain::{Retained, Verdict, retain};
pub use rewrite::{check_keys, recompress, stamp_append_time, state_max_timestamp};
pub use split::{BatchIter, split_batches};
pub use validate::{BatchLimits, validate_produced};

/// Bytes of a batch before its first record.
pub const HEADER_LEN: usize = 61;

/// Bytes of a batch that its length field does not count: the base offset and the length itself.
pub const LENGTH_PREFIX: usize = 12;

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// The only version of the format that we know.
const MAGIC: i8 = 2;

/// Length of the shortest record: seven fields of one byte (length, attributes, timestamp, offset, null key, null
/// value, no headers).
const MIN_RECORD_LEN: usize = 7;

/// Where each field of the header begins.
mod field {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

/// Bits of the attributes.
mod attribute {
    pub const CODEC: i16 = 0b0000_0111;
    pub const LOG_APPEND_TIME: i16 = 0b0000_1000;
    pub const TRANSACTIONAL: i16 = 0b0001_0000;
    pub const CONTROL: i16 = 0b0010_0000;
    pub const DELETE_HORIZON: i16 = 0b0100_0000;
}
