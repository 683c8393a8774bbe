//! One partition's log: claimed, recovered, written, rolled, sealed, released.
//!
//! The rules are in [`machine`], pure; [`driver`] runs them over a store and a metadata service; [`handle`] is what a
//! broker holds.

pub mod append;
pub mod config;
pub mod machine;
pub mod mutant;
pub mod producer_table;
pub mod scan;

pub use append::{Append, AppendReply, Lane, ReplyToken, ValidatedBatch};
pub use config::PartitionConfig;
