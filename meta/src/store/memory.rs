//! A store in memory, for tests: it forgets everything with the process.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::embedded::{Backend, Commit, EmbeddedStore, Snapshot};
use super::{Entry, MetaStoreError, Order, Revision, Version, Versioned};

/// A store in memory.
pub type MemoryStore = EmbeddedStore<MemoryBackend>;

impl MemoryStore {
    /// An empty store. Must be called within a Tokio runtime.
    pub fn new() -> Self {
        Self::over(MemoryBackend::default()).expect("memory can be read")
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Sorted keys in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    keys: RwLock<Arc<Keys>>,
}

/// All keys at one revision; copied on a write while somebody still reads it.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    revision: Revision,
    map: BTreeMap<String, Versioned>,
}

impl Backend for MemoryBackend {
    type Snapshot = Arc<Keys>;
    const BLOCKS: bool = false;

    fn snapshot(&self) -> Result<Arc<Keys>, MetaStoreError> {
        Ok(Arc::clone(&self.keys.read()))
    }

    fn commit(&self, commit: &Commit) -> Result<(), MetaStoreError> {
        let mut keys = self.keys.write();
        let keys = Arc::make_mut(&mut keys);
        keys.revision = commit.revision;
        let version = Version(commit.revision.0);
        commit.deletes.iter().for_each(|key| drop(keys.map.remove(key)));
        for put in &commit.puts {
            keys.map.insert(put.key.clone(), Versioned { value: put.value.clone(), version });
        }
        Ok(())
    }
}

impl Snapshot for Arc<Keys> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError> {
        Ok(self.map.get(key).cloned())
    }

    fn range(&self, start: &str, end: &str, order: Order, limit: usize) -> Result<Vec<Entry>, MetaStoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let range = self.map.range::<str, _>((std::ops::Bound::Included(start), std::ops::Bound::Excluded(end)));
        let entry = |(key, value): (&String, &Versioned)| Entry {
            key: key.clone(),
            value: value.value.clone(),
            version: value.version,
        };
        Ok(match order {
            Order::Ascending => range.take(limit).map(entry).collect(),
            Order::Descending => range.rev().take(limit).map(entry).collect(),
        })
    }
}
