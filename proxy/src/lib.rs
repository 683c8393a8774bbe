//! The proxy: the edge that every client talks to. It routes, keeps order across moves, reads for clients from memory,
//! storage or owners, and waits for them.
//!
//! Start reading at [`server`]; then [`append`] for batches on their way in, and [`fetch`] for those on their way out.
//! What stands between them and the clients is [`grpc`] and [`kafka`].

pub mod api;
pub mod append;
pub mod config;
pub mod consumer_assignment;
pub mod directory;
pub mod fetch;
pub mod groups;
pub mod grpc;
pub mod head_reads;
pub mod kafka;
pub mod metrics;
pub mod producer_ids;
pub mod server;
pub mod several;
pub mod topic_admin;

pub use config::{InvalidConfig, ProxyConfig};
pub use kafka::KafkaListener;
pub use server::{BuildError, ProxyComponents, Server};
