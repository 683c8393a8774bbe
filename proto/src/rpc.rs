//! The gRPC forms of the service traits: conversions, clients, servers, and how processes listen and connect.
//!
//! ```text
//!   caller ─▶ MetaClient / BrokerClient ─▶ channel ═══ HTTP/2 ═══ serve ─▶ meta_server / broker_server ─▶ service
//!             (implement the traits)                                       (hold an Arc<dyn Trait>)
//! ```
//!
//! Invariants:
//! * an error keeps its code, whether it happened, and its message across a hop ([`status`]);
//! * nothing is believed that was not checked: every message from outside goes through a `TryFrom` ([`record`]);
//! * queues, messages, streams and connections are bounded, and a stream ends when its peer is gone.

mod aggregate;
mod append;
mod broker_client;
mod broker_server;
mod command;
mod connection;
mod coordinator;
mod decode;
mod dial;
mod listener;
mod meta_client;
mod meta_server;
mod meta_stream;
pub mod record;
pub mod status;

#[cfg(test)]
mod garbage_tests;
#[cfg(test)]
mod loopback_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod testing;

pub use broker_client::{BrokerClient, BrokerClientConfig};
pub use broker_server::broker_server;
pub use coordinator::{CoordinatorClient, CoordinatorClientConfig, coordinator_server};
pub use decode::DecodeError;
pub use dial::{channel, check_address, connect};
pub use listener::{Limits, ServeError, serve};
pub use meta_client::{MetaClient, MetaClientConfig};
pub use meta_server::meta_server;

/// Largest gRPC message that is read, by servers and clients of every service: the largest batch a topic may allow,
/// with room around it.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Aim for the bytes of one message of a stream of batches. A larger single batch travels alone.
pub const STREAM_MESSAGE_BYTES: usize = 1 << 20;
