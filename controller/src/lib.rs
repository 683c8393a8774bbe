//! The controller: which broker shall own which partition, and the end of deleted topics.
//!
//! It keeps IO away from decisions: `planner`, `liveness` and `state` are pure, `driver` and `leadership` do the IO.
//! What it writes are *intents*, guarded by its term; nothing here ever touches data, and a controller that is wrong
//! about who is alive costs time, never records.

pub mod config;
mod deletion;
mod driver;
mod leadership;
pub mod liveness;
mod metrics;
pub mod planner;
mod server;
pub mod state;
mod view;
mod watcher;

pub use config::{ControllerConfig, InvalidConfig};
pub use server::{ControllerComponents, Server};
