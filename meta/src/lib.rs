//! The metadata service: domain transactions over a small key-value store.
//!
//! ```text
//!   MetaService (proto) ◀── server ──▶ transition (pure)
//!                             │
//!                             └──▶ store: etcd │ redb │ memory
//! ```
//!
//! Start reading at `transition/partition.rs` for what the service promises, at `store.rs` for what it stands on.

pub mod config;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod keys;
mod metrics;
pub mod server;
pub mod store;
pub mod transition;

pub use config::{MetaConfig, StoreConfig};
pub use server::{MetaServer, MetaServerConfig, StartError};
pub use store::{MemoryStore, MetaStore, SharedStore};
