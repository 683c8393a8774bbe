//! The form in which a shard's records stand in its partition; `docs/formats/shard.md` describes the bytes.
//!
//! An entry is one Kafka record: its key is one byte that says what it is, its value holds a machine's records, each
//! after its length. What one append stores is one entry, so it is kept whole or not at all; an entry that is longer
//! than a batch may be is cut into parts, of which only the last makes it count.

use bytes::{Bytes, BytesMut};
use prost::Message;

/// The most bytes of an entry, its parts together: more is damage.
const MAX_ENTRY_BYTES: usize = 64 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// What one append stores.
    Append = 0,
    /// A piece of the entry that follows it.
    Part = 1,
    /// From here on the whole state is told anew.
    SnapshotBegin = 2,
    /// Some of the whole state.
    SnapshotChunk = 3,
    /// The state told since the snapshot's beginning is whole.
    SnapshotEnd = 4,
}

/// What makes no sense in a stored entry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EntryError {
    #[error("a record has the key {0:?}, which names no kind of entry")]
    UnknownKind(Vec<u8>),
    #[error("a record has no value")]
    NoValue,
    #[error("an entry has more than {MAX_ENTRY_BYTES} bytes")]
    TooLong,
    #[error("a record cannot be read: {0}")]
    Malformed(String),
    #[error("a record makes no sense: {0}")]
    Senseless(String),
    #[error("an entry of a snapshot stands outside of one")]
    OutsideSnapshot,
}

impl EntryKind {
    pub fn key(self) -> [u8; 1] {
        [self as u8]
    }

    pub fn of_key(key: Option<&[u8]>) -> Result<Self, EntryError> {
        match key {
            Some([0]) => Ok(EntryKind::Append),
            Some([1]) => Ok(EntryKind::Part),
            Some([2]) => Ok(EntryKind::SnapshotBegin),
            Some([3]) => Ok(EntryKind::SnapshotChunk),
            Some([4]) => Ok(EntryKind::SnapshotEnd),
            other => Err(EntryError::UnknownKind(other.unwrap_or_default().to_vec())),
        }
    }
}

/// The value of an entry that holds `records`. What could not be read again is not written.
pub fn encode<R: Message>(records: &[R]) -> Result<Bytes, EntryError> {
    let length = |record: &R| {
        let length = record.encoded_len();
        length + prost::length_delimiter_len(length)
    };
    let length = records.iter().map(length).sum();
    if length > MAX_ENTRY_BYTES {
        return Err(EntryError::TooLong);
    }
    let mut value = BytesMut::with_capacity(length);
    for record in records {
        record.encode_length_delimited(&mut value).expect("the buffer grows as needed");
    }
    Ok(value.freeze())
}

/// The records that an entry's value holds.
pub fn decode<R: Message + Default>(mut value: Bytes) -> Result<Vec<R>, EntryError> {
    let mut records = Vec::new();
    while !value.is_empty() {
        records.push(R::decode_length_delimited(&mut value).map_err(|error| EntryError::Malformed(error.to_string()))?);
    }
    Ok(records)
}

/// Puts the parts of cut entries together again.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: BytesMut,
}

impl Assembler {
    /// Takes the next record of the partition; gives the entry that it completes.
    pub fn take(&mut self, key: Option<&[u8]>, value: Option<Bytes>) -> Result<Option<(EntryKind, Bytes)>, EntryError> {
        let kind = EntryKind::of_key(key)?;
        let value = value.ok_or(EntryError::NoValue)?;
        if self.parts.len() + value.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong);
        }
        if kind == EntryKind::Part {
            self.parts.extend_from_slice(&value);
            return Ok(None);
        }
        if self.parts.is_empty() {
            return Ok(Some((kind, value)));
        }
        self.parts.extend_from_slice(&value);
        Ok(Some((kind, std::mem::take(&mut self.parts).freeze())))
    }

    /// Another owner begins to write: what the older one had not completed never counted.
    pub fn begin_epoch(&mut self) {
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_cut_values_are_put_together() {
        let records = vec!["one".to_owned(), String::new(), "x".repeat(1000)];
        let value = encode(&records).unwrap();
        assert_eq!(decode::<String>(value.clone()), Ok(records.clone()));
        let mut assembler = Assembler::default();
        let (part, append) = (EntryKind::Part.key(), EntryKind::Append.key());
        assert_eq!(assembler.take(Some(&part), Some(value.slice(..10))), Ok(None));
        assert_eq!(assembler.take(Some(&part), Some(value.slice(10..20))), Ok(None));
        let (kind, whole) = assembler.take(Some(&append), Some(value.slice(20..))).unwrap().unwrap();
        assert_eq!((kind, decode::<String>(whole)), (EntryKind::Append, Ok(records)));
    }

    #[test]
    fn parts_of_an_older_owner_do_not_count() {
        let mut assembler = Assembler::default();
        let value = encode(&["whole".to_owned()]).unwrap();
        assert_eq!(assembler.take(Some(&EntryKind::Part.key()), Some(Bytes::from_static(b"half"))), Ok(None));
        assembler.begin_epoch();
        let taken = assembler.take(Some(&EntryKind::Append.key()), Some(value.clone()));
        assert_eq!(taken, Ok(Some((EntryKind::Append, value))));
    }

    #[test]
    fn nonsense_is_named() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(None, Some(Bytes::new())), Err(EntryError::UnknownKind(vec![])));
        assert_eq!(assembler.take(Some(b"ab"), Some(Bytes::new())), Err(EntryError::UnknownKind(b"ab".to_vec())));
        assert_eq!(assembler.take(Some(&[0]), None), Err(EntryError::NoValue));
        assert!(matches!(decode::<String>(Bytes::from_static(&[200])), Err(EntryError::Malformed(_))));
        let half = Bytes::from(vec![0; MAX_ENTRY_BYTES / 2 + 1]);
        assert_eq!(assembler.take(Some(&[1]), Some(half.clone())), Ok(None));
        assert_eq!(assembler.take(Some(&[1]), Some(half.clone())), Err(EntryError::TooLong));
        assert_eq!(encode(&[half.clone(), half]), Err(EntryError::TooLong));
    }
}
