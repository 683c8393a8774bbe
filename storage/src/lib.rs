//! Where segments live: their formats, and stores that keep them on HDFS, on a local disk, or in memory.
//!
//! Start reading at [`store`], the contract; then one of its keepers, [`local`] being the plainest.

mod byte_reader;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod disk;
pub mod error;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod hdfs;
pub mod index;
pub mod local;
pub mod memory;
pub mod path;
pub mod producer_snapshot;
pub mod segment;
pub mod store;

pub use error::StoreError;
pub use hdfs::{HdfsConfig, HdfsStore};
pub use index::{IndexBuilder, IndexedBatch, SegmentIndex};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use path::{FolderPath, SegmentPath};
pub use producer_snapshot::{ProducerBatch, ProducerEntry, ProducerSnapshot};
pub use store::{FenceOutcome, FoundFile, SegmentStore, SegmentWriter, StoreProperties, WriterProgress, WriterState};
