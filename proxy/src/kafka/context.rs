//! What a handler is told beside the request itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bmq_common::{Metrics, Shutdown};
use bmq_proto::coordinator::GroupClient;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::fetch_session::FetchSessions;
use super::metrics::KafkaMetrics;
use super::readers::Readers;
use crate::api::Api;
use crate::config::KafkaConfig;

/// What small requests may hold together.
const SMALL_REQUEST_BYTES: usize = 64 << 20;

/// One connection of a client.
pub struct ClientConnection {
    /// Unique within the proxy's life.
    pub id: u64,
    /// As the client called itself in the request at hand; empty if it did not.
    pub client_id: String,
    pub host: IpAddr,
    /// The name of the listener that it came through: it is told the addresses that other proxies have under this name.
    pub listener: Arc<str>,
    /// Begins when the client has closed its side: nobody waits for an answer any more.
    pub gone: Shutdown,
    /// Where this client reads.
    pub readers: tokio::sync::Mutex<Readers>,
}

impl ClientConnection {
    /// The client as groups show it: the address as Kafka's tools have it.
    pub fn as_group_client(&self) -> GroupClient {
        GroupClient { id: self.client_id.clone(), host: format!("/{}", self.host) }
    }
}

/// Everything around one request.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    pub api: &'a Api,
    pub client: &'a ClientConnection,
    /// The version of the request, and so of the response.
    pub version: i16,
}

/// What all Kafka connections of a proxy share.
pub struct Shared {
    /// Where this proxy is reached: `host:port` by the listener's name.
    pub endpoints: BTreeMap<String, String>,
    pub fetch_sessions: Mutex<FetchSessions>,
    /// Bytes of small requests that write nothing, of all connections together.
    pub small_requests: Arc<Semaphore>,
    /// Bytes that fetch answers under way may hold.
    pub fetch_budget: Arc<Semaphore>,
    /// One permit for each connection that there may be.
    pub connections: Arc<Semaphore>,
    pub metrics: KafkaMetrics,
    next_connection: AtomicU64,
}

impl Shared {
    pub fn new(config: &KafkaConfig, endpoints: BTreeMap<String, String>, metrics: &Metrics) -> Self {
        let permits = usize::try_from(config.fetch_total_bytes.0).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            endpoints,
            fetch_sessions: Mutex::new(FetchSessions::new(config.fetch_sessions as usize)),
            small_requests: Arc::new(Semaphore::new(SMALL_REQUEST_BYTES)),
            fetch_budget: Arc::new(Semaphore::new(permits)),
            connections: Arc::new(Semaphore::new(config.max_connections as usize)),
            metrics: KafkaMetrics::register(metrics),
            next_connection: AtomicU64::new(1),
        }
    }

    /// The number of the next connection.
    pub fn next_connection(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}
