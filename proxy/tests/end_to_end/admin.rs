//! Topics and the cluster.

use std::collections::BTreeMap;

use bmq_proto::rpc::status::detail_from_public_status;
use bmq_proto::v1;

use crate::cluster::{Cluster, TOPIC};

async fn create(cluster: &Cluster, name: &str, partitions: u32, config: &[(&str, &str)]) -> Result<v1::Topic, String> {
    let config: BTreeMap<_, _> = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config };
    match cluster.admin.clone().create_topic(request).await {
        Ok(topic) => Ok(topic.into_inner()),
        Err(status) => {
            let detail = detail_from_public_status(&status);
            Err(format!("{}: {}", detail.code, detail.message))
        }
    }
}

#[tokio::test]
async fn topics_come_and_go() {
    let cluster = Cluster::start().await;
    let topic = create(&cluster, "new", 3, &[("segment.bytes", "1048576")]).await.unwrap();
    assert_eq!((topic.partitions, topic.config["segment.bytes"].as_str(), topic.deleting), (3, "1048576", false));
    assert!(create(&cluster, "new", 3, &[]).await.unwrap_err().starts_with("TOPIC_EXISTS"));

    let mut admin = cluster.admin.clone();
    let topics = admin.list_topics(v1::ListTopicsRequest {}).await.unwrap().into_inner().topics;
    assert_eq!(topics.len(), 2);
    admin.delete_topic(v1::DeleteTopicRequest { name: "new".into() }).await.unwrap();
    let described = admin.describe_topic(v1::DescribeTopicRequest { name: "new".into() }).await.unwrap().into_inner();
    assert!(described.topic.unwrap().deleting);
}

#[tokio::test]
async fn wrong_wishes_are_refused_with_a_reason() {
    let cluster = Cluster::start().await;
    let check = async |name: &str, partitions: u32, config: &[(&str, &str)], expect: &str| {
        let error = create(&cluster, name, partitions, config).await.unwrap_err();
        assert!(error.starts_with("INVALID_ARGUMENT") && error.contains(expect), "{error}");
    };
    check(&"x".repeat(300), 1, &[], "300 bytes").await;
    check("a b", 1, &[], "holds ' '").await;
    check("fine", 0, &[], "1 to 10000 partitions, not 0").await;
    check("fine", 1, &[("segment.size", "1")], "did you mean").await;
    check("fine", 1, &[("segment.bytes", "many")], "segment.bytes").await;
}

#[tokio::test]
async fn descriptions_tell_where_things_stand() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    let mut admin = cluster.admin.clone();
    let described = admin.describe_topic(v1::DescribeTopicRequest { name: TOPIC.into() }).await.unwrap().into_inner();
    let partition = &described.partitions[0];
    assert_eq!((partition.epoch, partition.owner, partition.high_watermark), (1, Some(1), Some(1)));

    let request = v1::ListOffsetsRequest { topic: TOPIC.into(), partitions: Vec::new() };
    let offsets = cluster.messaging.clone().list_offsets(request).await.unwrap().into_inner().partitions;
    assert_eq!((offsets.len(), offsets[0].log_start, offsets[0].high_watermark), (1, 0, 1));

    let nodes = admin.describe_cluster(v1::DescribeClusterRequest {}).await.unwrap().into_inner().nodes;
    let kinds: Vec<&str> = nodes.iter().map(|node| node.kind.as_str()).collect();
    assert_eq!(kinds, ["broker", "broker", "proxy"]);
}
