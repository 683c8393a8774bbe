//! What the members of a consumer group subscribe to, as far as the coordinator needs to know.
//!
//! A consumer's metadata is Kafka's `ConsumerProtocolSubscription`. All versions begin as version 0 does: the version,
//! then the topics' names; what follows is for the leader only.

use std::collections::BTreeSet;

use super::{CONSUMER, ClassicGroup};
use crate::group::membership::UsedTopics;

impl ClassicGroup {
    /// Members of other kinds than consumers have no offsets that the coordinator knows the use of.
    pub fn used_topics(&self) -> UsedTopics {
        if self.protocol_type != CONSUMER {
            return UsedTopics::Named(BTreeSet::new());
        }
        self.subscribed_topics().map_or(UsedTopics::All, UsedTopics::Named)
    }

    /// All topics that members subscribe to; nothing if that cannot be read.
    fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(parse_topics(member.metadata(&self.protocol)?)?.into_iter().map(str::to_owned));
        }
        Some(topics)
    }
}

/// The topics' names in a consumer's metadata; nothing if it is not well formed.
pub(crate) fn parse_topics(metadata: &[u8]) -> Option<Vec<&str>> {
    let (_version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, tail) = tail.split_at_checked(length)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = tail;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version() {
        let metadata = b"\x00\x03\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff whatever follows";
        assert_eq!(parse_topics(metadata), Some(vec!["a", "bc"]));
    }

    #[test]
    fn a_count_that_lies_is_no_subscription() {
        assert_eq!(parse_topics(b"\x00\x00\x7f\xff\xff\xff\x00\x01a"), None);
        assert_eq!(parse_topics(b"\x00\x00\xff\xff\xff\xff"), None);
        assert_eq!(parse_topics(b"\x00"), None);
    }
}
