//! The bytes inside the classic protocol: what a consumer subscribes to, and what it is assigned
//! (Kafka's `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`, versions 0 to 3).
//!
//! Counts are believed only as far as bytes follow: nothing is allocated for what is not there.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

/// The newest version that is known. A newer one begins as this does.
const NEWEST: i16 = 3;

/// A topic's name with partitions, as often as it is listed.
pub(super) type NamedPartitions = Vec<(String, Vec<u32>)>;

/// What a consumer says when it joins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub version: i16,
    pub topics: Vec<String>,
    /// From version 1 on. Older consumers have given up everything when they join.
    pub owned: NamedPartitions,
    /// From version 3 on.
    pub rack: Option<String>,
}

/// What a consumer is told that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub partitions: NamedPartitions,
    /// Whether the assignor added something of its own, which we could not keep.
    pub has_user_data: bool,
}

impl Subscription {
    /// Nothing if the bytes are not well formed.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let version = Some(reader.i16()?).filter(|version| *version >= 0)?.min(NEWEST);
        let topics = reader.array(|reader| Some(reader.string()?.to_owned()))?;
        reader.nullable_bytes()?;
        let owned = if version >= 1 { reader.array(Reader::named_partitions)? } else { Vec::new() };
        if version >= 2 {
            // The generation in which it owned them.
            reader.i32()?;
        }
        let rack = if version >= 3 { reader.nullable_string()?.map(str::to_owned) } else { None };
        Some(Self { version, topics, owned, rack })
    }
}

impl Assignment {
    /// Nothing if the bytes are not well formed. No bytes are no assignment.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self { partitions: Vec::new(), has_user_data: false });
        }
        let mut reader = Reader(bytes);
        Some(reader.i16()?).filter(|version| *version >= 0)?;
        let partitions = reader.array(Reader::named_partitions)?;
        let user_data = reader.nullable_bytes()?;
        Some(Self { partitions, has_user_data: user_data.is_some_and(|bytes| !bytes.is_empty()) })
    }

    /// The bytes for a consumer that speaks this version.
    pub fn write(version: i16, partitions: &BTreeMap<&str, Vec<u32>>) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_i16(version);
        put_count(&mut bytes, partitions.len());
        for (topic, numbers) in partitions {
            bytes.put_i16(i16::try_from(topic.len()).expect("topics' names are short"));
            bytes.put_slice(topic.as_bytes());
            put_count(&mut bytes, numbers.len());
            numbers.iter().for_each(|number| bytes.put_u32(*number));
        }
        bytes.put_i32(-1);
        bytes.freeze()
    }
}

fn put_count(bytes: &mut BytesMut, count: usize) {
    bytes.put_i32(i32::try_from(count).expect("a group's partitions are fewer"));
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take(2)?.try_into().ok().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4)?.try_into().ok().map(i32::from_be_bytes)
    }

    fn string(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.i16()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// The inner one is none for null.
    fn nullable_string(&mut self) -> Option<Option<&'a str>> {
        match self.i16()? {
            -1 => Some(None),
            length => std::str::from_utf8(self.take(usize::try_from(length).ok()?)?).ok().map(Some),
        }
    }

    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    /// Each element takes bytes, so a count that lies comes to the end of them.
    fn array<T>(&mut self, element: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.i32()?;
        (0..usize::try_from(count).ok()?).map(|_| element(self)).collect()
    }

    fn named_partitions(&mut self) -> Option<(String, Vec<u32>)> {
        let topic = self.string()?.to_owned();
        let partitions = self.array(|reader| u32::try_from(reader.i32()?).ok())?;
        Some((topic, partitions))
    }
}

#[cfg(test)]
impl Subscription {
    /// The bytes of version 1, as a consumer writes them.
    pub fn write(topics: &[&str], owned: &[(&str, u32)]) -> Bytes {
        let mut bytes = BytesMut::new();
        let put_name = |bytes: &mut BytesMut, name: &str| {
            bytes.put_u16(name.len() as u16);
            bytes.put_slice(name.as_bytes());
        };
        bytes.put_u16(1);
        put_count(&mut bytes, topics.len());
        topics.iter().for_each(|topic| put_name(&mut bytes, topic));
        bytes.put_i32(-1);
        put_count(&mut bytes, owned.len());
        for (topic, number) in owned {
            put_name(&mut bytes, topic);
            put_count(&mut bytes, 1);
            bytes.put_u32(*number);
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_subscription_of_each_version() {
        let v0 = b"\x00\x00\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff";
        let read = Subscription::read(v0).unwrap();
        assert_eq!((read.version, read.topics), (0, vec!["a".to_owned(), "bc".to_owned()]));
        let v3 = b"\x00\x03\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x01!\
            \x00\x00\x00\x01\x00\x01a\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x07\x00\x01r";
        let read = Subscription::read(v3).unwrap();
        assert_eq!((read.owned, read.rack), (vec![("a".to_owned(), vec![0, 5])], Some("r".to_owned())));
        let mut newer = v3.to_vec();
        newer[1] = 9;
        newer.extend(b"whatever follows");
        assert_eq!(Subscription::read(&newer).unwrap().version, NEWEST);
    }

    #[test]
    fn an_assignment_reads_as_written() {
        let bytes = Assignment::write(1, &BTreeMap::from([("a", vec![0, 2]), ("b", vec![1])]));
        let partitions = vec![("a".to_owned(), vec![0, 2]), ("b".to_owned(), vec![1])];
        assert_eq!(Assignment::read(&bytes), Some(Assignment { partitions, has_user_data: false }));
        assert_eq!(Assignment::read(b"").unwrap().partitions, []);
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        assert_eq!(Subscription::read(b"\x00\x00\x7f\xff\xff\xff\x00\x01a"), None);
        assert_eq!(Subscription::read(b"\x00\x00\xff\xff\xff\xff"), None);
        assert_eq!(Subscription::read(b"\x00\x00\x00\x00\x00\x01\x7f\xffa"), None);
        assert_eq!(Assignment::read(b"\x00\x00\x00\x00\x00\x01\x00\x01a\x7f\xff\xff\xff"), None);
        assert_eq!(Assignment::read(b"\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Subscription::read(&bytes), Assignment::read(&bytes));
        }
    }
}
