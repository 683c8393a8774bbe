//! The broker's settings.

use std::time::Duration;

use bmq_common::byte_size::ByteSize;
use bmq_common::human_duration::HumanDuration;
use bmq_partition::PartitionConfig;
use bmq_proto::meta::MIN_SESSION_TTL;
use serde::{Deserialize, Serialize};

/// How a broker behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerConfig {
    /// Unique among brokers.
    pub node_id: u32,
    /// `host:port` told to the others; empty in a single process. No setting: the process knows where it listens.
    #[serde(skip)]
    pub advertised_address: String,
    /// How long the broker counts as alive after its last sign of life.
    pub session_ttl: HumanDuration,
    /// How long a broker that shall take a partition over waits for the present owner to release it.
    pub handover_wait: HumanDuration,
    /// How long sealed files may take to be closed when the broker stops.
    pub close_wait: HumanDuration,
    /// The most bytes of appends of one stream that are not answered yet.
    pub stream_buffer_bytes: ByteSize,
    pub partition: PartitionConfig,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            node_id: 1,
            advertised_address: String::new(),
            session_ttl: HumanDuration(Duration::from_secs(3)),
            handover_wait: HumanDuration(Duration::from_secs(2)),
            close_wait: HumanDuration(Duration::from_secs(3)),
            stream_buffer_bytes: ByteSize::mib(64),
            partition: PartitionConfig::default(),
        }
    }
}

impl BrokerConfig {
    /// Checks what a single value cannot show.
    pub fn validate(&self) -> Result<(), String> {
        if self.session_ttl.0 < MIN_SESSION_TTL {
            let min = HumanDuration(MIN_SESSION_TTL);
            return Err(format!("session_ttl ({}) must be at least {min}", self.session_ttl));
        }
        if self.stream_buffer_bytes.0 < self.partition.max_batch_bytes.0 {
            return Err(format!(
                "stream_buffer_bytes ({}) must hold at least one batch of max_batch_bytes ({})",
                self.stream_buffer_bytes, self.partition.max_batch_bytes
            ));
        }
        self.partition.validate()
    }
}
