//! Where the metadata service keeps its records, and how long its calls may take.

use std::path::PathBuf;
use std::sync::Arc;

use bmq_common::HumanDuration;
use bmq_proto::rpc::check_address;
use serde::{Deserialize, Serialize};

use crate::server::MetaServerConfig;
use crate::store::etcd::EtcdOptions;
use crate::store::{EtcdStore, MetaStoreError, RedbStore, SharedStore};

/// The `[meta]` section of the metadata service itself; the other services have a `[meta_client]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaConfig {
    /// `embedded` for one process, `etcd` for a cluster.
    pub store: StoreConfig,
    /// Used if `store` is `embedded`.
    pub embedded: EmbeddedConfig,
    /// Used if `store` is `etcd`.
    pub etcd: EtcdConfig,
    /// Each call answers within this time.
    pub call_timeout: HumanDuration,
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreConfig {
    #[default]
    Embedded,
    Etcd,
}

/// One database file in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbeddedConfig {
    /// The database file; its folder must exist.
    pub path: PathBuf,
}

/// An etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdConfig {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// Stands before every key, so that several clusters can share an etcd.
    pub prefix: String,
    pub connect_timeout: HumanDuration,
    /// For one request; shorter than `call_timeout`, so that a call can try again.
    pub request_timeout: HumanDuration,
}

impl Default for MetaConfig {
    fn default() -> Self {
        Self {
            store: StoreConfig::default(),
            embedded: EmbeddedConfig::default(),
            etcd: EtcdConfig::default(),
            call_timeout: HumanDuration::secs(5),
        }
    }
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("meta.redb") }
    }
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            prefix: "/bmq/".to_owned(),
            connect_timeout: HumanDuration::secs(1),
            request_timeout: HumanDuration::secs(2),
        }
    }
}

/// Settings that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("meta configuration: {0}")]
pub struct InvalidMetaConfig(String);

impl MetaConfig {
    /// Checks what a single key cannot.
    pub fn validate(&self) -> Result<(), InvalidMetaConfig> {
        let refuse = |reason: &str| Err(InvalidMetaConfig(reason.to_owned()));
        if self.call_timeout.get().is_zero() {
            return refuse("`call_timeout` must not be zero");
        }
        match self.store {
            StoreConfig::Embedded if self.embedded.path.file_name().is_none() => {
                refuse("`embedded.path` must name a file")
            }
            StoreConfig::Embedded => Ok(()),
            StoreConfig::Etcd if self.etcd.request_timeout >= self.call_timeout => {
                refuse("`etcd.request_timeout` must be shorter than `call_timeout`")
            }
            StoreConfig::Etcd => self.etcd.validate(),
        }
    }

    /// Opens the store. Must be called within a Tokio runtime.
    pub async fn open_store(&self) -> Result<SharedStore, MetaStoreError> {
        Ok(match self.store {
            StoreConfig::Embedded => Arc::new(RedbStore::open(&self.embedded.path).await?),
            StoreConfig::Etcd => Arc::new(EtcdStore::connect(self.etcd.options()).await?),
        })
    }

    /// What the server takes of these settings.
    pub fn server(&self) -> MetaServerConfig {
        MetaServerConfig { call_timeout: self.call_timeout.get() }
    }
}

impl EtcdConfig {
    fn validate(&self) -> Result<(), InvalidMetaConfig> {
        let refuse = |reason: &str| Err(InvalidMetaConfig(reason.to_owned()));
        if self.endpoints.is_empty() {
            return refuse("`etcd.endpoints` must name a member");
        }
        for endpoint in &self.endpoints {
            check_address(endpoint).map_err(|error| InvalidMetaConfig(format!("`etcd.endpoints`: {error}")))?;
        }
        if !is_prefix(&self.prefix) {
            return refuse("`etcd.prefix` must be printable ASCII text that ends with `/`");
        }
        if self.connect_timeout.get().is_zero() {
            return refuse("`etcd.connect_timeout` must not be zero");
        }
        if self.request_timeout.get().is_zero() {
            return refuse("`etcd.request_timeout` must not be zero");
        }
        Ok(())
    }

    fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: self.endpoints.clone(),
            prefix: self.prefix.clone(),
            connect_timeout: self.connect_timeout.get(),
            request_timeout: self.request_timeout.get(),
        }
    }
}

fn is_prefix(prefix: &str) -> bool {
    prefix.ends_with('/') && prefix.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_checked() {
        let etcd = || MetaConfig { store: StoreConfig::Etcd, ..MetaConfig::default() };
        assert_eq!(MetaConfig::default().validate(), Ok(()));
        assert_eq!(etcd().validate(), Ok(()));
        let check = |change: &dyn Fn(&mut MetaConfig), expect: &str| {
            let mut config = etcd();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&|config| config.etcd.endpoints.clear(), "etcd.endpoints");
        check(&|config| config.etcd.endpoints.push("etcd-1".to_owned()), "`etcd-1` is not an address");
        check(&|config| config.etcd.prefix = "bmq".to_owned(), "etcd.prefix");
        check(&|config| config.etcd.request_timeout = config.call_timeout, "request_timeout");
        check(&|config| config.call_timeout = HumanDuration::secs(0), "call_timeout");
    }
}
