//! The few long-lived connections to the NameNode, one kind per job.
//!
//! A lease belongs to a client: a file can only be recovered by another client than the one that writes it, so fencing
//! has a client of its own, which never writes. A client that was dropped after writing leaks its connection and
//! tasks, so none is ever replaced.

use std::sync::atomic::{AtomicUsize, Ordering};

use hdfs_native::{Client, ClientBuilder, HdfsError};

use super::config::{HdfsConfig, Location};

/// Tries before a call gives up on a single NameNode; the deadline around the call comes first in any case.
const SINGLE_NAME_NODE_ATTEMPTS: &str = "1";
/// The same for a name service, which may have three NameNodes to go through.
const NAME_SERVICE_ATTEMPTS: &str = "3";

/// The provider that never asks an observer, whatever `HADOOP_CONF_DIR` says.
const ACTIVE_NAME_NODE_ONLY: &str = "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider";

pub(super) struct Clients {
    writing: Vec<Client>,
    next_writing: AtomicUsize,
    /// Takes leases away. Never writes.
    pub fencing: Client,
    /// Reads, lists, deletes.
    pub reading: Client,
}

impl Clients {
    /// Builds the clients; connects nothing yet.
    pub(super) fn build(config: &HdfsConfig, location: &Location) -> Result<Self, HdfsError> {
        let name_service = location.name_node.trim_start_matches("hdfs://");
        let attempts = if name_service.contains(':') { SINGLE_NAME_NODE_ATTEMPTS } else { NAME_SERVICE_ATTEMPTS };
        // A reader that meets a stopped DataNode must have time left for another replica.
        let read_timeout = config.operation_deadline.get() / 3;
        let client = || {
            let settings = [
                ("dfs.client.failover.max.attempts".to_owned(), attempts.to_owned()),
                ("dfs.client.socket-timeout".to_owned(), read_timeout.as_millis().to_string()),
                // Only the active NameNode knows the length up to which an open file is acknowledged.
                (format!("dfs.client.failover.proxy.provider.{name_service}"), ACTIVE_NAME_NODE_ONLY.to_owned()),
            ];
            ClientBuilder::new().with_url(&location.name_node).with_config(settings).build()
        };
        Ok(Self {
            writing: (0..config.writing_clients).map(|_| client()).collect::<Result<_, _>>()?,
            next_writing: AtomicUsize::new(0),
            fencing: client()?,
            reading: client()?,
        })
    }

    /// The client for the next new file: each in turn.
    pub(super) fn writing(&self) -> Client {
        let turn = self.next_writing.fetch_add(1, Ordering::Relaxed);
        self.writing[turn % self.writing.len()].clone()
    }
}
