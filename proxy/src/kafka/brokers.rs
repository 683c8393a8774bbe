//! The proxies as Kafka's clients see them: the brokers of the cluster, each partition led by one of them.
//!
//! Any proxy serves any partition. The leader told is the proxy that rendezvous hashing gives, so that one proxy
//! caches one partition, and few leaders change when a proxy comes or goes.

use bmq_kafka::StrBytes;
use bmq_kafka::messages::BrokerId;
use bmq_proto::{NodeId, TopicPartition};

use super::RequestContext;

/// A proxy that has a listener of the name that the client came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub node: NodeId,
    pub host: StrBytes,
    pub port: i32,
}

impl Broker {
    fn parse(node: NodeId, endpoint: &str) -> Option<Self> {
        let (host, port) = endpoint.rsplit_once(':')?;
        // An IPv6 address stands in brackets before a port, and without them elsewhere.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok()?;
        Some(Self { node, host: StrBytes::from_string(host.to_owned()), port: port.into() })
    }

    pub fn id(&self) -> BrokerId {
        broker_id(self.node)
    }
}

/// A proxy's number as Kafka's protocol has it.
pub fn broker_id(node: NodeId) -> BrokerId {
    BrokerId(node.0 as i32)
}

/// All brokers for a client, by node; this proxy is always among them.
pub fn brokers(context: &RequestContext<'_>) -> Vec<Broker> {
    let own = context.api.config.node();
    let listener = &*context.client.listener;
    let mut brokers: Vec<Broker> = (context.api.directory.proxies().iter())
        .filter(|session| session.node != own)
        .filter_map(|session| Broker::parse(session.node, session.endpoints.get(listener)?))
        .collect();
    brokers.extend(context.api.kafka.endpoints.get(listener).and_then(|endpoint| Broker::parse(own, endpoint)));
    brokers.sort_by_key(|broker| broker.node);
    brokers
}

/// The broker that is told as the partition's leader.
pub fn leader(brokers: &[Broker], partition: TopicPartition) -> Option<&Broker> {
    brokers.iter().max_by_key(|broker| (weight(broker.node, partition), broker.node))
}

/// The broker that is told as the group's coordinator: any proxy finds the coordinator of any group.
pub fn coordinator<'a>(brokers: &'a [Broker], group: &str) -> Option<&'a Broker> {
    let group = group.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
    brokers.iter().max_by_key(|broker| (mix(group ^ u64::from(broker.node.0)), broker.node))
}

/// The same on every proxy and in every version.
fn weight(node: NodeId, partition: TopicPartition) -> u64 {
    let (high, low) = partition.topic.0.split_at(8);
    let number = |half: &[u8]| u64::from_be_bytes(half.try_into().expect("half of 16 bytes are 8"));
    let words = [number(high), number(low), partition.partition.0.into(), node.0.into()];
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

/// The finalizer of SplitMix64: every bit of the word moves every bit of the result.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bmq_proto::{PartitionId, TopicId};

    use super::*;

    fn cluster(nodes: impl IntoIterator<Item = u32>) -> Vec<Broker> {
        nodes.into_iter().map(|node| Broker::parse(NodeId(node), "host:1").unwrap()).collect()
    }

    fn leaders(brokers: &[Broker]) -> Vec<NodeId> {
        let partition = |number| TopicPartition { topic: TopicId([7; 16]), partition: PartitionId(number) };
        (0..600).map(|number| leader(brokers, partition(number)).unwrap().node).collect()
    }

    #[test]
    fn endpoints_are_taken_apart() {
        let check = |endpoint: &str, expect: Option<(&str, i32)>| {
            let broker = Broker::parse(NodeId(1), endpoint);
            assert_eq!(broker.as_ref().map(|broker| (broker.host.as_str(), broker.port)), expect, "{endpoint}");
        };
        check("proxy-1.example:9092", Some(("proxy-1.example", 9092)));
        check("[::1]:9092", Some(("::1", 9092)));
        check("proxy-1", None);
        check("proxy-1:70000", None);
    }

    #[test]
    fn groups_are_spread_and_move_only_off_a_broker_that_went() {
        let of = |brokers: &[Broker]| -> Vec<NodeId> {
            (0..600).map(|number| coordinator(brokers, &format!("group-{number}")).unwrap().node).collect()
        };
        let before = of(&cluster([1, 2, 3]));
        assert!(
            [1, 2, 3].map(|node| before.iter().filter(|it| **it == NodeId(node)).count()).iter().all(|it| *it > 150)
        );
        let after = of(&cluster([1, 3]));
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == NodeId(2)));
    }

    #[test]
    fn leaders_are_spread_and_move_only_off_a_broker_that_went() {
        let before = leaders(&cluster([1, 2, 3]));
        let mut load: HashMap<NodeId, usize> = HashMap::new();
        before.iter().for_each(|node| *load.entry(*node).or_default() += 1);
        assert!(load.len() == 3 && load.values().all(|count| (150..250).contains(count)), "{load:?}");
        let after = leaders(&cluster([1, 3]));
        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == NodeId(2)));
    }
}
