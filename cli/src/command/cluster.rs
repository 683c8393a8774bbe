//! `bmq cluster`: who is there.

use anyhow::Context;
use bmq_client::{ClusterDescription, Node};
use clap::Subcommand;
use serde::Serialize;

use crate::output::{Answer, OutputArguments, or_dash, table};
use crate::server::connect;

/// Look at the cluster
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show the cluster's id and the nodes that are alive
    Describe(OutputArguments),
}

pub async fn run(server: &str, command: Command) -> anyhow::Result<()> {
    let Command::Describe(output) = command;
    let admin = connect(server).await?.admin();
    let described = admin.describe_cluster().await.context("cannot describe the cluster")?;
    output.print(&ShownCluster::from(described))
}

#[derive(Debug, Serialize)]
struct ShownCluster {
    cluster_id: String,
    nodes: Vec<ShownNode>,
}

#[derive(Debug, Serialize)]
struct ShownNode {
    kind: String,
    node_id: u32,
    address: String,
}

impl From<ClusterDescription> for ShownCluster {
    fn from(described: ClusterDescription) -> Self {
        let shown = |Node { kind, node_id, address }: Node| ShownNode { kind, node_id, address };
        ShownCluster { cluster_id: described.cluster_id, nodes: described.nodes.into_iter().map(shown).collect() }
    }
}

impl Answer for ShownCluster {
    fn table(&self) -> String {
        let address = |node: &ShownNode| or_dash(Some(&node.address).filter(|address| !address.is_empty()));
        let row = |node: &ShownNode| vec![node.kind.clone(), node.node_id.to_string(), address(node)];
        let nodes = table(&["KIND", "ID", "ADDRESS"], self.nodes.iter().map(row));
        format!("Cluster {}\n\n{nodes}", self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let node = Node { kind: "broker".to_owned(), node_id: 2, address: "127.0.0.1:1".to_owned() };
        let shown = ShownCluster::from(ClusterDescription { cluster_id: "00ff".to_owned(), nodes: vec![node] });
        assert_eq!(shown.table(), "Cluster 00ff\n\nKIND    ID  ADDRESS\nbroker  2   127.0.0.1:1");
        let json = r#"{"cluster_id":"00ff","nodes":[{"kind":"broker","node_id":2,"address":"127.0.0.1:1"}]}"#;
        assert_eq!(serde_json::to_string(&shown).unwrap(), json);
    }
}
