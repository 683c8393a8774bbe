//! Batches on their way to the owners of their partitions.
//!
//! ```text
//!   client connection ─▶ channel ─┬▶ lane (partition a) ─┐
//!                                 └▶ lane (partition b) ─┼▶ link (broker 1) ═▶ one stream, many lanes per message
//!   client connection ─▶ channel ──▶ lane (partition a) ─┘
//! ```
//! A [`lane`] keeps the order and decides what is sent again; a [`link`] carries and aggregates; a [`channel`] drives
//! the lanes of one client connection.

pub mod channel;
pub mod lane;
#[cfg(test)]
mod lane_tests;
pub mod link;

pub use channel::{AppendChannel, Appends, Reply};
pub use lane::Ticket;
