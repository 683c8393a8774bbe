//! One partition's log: claimed, recovered, written, rolled, sealed, released.
//!
//! The rules are in [`machine`], pure; [`driver`] runs them over a store and a metadata service; [`handle`] is what a
//! broker holds.

pub mod append;
pub mod compaction;
pub mod config;
pub mod driver;
pub mod gate;
pub mod handle;
pub mod hosting;
pub mod machine;
pub mod metrics;
pub mod mutant;
pub mod producer_table;
pub mod recovery_scan;
pub mod scan;
pub mod tail;

pub use append::{Append, AppendReply, Lane, ReplyToken, ValidatedBatch};
pub use compaction::CompactionSlots;
pub use config::{BatchRules, CompactionRules, LogRules, PartitionConfig};
pub use driver::{PartitionContext, open};
pub use gate::Gate;
pub use handle::{AppendMail, PartitionHandle, PartitionStatus, ReplySink};
pub use hosting::{Hosting, Reconciler, ReconcilerSetup};
pub use metrics::PartitionMetrics;
pub use tail::{Tail, TailRead};
