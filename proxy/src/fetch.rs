//! Reads: where the batches at an offset come from, and how to wait for those that are not there yet.
//!
//! ```text
//!   reader ─ plan ─┬▶ ring      recent batches of a followed partition      (tail, follower, ring)
//!                  ├▶ segment   CLOSED files, straight from the store       (segment_list, segment_cursor)
//!                  ├▶ owner     whatever only the owner has
//!                  └▶ bounds    out of range? only a linearizable read of the head may say so
//! ```

pub mod bounds;
pub mod follower;
pub mod plan;
pub mod reader;
pub mod ring;
pub mod segment_batches;
pub mod segment_cursor;
pub mod segment_list;
pub mod tail;
#[cfg(test)]
mod tail_tests;

pub use reader::{Fetched, Fetcher, Reader};
