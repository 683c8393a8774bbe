//! What an operator sets for the HDFS store, and the checks that need no HDFS.

use std::time::Duration;

use bmq_common::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

/// Where segments are kept on HDFS, and how long the store waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HdfsConfig {
    /// `hdfs://host:port/root`, or `hdfs://nameservice/root` with the name service described in `HADOOP_CONF_DIR`.
    /// The root is made if it is missing. No setting of this section: the process has one URL for whichever store.
    #[serde(skip)]
    pub url: String,
    /// Copies of each block.
    pub replication: u32,
    /// A file's block size. A file never grows past one block, so this is at least the size of a segment; also, a
    /// DataNode is only chosen while it has this much room.
    pub block_size: ByteSize,
    /// For the NameNode to create a file, and then for the first bytes to become durable. Short, because after the
    /// loss of a DataNode another name is the better try.
    pub create_deadline: HumanDuration,
    /// For one group of appends to be written and synced. A file that misses it is over.
    pub sync_deadline: HumanDuration,
    /// For any other call: reading, closing, listing, fencing, deleting.
    pub operation_deadline: HumanDuration,
    /// Connections to the NameNode on which files are written. One more fences, one more reads.
    pub writing_clients: usize,
}

impl Default for HdfsConfig {
    fn default() -> Self {
        Self {
            url: "hdfs://localhost:8020/bmq".to_owned(),
            replication: 3,
            block_size: ByteSize::mib(512),
            create_deadline: HumanDuration::millis(500),
            sync_deadline: HumanDuration::secs(1),
            operation_deadline: HumanDuration::secs(5),
            writing_clients: 1,
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {reason}")]
pub struct InvalidHdfsConfig {
    setting: &'static str,
    reason: String,
}

/// A checked URL in its two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// `hdfs://host:port`.
    pub name_node: String,
    /// `/root`, without a slash at its end.
    pub root: String,
}

impl HdfsConfig {
    /// The defaults, at this URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Checks every setting that can be checked without asking HDFS.
    pub fn validate(&self) -> Result<(), InvalidHdfsConfig> {
        self.location()?;
        let refuse = |setting, reason: &str| Err(InvalidHdfsConfig { setting, reason: reason.to_owned() });
        if self.replication == 0 {
            return refuse("replication", "must be at least 1");
        }
        if self.writing_clients == 0 || self.writing_clients > 64 {
            return refuse("writing_clients", "must be between 1 and 64");
        }
        if self.block_size.bytes() == 0 || !self.block_size.bytes().is_multiple_of(512) {
            return refuse("block_size", "must be a multiple of 512 bytes, the unit of HDFS checksums");
        }
        let deadlines = [
            ("create_deadline", self.create_deadline),
            ("sync_deadline", self.sync_deadline),
            ("operation_deadline", self.operation_deadline),
        ];
        for (setting, deadline) in deadlines {
            if deadline.get() < Duration::from_millis(10) {
                return refuse(setting, "must be at least 10ms");
            }
        }
        if self.operation_deadline.get() < Duration::from_secs(1) {
            return refuse("operation_deadline", "must be at least 1s: closing a file alone takes half a second");
        }
        Ok(())
    }

    /// Splits the URL.
    pub(super) fn location(&self) -> Result<Location, InvalidHdfsConfig> {
        let refuse = |reason: &str| InvalidHdfsConfig {
            setting: "url",
            reason: format!("`{}` {reason}, write it like hdfs://namenode:8020/bmq", self.url),
        };
        let rest = self.url.strip_prefix("hdfs://").ok_or_else(|| refuse("does not begin with hdfs://"))?;
        let (authority, root) = rest.split_once('/').ok_or_else(|| refuse("names no root folder"))?;
        let root = root.trim_end_matches('/');
        if authority.is_empty() {
            return Err(refuse("names no host"));
        }
        if root.is_empty() {
            return Err(refuse("names no root folder"));
        }
        if root.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(refuse("has an empty or dotted folder name"));
        }
        Ok(Location { name_node: format!("hdfs://{authority}"), root: format!("/{root}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(HdfsConfig::default().validate(), Ok(()));
    }

    #[test]
    fn urls_are_split() {
        let location = HdfsConfig::at("hdfs://nn:9000/a/b/").location().unwrap();
        assert_eq!((location.name_node.as_str(), location.root.as_str()), ("hdfs://nn:9000", "/a/b"));
    }

    #[test]
    fn wrong_urls_say_what_is_wrong() {
        for (url, reason) in [
            ("nn:9000/a", "does not begin with hdfs://"),
            ("hdfs://nn:9000", "names no root folder"),
            ("hdfs://nn:9000/", "names no root folder"),
            ("hdfs:///a", "names no host"),
            ("hdfs://nn/a//b", "empty or dotted"),
            ("hdfs://nn/a/../b", "empty or dotted"),
        ] {
            let error = HdfsConfig::at(url).validate().unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        let valid = HdfsConfig::default;
        for config in [
            HdfsConfig { replication: 0, ..valid() },
            HdfsConfig { writing_clients: 0, ..valid() },
            HdfsConfig { block_size: ByteSize(1000), ..valid() },
            HdfsConfig { sync_deadline: HumanDuration::millis(1), ..valid() },
            HdfsConfig { operation_deadline: HumanDuration::millis(500), ..valid() },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
