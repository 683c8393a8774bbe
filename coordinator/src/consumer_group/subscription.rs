//! What members are subscribed to: topics by name and by regular expression, against the topics that exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bmq_proto::TopicId;
use regex::{Regex, RegexBuilder};

use super::ConsumerGroup;
use crate::assignor::MemberId;
use crate::group::error::GroupError;
use crate::topics::{Topic, Topics};

/// What a compiled regular expression may take. Matching takes time linear in the topic's name.
const MAX_REGEX_BYTES: usize = 256 << 10;

/// The subscriptions of a group's members, resolved against the topics that exist.
#[derive(Debug)]
pub(super) struct Resolved {
    /// Equal subscriptions share one set.
    pub topics: BTreeMap<MemberId, Arc<BTreeSet<TopicId>>>,
    /// The number of partitions of each topic that somebody subscribes to.
    pub sizes: BTreeMap<TopicId, u32>,
    /// Changes when one of these topics is created, deleted, or grows; the same in every process.
    pub hash: u64,
}

/// Compiles a pattern that must match a topic's whole name.
pub(super) fn compile(pattern: &str) -> Result<Regex, GroupError> {
    let build = |text: &str| {
        RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build().map_err(|_| GroupError::InvalidRegularExpression)
    };
    // By itself first: `a)|(b` would be valid in brackets.
    build(pattern)?;
    // The line ends a comment, which the pattern may end with in verbose mode; elsewhere it would be matched.
    build(&format!(r"\A(?:{pattern})\z")).or_else(|_| build(&format!("\\A(?:{pattern}\n)\\z")))
}

/// The names of the topics that match, none for a pattern that is not valid: those are refused before they are stored.
fn matching(pattern: &str, topics: &Topics) -> Vec<String> {
    let Ok(regex) = compile(pattern) else { return Vec::new() };
    topics.iter().filter(|topic| regex.is_match(&topic.name)).map(|topic| topic.name.clone()).collect()
}

impl ConsumerGroup {
    pub(super) fn resolve(&mut self, topics: &Topics) -> Resolved {
        self.match_topics(topics);
        let mut subscribed: BTreeMap<&str, &Topic> = BTreeMap::new();
        let mut known: HashMap<(&[String], &str), Arc<BTreeSet<TopicId>>> = HashMap::new();
        let mut by_member = BTreeMap::new();
        for (id, subscription) in self.subscriptions() {
            let key = (subscription.topics.as_slice(), subscription.regex.as_str());
            let ids = known.entry(key).or_insert_with(|| {
                let matches = self.matches.get(&subscription.regex).into_iter().flatten();
                let found: Vec<&Topic> =
                    subscription.topics.iter().chain(matches).filter_map(|name| topics.named(name)).collect();
                subscribed.extend(found.iter().map(|topic| (topic.name.as_str(), *topic)));
                Arc::new(found.into_iter().map(|topic| topic.id).collect())
            });
            by_member.insert(MemberId::clone(id), Arc::clone(ids));
        }
        Resolved {
            topics: by_member,
            hash: hash_of(subscribed.values().copied()),
            sizes: subscribed.into_values().map(|topic| (topic.id, topic.partitions)).collect(),
        }
    }

    /// Looks for the topics of regular expressions that it was not looked for yet, and forgets those not in use.
    fn match_topics(&mut self, topics: &Topics) {
        let mut known = std::mem::take(&mut self.matches);
        let mut matches = BTreeMap::new();
        for pattern in self.patterns() {
            let (pattern, found) =
                known.remove_entry(pattern).unwrap_or_else(|| (pattern.to_owned(), matching(pattern, topics)));
            matches.insert(pattern, found);
        }
        self.matches = matches;
    }

    /// The names that members are subscribed to, whether such topics exist or not.
    pub fn subscribed_topics(&self, topics: &Topics) -> BTreeSet<String> {
        let mut names: BTreeSet<String> =
            self.subscriptions().flat_map(|(_, subscription)| subscription.topics.iter().cloned()).collect();
        for pattern in self.patterns() {
            match self.matches.get(pattern) {
                Some(found) => names.extend(found.iter().cloned()),
                None => names.extend(matching(pattern, topics)),
            }
        }
        names
    }

    /// The regular expressions in use.
    fn patterns(&self) -> BTreeSet<&str> {
        let all = self.subscriptions().map(|(_, subscription)| subscription.regex.as_str());
        all.filter(|pattern| !pattern.is_empty()).collect()
    }
}

/// FNV-1a over names, ids and sizes, each name ended by a byte that no name has. 0 stands for no topics.
fn hash_of<'a>(topics: impl Iterator<Item = &'a Topic>) -> u64 {
    let mut hash = 0;
    for topic in topics {
        let bytes = topic.name.bytes().chain([0]).chain(topic.id.0).chain(topic.partitions.to_be_bytes());
        let start = if hash == 0 { 0xcbf2_9ce4_8422_2325 } else { hash };
        hash = bytes.fold(start, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    }
    hash
}
