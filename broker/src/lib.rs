//! The broker: owns partitions while the controller wants it to, and serves appends, reads and followers.
//!
//! It keeps nothing on disk. What it owns stands in metadata as the controller's intent; what it does stands in the
//! partitions' heads.

mod append_stream;
pub mod config;
mod follow;
mod open_file_read;
mod server;
mod service;

pub use config::BrokerConfig;
pub use server::{BrokerComponents, Server};
