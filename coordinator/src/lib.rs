//! The coordinator service: consumer groups and committed offsets, kept in internal partitions that it owns.

pub mod assignor;
pub mod config;
pub mod consumer_group;
pub mod group;
mod groups_topic;
pub mod metrics;
mod server;
mod service;
pub mod shard;
pub mod topics;

pub use config::CoordinatorConfig;
pub use server::{CoordinatorComponents, Server};
