//! Topics and the cluster.

use std::collections::BTreeMap;

use bmq_proto::rpc::status::detail_from_public_status;
use bmq_proto::v1;

use crate::cluster::{Cluster, TOPIC};

async fn create(cluster: &Cluster, name: &str, partitions: u32, config: &[(&str, &str)]) -> Result<v1::Topic, String> {
    let config: BTreeMap<_, _> = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config, validate_only: false };
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
    let names: Vec<_> = topics.iter().filter(|topic| !topic.internal).map(|topic| topic.name.as_str()).collect();
    assert_eq!((names.len(), topics.len()), (2, 3), "{names:?}");
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
    assert_eq!(kinds, ["broker", "broker", "proxy", "coordinator"]);
}

#[tokio::test]
async fn topics_are_altered_wholly_or_not_at_all() {
    let cluster = Cluster::start().await;
    let alter = async |change: fn(&mut v1::AlterTopicRequest)| {
        let mut request = v1::AlterTopicRequest { name: TOPIC.to_owned(), ..Default::default() };
        change(&mut request);
        match cluster.admin.clone().alter_topic(request).await {
            Ok(topic) => Ok((topic.get_ref().partitions, topic.get_ref().config.len())),
            Err(status) => Err(detail_from_public_status(&status).code),
        }
    };
    let refused = Err("INVALID_ARGUMENT".to_owned());
    assert_eq!(alter(|it| it.partitions = Some(0)).await, refused);
    let bad = |it: &mut v1::AlterTopicRequest| {
        it.partitions = Some(4);
        it.set_config.insert("segment.ms".into(), "soon".into());
    };
    assert_eq!(alter(bad).await, refused);
    assert_eq!(alter(|_| {}).await, Ok((1, 0)), "nothing was changed");
    let both = |it: &mut v1::AlterTopicRequest| {
        it.partitions = Some(4);
        it.set_config.insert("segment.ms".into(), "5000".into());
    };
    let dry = |it: &mut v1::AlterTopicRequest| {
        it.partitions = Some(4);
        it.validate_only = true;
    };
    assert_eq!((alter(dry).await, alter(|_| {}).await), (Ok((4, 0)), Ok((1, 0))));
    assert_eq!(alter(both).await, Ok((4, 1)));
    assert_eq!(alter(|it| it.partitions = Some(3)).await, refused);
    assert_eq!(alter(|it| it.delete_config = vec!["segment.ms".into()]).await, Ok((4, 0)));
    let torn = |it: &mut v1::AlterTopicRequest| {
        it.delete_config = vec!["segment.ms".into()];
        it.set_config.insert("segment.ms".into(), "5000".into());
    };
    assert_eq!(alter(torn).await, refused);
}

#[tokio::test]
async fn internal_topics_are_not_for_users() {
    let cluster = Cluster::start().await;
    let name = bmq_proto::coordinator::GROUPS_TOPIC;
    let refused = create(&cluster, name, 1, &[]).await.unwrap_err();
    assert!(refused.starts_with("INVALID_ARGUMENT") && refused.contains("internal"), "{refused}");
    let mut admin = cluster.admin.clone();
    assert!(admin.delete_topic(v1::DeleteTopicRequest { name: name.into() }).await.is_err());
    let alter = v1::AlterTopicRequest { name: name.into(), partitions: Some(9), ..Default::default() };
    assert!(admin.alter_topic(alter).await.is_err());
}

#[tokio::test]
async fn a_topic_can_be_tried_out() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin.clone();
    let mut validate = async |name: &str, partitions: u32| {
        let request =
            v1::CreateTopicRequest { name: name.into(), partitions, config: BTreeMap::new(), validate_only: true };
        admin.create_topic(request).await.map(drop).map_err(|status| detail_from_public_status(&status).code)
    };
    assert_eq!(validate("new", 3).await, Ok(()));
    assert_eq!(validate("new", 3).await, Ok(()), "it was not created");
    assert_eq!(validate("new", 0).await, Err("INVALID_ARGUMENT".to_owned()));
    assert_eq!(validate(TOPIC, 3).await, Err("TOPIC_EXISTS".to_owned()));
}
