//! Where a segment's files stand below a store's root: `<cluster id>/<topic id>/<partition>/<epoch>-<nonce>.log`,
//! its index beside it as `.index`. A store maps these to its own names; nobody else builds paths.

use std::fmt;

use bmq_proto::{ClusterId, FileId, PartitionId, TopicId, TopicPartition};

/// A partition's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderPath {
    pub cluster: ClusterId,
    pub partition: TopicPartition,
}

impl FolderPath {
    pub fn new(cluster: ClusterId, partition: TopicPartition) -> Self {
        Self { cluster, partition }
    }

    /// The segment named `file` in this folder.
    pub fn segment(self, file: FileId) -> SegmentPath {
        SegmentPath { folder: self, file }
    }

    pub fn topic(self) -> TopicId {
        self.partition.topic
    }

    pub fn number(self) -> PartitionId {
        self.partition.partition
    }
}

impl fmt::Display for FolderPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.cluster, self.partition)
    }
}

/// One segment: names both its data file and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentPath {
    pub folder: FolderPath,
    pub file: FileId,
}

impl SegmentPath {
    /// The data file below the store's root.
    pub fn data_path(&self) -> String {
        format!("{}/{}.log", self.folder, self.file)
    }

    /// The index file below the store's root.
    pub fn index_path(&self) -> String {
        format!("{}/{}.index", self.folder, self.file)
    }
}

impl fmt::Display for SegmentPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.data_path())
    }
}
