//! The names of the local store's files below its root.

use std::path::{Path, PathBuf};

use bmq_proto::{ClusterId, FileId, TopicId};

use crate::{FolderPath, SegmentPath};

const DATA_SUFFIX: &str = ".log";

/// The lock that one process holds on the whole folder.
pub(super) fn lock(root: &Path) -> PathBuf {
    root.join("LOCK")
}

pub(super) fn topic_folder(root: &Path, cluster: ClusterId, topic: TopicId) -> PathBuf {
    root.join(cluster.to_string()).join(topic.to_string())
}

pub(super) fn folder(root: &Path, folder: FolderPath) -> PathBuf {
    topic_folder(root, folder.cluster, folder.topic()).join(folder.number().to_string())
}

pub(super) fn data(root: &Path, path: SegmentPath) -> PathBuf {
    root.join(path.data_path())
}

/// Present as soon as no writer may go on; see `end_marker`.
pub(super) fn fence(root: &Path, path: SegmentPath) -> PathBuf {
    folder(root, path.folder).join(format!("{}.fence", path.file))
}

pub(super) fn index(root: &Path, path: SegmentPath) -> PathBuf {
    root.join(path.index_path())
}

/// An index while it is written, before it takes its name.
pub(super) fn index_draft(root: &Path, path: SegmentPath) -> PathBuf {
    folder(root, path.folder).join(format!("{}.index.new", path.file))
}

/// The segment that a file name stands for; `None` for every other name.
pub(super) fn parse_data_name(name: &str) -> Option<FileId> {
    name.strip_suffix(DATA_SUFFIX)?.parse().ok()
}

/// Whether the name ends as a data file's does, also one that is no segment's.
pub(super) fn is_data_name(name: &str) -> bool {
    name.ends_with(DATA_SUFFIX)
}
