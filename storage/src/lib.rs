//! Where segments live: their formats, and stores that keep them on HDFS, on a local disk, or in memory.
//!
//! Start reading at [`store`], the contract; then one of its keepers, [`local`] being the plainest.

pub mod error;
pub mod path;
pub mod segment;
pub mod store;

pub use error::StoreError;
pub use path::{FolderPath, SegmentPath};
pub use store::{FenceOutcome, FoundFile, SegmentStore, SegmentWriter, StoreProperties, WriterProgress, WriterState};
