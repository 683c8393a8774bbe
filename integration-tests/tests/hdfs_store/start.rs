//! What is refused when the store is connected, and what it says then.

use bmq_integration_tests::hdfs_cluster::HdfsCluster;
use bmq_storage::hdfs::{HdfsConfig, HdfsStore};

async fn refusal(config: HdfsConfig) -> String {
    HdfsStore::connect(config).await.err().expect("the store cannot be used").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_coded_folder_is_refused() {
    let cluster = HdfsCluster::shared().await;
    cluster.make_erasure_coded("/coded").unwrap();
    let said = refusal(HdfsConfig::at(cluster.url("/coded/root"))).await;
    assert!(said.contains("erasure-coded") && said.contains("hdfs ec"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_where_nobody_listens_is_refused_with_advice() {
    // Bound and dropped again: nobody listens there now.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = refusal(HdfsConfig::at(format!("hdfs://127.0.0.1:{port}/bmq"))).await;
    assert!(said.contains("cannot be reached") && said.contains("fs.defaultFS"), "{said}");
    let said = refusal(HdfsConfig::at("hdfs://127.0.0.1:1")).await;
    assert!(said.contains("names no root folder"), "{said}");
}
