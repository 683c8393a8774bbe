//! The names of things: clusters, topics, partitions, nodes, epochs, offsets, positions, files.
//!
//! Each is a type of its own, so that no bare integer crosses a function boundary.
//! Text forms parse back to the same value; they are used in keys, paths and on the command line.

use std::fmt;
use std::str::FromStr;

/// A text that should have named something and does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct ParseIdError {
    /// What was expected, as a reader would say it: "topic id".
    pub what: &'static str,
    /// What was found.
    pub text: String,
}

fn parse_error(what: &'static str, text: &str) -> ParseIdError {
    ParseIdError { what, text: text.to_owned() }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random id.
            pub fn random() -> Self {
                Self(*uuid::Uuid::new_v4().as_bytes())
            }

            /// Reads the 16 raw bytes used on the wire and in records.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                let array = bytes.try_into().map_err(|_| parse_error($what, &format!("{bytes:02x?}")))?;
                Ok(Self(array))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}", uuid::Uuid::from_bytes(self.0).as_simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 32 {
                    return Err(parse_error($what, text));
                }
                let id = uuid::Uuid::try_parse(text).map_err(|_| parse_error($what, text))?;
                Ok(Self(*id.as_bytes()))
            }
        }
    };
}

uuid_id!(
    /// Names one cluster for ever; stands in every segment header and every path of a store.
    ClusterId, "cluster id"
);
uuid_id!(
    /// Names one topic for ever: a topic deleted and made again under its old name has another id.
    TopicId, "topic id"
);

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self).map_err(|_| parse_error($what, text))
            }
        }
    };
}

number_id!(
    /// A partition's number within its topic, from 0.
    PartitionId, u32, "partition number"
);
number_id!(
    /// A node's configured number, unique among the nodes of its kind.
    NodeId, u32, "node id"
);
number_id!(
    /// Distinguishes two runs of the same node: random, new at each process start.
    Incarnation, u64, "incarnation"
);
number_id!(
    /// The number of a claim on a partition, from 1; 0 means never claimed. Equals Kafka's leader epoch,
    /// so it stays at or below `i32::MAX`.
    Epoch, u32, "epoch"
);
number_id!(
    /// A record's place in its partition, from 0. Equals Kafka's offset, so it stays at or below `i64::MAX`.
    Offset, u64, "offset"
);
number_id!(
    /// A place in a segment file, in bytes from the file's first byte (its header included).
    BytePosition, u64, "byte position"
);
number_id!(
    /// The number of a controller's term; grows with each election.
    Term, u64, "term"
);

impl Epoch {
    /// The epoch of a partition that was never claimed.
    pub const NONE: Epoch = Epoch(0);

    /// The epoch of the next claim.
    pub fn next(self) -> Epoch {
        assert!(self.0 < i32::MAX as u32, "epochs are used up");
        Epoch(self.0 + 1)
    }
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records later.
    pub fn plus(self, count: u64) -> Offset {
        Offset(self.0 + count)
    }
}

impl BytePosition {
    /// The file's first byte.
    pub const ZERO: BytePosition = BytePosition(0);

    /// The position `length` bytes later.
    pub fn plus(self, length: u64) -> BytePosition {
        BytePosition(self.0 + length)
    }

    /// How many bytes lie between `earlier` and this position.
    pub fn since(self, earlier: BytePosition) -> u64 {
        assert!(earlier <= self, "position {self} lies before {earlier}");
        self.0 - earlier.0
    }
}

/// One partition of one topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TopicPartition {
    pub topic: TopicId,
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.topic, self.partition)
    }
}

/// Names one segment file within its partition's folder: the epoch of the claim that created it and a nonce.
///
/// The name holds no offset, so a file can be created before it is known where it will start.
/// A name is never used twice: a second try to create takes another nonce.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    pub epoch: Epoch,
    pub nonce: u64,
}

impl fmt::Display for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:010}-{:016x}", self.epoch.0, self.nonce)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for FileId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || parse_error("segment file name", text);
        let (epoch, nonce) = text.split_once('-').ok_or_else(wrong)?;
        if epoch.len() != 10 || nonce.len() != 16 {
            return Err(wrong());
        }
        Ok(FileId {
            epoch: epoch.parse().map_err(|_| wrong())?,
            nonce: u64::from_str_radix(nonce, 16).map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_parse_back() {
        let topic = TopicId::random();
        assert_eq!(topic.to_string().parse(), Ok(topic));
        let file = FileId { epoch: Epoch(7), nonce: 0xabc };
        assert_eq!(file.to_string(), "0000000007-0000000000000abc");
        assert_eq!(file.to_string().parse(), Ok(file));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in
            ["", "7-abc", "0000000007-0000000000000abg", "0000000007_0000000000000abc", "0000000007-0000000000000abcd"]
        {
            assert!(text.parse::<FileId>().is_err(), "{text}");
        }
        assert!("0123".parse::<TopicId>().is_err());
    }
}
