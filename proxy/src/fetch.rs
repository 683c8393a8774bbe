//! Reads: where the batches at an offset come from, and how to wait for those that are not there yet.
//!
//! ```text
//!   reader ─ plan ─┬▶ ring      recent batches of a followed partition      (tail, follower, ring)
//!                  ├▶ segment   CLOSED files, by chunks                     (segment_list, segment_cursor, chunk_cache)
//!                  ├▶ owner     whatever only the owner has
//!                  └▶ bounds    out of range? only a linearizable read of the head may say so
//! ```

pub mod bounds;
pub mod chunk_cache;
pub mod follower;
pub mod plan;
pub mod reader;
pub mod ring;
pub mod segment_batches;
pub mod segment_cursor;
#[cfg(test)]
mod segment_cursor_tests;
pub mod segment_list;
pub mod tail;
#[cfg(test)]
mod tail_tests;
pub mod time_search;

pub use reader::{Fetched, Fetcher, Reader};
