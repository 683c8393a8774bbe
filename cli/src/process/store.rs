//! Which segment store a process uses, by URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bmq_storage::{HdfsConfig, HdfsStore, LocalStore, SegmentStore};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::exit::UsageError;

/// How long files that were given up get to be closed before the process ends.
const SETTLE: Duration = Duration::from_secs(5);

/// Where segments are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// `hdfs://namenode:8020/root`, or `file:///folder`, which one process alone can use.
    pub url: String,
    /// How HDFS is used, at the URL above.
    pub hdfs: HdfsConfig,
}

impl Default for StoreSettings {
    fn default() -> Self {
        let hdfs = HdfsConfig::default();
        StoreSettings { url: hdfs.url.clone(), hdfs }
    }
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Hdfs,
    Folder(PathBuf),
}

impl StoreSettings {
    pub fn at(url: impl Into<String>) -> Self {
        StoreSettings { url: url.into(), ..Self::default() }
    }

    pub fn is_hdfs(&self) -> bool {
        self.url.starts_with("hdfs://")
    }

    pub fn validate(&self) -> Result<(), String> {
        match self.place()? {
            Place::Folder(_) => Ok(()),
            Place::Hdfs => self.hdfs_config().validate().map_err(|error| format!("store.hdfs: {error}")),
        }
    }

    fn place(&self) -> Result<Place, String> {
        if self.is_hdfs() {
            return Ok(Place::Hdfs);
        }
        match self.url.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => Ok(Place::Folder(PathBuf::from(path))),
            _ => Err(format!("store.url `{}` is neither hdfs://host:port/root nor file:///folder", self.url)),
        }
    }

    fn hdfs_config(&self) -> HdfsConfig {
        HdfsConfig { url: self.url.clone(), ..self.hdfs.clone() }
    }

    /// Opens the store.
    pub async fn open(&self) -> anyhow::Result<OpenStore> {
        let opening = || format!("cannot open the store {}", self.url);
        match self.place().map_err(UsageError)? {
            Place::Folder(folder) => {
                let store = LocalStore::open(folder).await.with_context(opening)?;
                Ok(OpenStore { segments: Arc::new(store), hdfs: None })
            }
            Place::Hdfs => {
                let store = Arc::new(HdfsStore::connect(self.hdfs_config()).await.with_context(opening)?);
                Ok(OpenStore { segments: Arc::clone(&store) as _, hdfs: Some(store) })
            }
        }
    }
}

/// A store in use. Clones are handles to the same one.
#[derive(Clone)]
pub struct OpenStore {
    pub segments: Arc<dyn SegmentStore>,
    hdfs: Option<Arc<HdfsStore>>,
}

impl OpenStore {
    /// To be called when nobody uses the store any more: waits for what is being cleaned up.
    pub async fn settle(&self) {
        if let Some(hdfs) = &self.hdfs
            && !hdfs.settle(SETTLE).await
        {
            warn!("some files are still being closed, HDFS will do so when their leases run out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        let check = |url: &str, expect: &str| {
            let found = StoreSettings::at(url).validate();
            assert_eq!(found.is_ok(), expect.is_empty(), "{url}: {found:?}");
            assert!(found.err().unwrap_or_default().contains(expect), "{url}");
        };
        check("hdfs://namenode:8020/bmq", "");
        check("file:///var/lib/bmq", "");
        check("file://var/lib/bmq", "neither");
        check("/var/lib/bmq", "neither");
        check("hdfs://namenode:8020", "root");
    }
}
