//! Prints the cluster's nodes and topics. Needs a running server:
//! `cargo run -p bmq-client --example admin [HOST:PORT]`.

use bmq_client::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9640".to_owned());
    let admin = Client::connect(&address).await?.admin();

    let cluster = admin.describe_cluster().await?;
    println!("cluster {}", cluster.cluster_id);
    for node in cluster.nodes {
        println!("  {} {} at {}", node.kind, node.node_id, node.address);
    }
    for topic in admin.list_topics().await? {
        println!("topic {} with {} partitions", topic.name, topic.partitions);
        for bounds in admin.list_offsets(&topic.name, &[]).await? {
            println!("  {}: {}..{}", bounds.partition, bounds.log_start, bounds.high_watermark);
        }
    }
    Ok(())
}
