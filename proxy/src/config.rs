//! What an operator may set of a proxy.

use bmq_common::{ByteSize, HumanDuration};
use bmq_proto::NodeId;
use bmq_proto::meta::MIN_SESSION_TTL;
use bmq_proto::rpc::MAX_MESSAGE_BYTES;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A proxy's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyConfig {
    /// Unique among the proxies.
    pub node_id: u32,
    /// How long the proxy's session outlives its last keep-alive. A session only tells people that the proxy is there.
    pub session_ttl: HumanDuration,
    /// The longest that a call to the metadata service is waited for.
    pub metadata_timeout: HumanDuration,
    /// How long calls and streams may go on after the shutdown has begun.
    pub drain_wait: HumanDuration,
    pub produce: ProduceConfig,
    pub fetch: FetchConfig,
    pub kafka: KafkaConfig,
}

/// How batches are taken and forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProduceConfig {
    /// The largest record batch taken; the topic's own limit, which its owner applies, may be less.
    pub max_batch_bytes: ByteSize,
    /// What one client connection may have unanswered.
    pub connection_bytes: ByteSize,
    pub connection_batches: u32,
    /// What all connections together may have unanswered; beyond it they are read no further.
    pub total_bytes: ByteSize,
    /// How many batches of one connection may be under way to one partition.
    pub lane_batches: u32,
    /// How long a batch may take from its arrival to its answer, waiting for an owner and retries included.
    pub answer_timeout: HumanDuration,
    /// How long opening a stream to a broker may take.
    pub connect_timeout: HumanDuration,
    /// The first and the longest back-off before a refused batch is tried again.
    pub retry_first: HumanDuration,
    pub retry_max: HumanDuration,
}

/// How reads are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchConfig {
    /// The most batch bytes in one answer, unless one batch alone is larger.
    pub max_bytes: ByteSize,
    /// The most that a client may ask to be sent ahead on one stream.
    pub max_credit_bytes: ByteSize,
    /// The most partitions on one stream.
    pub max_positions: u32,
    /// The longest long poll.
    pub max_wait: HumanDuration,
    /// How long a read that could be answered may take, waiting for an owner and retries included.
    pub answer_timeout: HumanDuration,
    /// How long one call to a broker or one read of a file may take.
    pub call_timeout: HumanDuration,
    /// How long a fetch stream may be silent before a heartbeat is sent.
    pub heartbeat_interval: HumanDuration,
    /// Recent batches kept of one partition that somebody tails, and of all of them together.
    pub ring_bytes: ByteSize,
    pub ring_total_bytes: ByteSize,
    /// How long a partition's tail is followed after its last reader has left.
    pub ring_ttl: HumanDuration,
    /// What may be kept in memory of closed segments, by chunks of 1 MiB.
    pub chunk_cache_bytes: ByteSize,
    /// What may be being loaded ahead of its readers at one time, for all of them together.
    pub read_ahead_bytes: ByteSize,
    /// The first and the longest back-off before a read is tried again.
    pub retry_first: HumanDuration,
    pub retry_max: HumanDuration,
}

/// How Kafka clients are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaConfig {
    /// How many connections there may be, over all listeners; more are closed as soon as they are made.
    pub max_connections: u32,
    /// The longest request taken.
    pub max_request_bytes: ByteSize,
    /// How many requests of one connection may be unanswered before it is read no further.
    pub connection_requests: u32,
    /// How long a connection may be without a request.
    pub idle_timeout: HumanDuration,
    /// How long a request that has begun to arrive may pause.
    pub receive_timeout: HumanDuration,
    /// How long a client may let an answer wait before it is cut off; a large answer has a second more for each 64 KiB.
    pub write_timeout: HumanDuration,
    /// The most batch bytes in one fetch answer, whatever the client allows, unless one batch alone is larger.
    pub max_fetch_bytes: ByteSize,
    /// What all fetch answers under way may hold; answers get smaller as it is used up.
    pub fetch_total_bytes: ByteSize,
    /// How many fetch sessions are remembered; more clients can fetch, but send all their partitions each time.
    pub fetch_sessions: u32,
    /// Whether a topic that a client asks for and that is not there is created, if the client wants that too.
    pub auto_create_topics: bool,
    /// How many partitions such a topic gets, and one that a client creates without saying how many.
    pub num_partitions: u32,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            node_id: 1,
            session_ttl: HumanDuration::secs(3),
            metadata_timeout: HumanDuration::secs(5),
            drain_wait: HumanDuration::secs(4),
            produce: ProduceConfig::default(),
            fetch: FetchConfig::default(),
            kafka: KafkaConfig::default(),
        }
    }
}

impl Default for ProduceConfig {
    fn default() -> Self {
        Self {
            max_batch_bytes: ByteSize::mib(16),
            connection_bytes: ByteSize::mib(32),
            connection_batches: 4096,
            total_bytes: ByteSize::mib(512),
            lane_batches: 256,
            answer_timeout: HumanDuration::secs(30),
            connect_timeout: HumanDuration::secs(5),
            retry_first: HumanDuration::millis(10),
            retry_max: HumanDuration::millis(500),
        }
    }
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            max_bytes: ByteSize::mib(1),
            max_credit_bytes: ByteSize::mib(64),
            max_positions: 10_000,
            max_wait: HumanDuration::secs(60),
            answer_timeout: HumanDuration::secs(30),
            call_timeout: HumanDuration::secs(10),
            heartbeat_interval: HumanDuration::secs(5),
            ring_bytes: ByteSize::mib(8),
            ring_total_bytes: ByteSize::mib(512),
            ring_ttl: HumanDuration::secs(30),
            chunk_cache_bytes: ByteSize::mib(512),
            read_ahead_bytes: ByteSize::mib(64),
            retry_first: HumanDuration::millis(10),
            retry_max: HumanDuration::millis(500),
        }
    }
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_request_bytes: ByteSize::mib(32),
            connection_requests: 64,
            idle_timeout: HumanDuration::secs(600),
            receive_timeout: HumanDuration::secs(30),
            write_timeout: HumanDuration::secs(30),
            max_fetch_bytes: ByteSize::mib(16),
            fetch_total_bytes: ByteSize::mib(512),
            fetch_sessions: 1000,
            auto_create_topics: false,
            num_partitions: 3,
        }
    }
}

/// The settings contradict each other or the rest of the system.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidConfig {
    #[error("session_ttl is {0}, it must be at least {min}", min = HumanDuration(MIN_SESSION_TTL))]
    SessionTooShort(HumanDuration),
    #[error("{0} must not be zero")]
    Zero(&'static str),
    #[error("{smaller} is {value}, it must be at most {limit}, which is {larger}")]
    Above { smaller: &'static str, value: ByteSize, larger: &'static str, limit: ByteSize },
    #[error("{section}.retry_first is {first}, it must be at most retry_max, which is {max}")]
    Retry { section: &'static str, first: HumanDuration, max: HumanDuration },
}

impl ProxyConfig {
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }

    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.session_ttl.get() < MIN_SESSION_TTL {
            return Err(InvalidConfig::SessionTooShort(self.session_ttl));
        }
        above_zero("metadata_timeout", self.metadata_timeout.get().as_nanos())?;
        self.produce.validate()?;
        self.fetch.validate()?;
        self.kafka.validate(&self.produce)
    }
}

impl ProduceConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        above_zero("produce.max_batch_bytes", self.max_batch_bytes.0.into())?;
        above_zero("produce.connection_batches", self.connection_batches.into())?;
        above_zero("produce.lane_batches", self.lane_batches.into())?;
        above_zero("produce.answer_timeout", self.answer_timeout.get().as_nanos())?;
        above_zero("produce.connect_timeout", self.connect_timeout.get().as_nanos())?;
        // A message holds more than its batch.
        let message = ByteSize(MAX_MESSAGE_BYTES as u64 / 2);
        ordered(("produce.max_batch_bytes", self.max_batch_bytes), ("half of the message limit", message))?;
        // Credit is handed back by eighths, and what is left must still admit the largest batch.
        let half_a_window = ByteSize(self.connection_bytes.0 / 2);
        ordered(
            ("produce.max_batch_bytes", self.max_batch_bytes),
            ("half of produce.connection_bytes", half_a_window),
        )?;
        ordered(("produce.connection_bytes", self.connection_bytes), ("produce.total_bytes", self.total_bytes))?;
        retry("produce", self.retry_first, self.retry_max)
    }
}

impl FetchConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        above_zero("fetch.max_bytes", self.max_bytes.0.into())?;
        above_zero("fetch.max_positions", self.max_positions.into())?;
        above_zero("fetch.answer_timeout", self.answer_timeout.get().as_nanos())?;
        above_zero("fetch.call_timeout", self.call_timeout.get().as_nanos())?;
        above_zero("fetch.heartbeat_interval", self.heartbeat_interval.get().as_nanos())?;
        let message = ByteSize(MAX_MESSAGE_BYTES as u64 / 2);
        ordered(("fetch.max_bytes", self.max_bytes), ("half of the message limit", message))?;
        ordered(("fetch.max_bytes", self.max_bytes), ("fetch.max_credit_bytes", self.max_credit_bytes))?;
        ordered(("fetch.ring_bytes", self.ring_bytes), ("fetch.ring_total_bytes", self.ring_total_bytes))?;
        retry("fetch", self.retry_first, self.retry_max)
    }
}

impl KafkaConfig {
    fn validate(&self, produce: &ProduceConfig) -> Result<(), InvalidConfig> {
        above_zero("kafka.max_connections", self.max_connections.into())?;
        above_zero("kafka.connection_requests", self.connection_requests.into())?;
        above_zero("kafka.idle_timeout", self.idle_timeout.get().as_nanos())?;
        above_zero("kafka.receive_timeout", self.receive_timeout.get().as_nanos())?;
        above_zero("kafka.write_timeout", self.write_timeout.get().as_nanos())?;
        above_zero("kafka.max_fetch_bytes", self.max_fetch_bytes.0.into())?;
        above_zero("kafka.num_partitions", self.num_partitions.into())?;
        let (request, total) = (self.max_request_bytes, produce.total_bytes);
        // Each has an overhead beside its bytes.
        ordered(("kafka.max_request_bytes", request), ("half of produce.total_bytes", ByteSize(total.0 / 2)))?;
        ordered(("produce.max_batch_bytes", produce.max_batch_bytes), ("kafka.max_request_bytes", request))?;
        // The fetch budget is counted in 32 bits.
        let most = ByteSize(u64::from(u32::MAX >> 3));
        ordered(("kafka.max_fetch_bytes", self.max_fetch_bytes), ("what a response can hold", most))?;
        ordered(("kafka.max_fetch_bytes", self.max_fetch_bytes), ("kafka.fetch_total_bytes", self.fetch_total_bytes))
    }
}

fn above_zero(name: &'static str, value: u128) -> Result<(), InvalidConfig> {
    if value == 0 { Err(InvalidConfig::Zero(name)) } else { Ok(()) }
}

fn ordered(smaller: (&'static str, ByteSize), larger: (&'static str, ByteSize)) -> Result<(), InvalidConfig> {
    if smaller.1 <= larger.1 {
        return Ok(());
    }
    Err(InvalidConfig::Above { smaller: smaller.0, value: smaller.1, larger: larger.0, limit: larger.1 })
}

fn retry(section: &'static str, first: HumanDuration, max: HumanDuration) -> Result<(), InvalidConfig> {
    above_zero(if section == "fetch" { "fetch.retry_first" } else { "produce.retry_first" }, first.get().as_nanos())?;
    if first > max { Err(InvalidConfig::Retry { section, first, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(ProxyConfig::default().validate(), Ok(()));
        let check = |change: fn(&mut ProxyConfig), expect: &str| {
            let mut config = ProxyConfig::default();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), expect);
        };
        check(|c| c.session_ttl = HumanDuration::secs(1), "session_ttl is 1s, it must be at least 2s");
        check(|c| c.produce.lane_batches = 0, "produce.lane_batches must not be zero");
        check(
            |c| c.produce.connection_bytes = ByteSize::mib(16),
            "produce.max_batch_bytes is 16MiB, it must be at most 8MiB, which is half of produce.connection_bytes",
        );
        check(
            |c| c.fetch.retry_first = HumanDuration::secs(1),
            "fetch.retry_first is 1s, it must be at most retry_max, which is 500ms",
        );
        check(
            |c| c.kafka.max_request_bytes = ByteSize::mib(8),
            "produce.max_batch_bytes is 16MiB, it must be at most 8MiB, which is kafka.max_request_bytes",
        );
    }
}
