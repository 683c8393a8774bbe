//! Consumer groups over gRPC.

use bmq_proto::coordinator::CommittedOffset;
use bmq_proto::rpc::status::detail_from_public_status;
use bmq_proto::v1;
use bmq_proto::v1::set_group_offsets_request::To;

use crate::cluster::{Cluster, TOPIC};
use crate::fake_coordinator::{CLASSIC, CONSUMER};

fn committed(cluster: &Cluster, group: &str, offset: i64) {
    let at = CommittedOffset { topic: TOPIC.to_owned(), offset, metadata: "note".to_owned(), ..Default::default() };
    cluster.coordinator.offsets.lock().insert((group.to_owned(), TOPIC.to_owned(), 0), at);
}

async fn seek(
    cluster: &Cluster,
    group: &str,
    to: To,
    change: impl FnOnce(&mut v1::SetGroupOffsetsRequest),
) -> Result<Vec<(Option<u64>, u64)>, String> {
    let mut request = v1::SetGroupOffsetsRequest { group: group.into(), to: Some(to), ..Default::default() };
    change(&mut request);
    match cluster.admin.clone().set_group_offsets(request).await {
        Ok(answer) => Ok(answer.into_inner().changes.iter().map(|it| (it.before, it.after)).collect()),
        Err(status) => Err(detail_from_public_status(&status).code),
    }
}

fn now_at(cluster: &Cluster, group: &str) -> Option<i64> {
    let key = (group.to_owned(), TOPIC.to_owned(), 0);
    cluster.coordinator.offsets.lock().get(&key).map(|at| at.offset)
}

#[tokio::test]
async fn groups_are_described_with_their_lag() {
    let cluster = Cluster::start().await;
    for value in ["a", "b", "c"] {
        cluster.append(value).await;
    }
    committed(&cluster, CLASSIC, 1);
    let mut admin = cluster.admin.clone();
    let listed = admin.list_groups(v1::ListGroupsRequest {}).await.unwrap().into_inner().groups;
    assert_eq!(listed.iter().map(|it| it.group.as_str()).collect::<Vec<_>>(), [CLASSIC, CONSUMER]);

    let mut describe = async |group: &str| {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        admin.describe_group(request).await.map(|answer| answer.into_inner())
    };
    let classic = describe(CLASSIC).await.unwrap();
    let partition = &classic.partitions[0];
    assert_eq!((partition.committed, partition.high_watermark, partition.lag), (Some(1), Some(3), Some(2)));
    assert_eq!((partition.member.as_deref(), partition.metadata.as_str()), (Some("m-1"), "note"));
    assert_eq!((classic.assignor.as_str(), classic.members[0].client_id.as_str()), ("range", "test"));
    let consumer = describe(CONSUMER).await.unwrap();
    let partition = &consumer.partitions[0];
    assert_eq!((partition.committed, partition.lag, partition.member.as_deref()), (None, None, Some("m-2")));
    let unknown = describe("none").await.unwrap_err();
    assert_eq!(detail_from_public_status(&unknown).code, "UNKNOWN_GROUP");
}

#[tokio::test]
async fn groups_go_on_where_they_are_told() {
    let cluster = Cluster::start().await;
    for value in ["a", "b", "c"] {
        cluster.append(value).await;
    }
    committed(&cluster, "idle", 1);
    let latest = To::Latest(v1::Edge {});
    let dry = seek(&cluster, "idle", latest, |request| request.dry_run = true).await;
    assert_eq!((dry, now_at(&cluster, "idle")), (Ok(vec![(Some(1), 3)]), Some(1)));
    assert_eq!(seek(&cluster, "idle", latest, |_| {}).await, Ok(vec![(Some(1), 3)]));
    assert_eq!(now_at(&cluster, "idle"), Some(3));
    assert_eq!(seek(&cluster, "idle", To::Earliest(v1::Edge {}), |_| {}).await, Ok(vec![(Some(3), 0)]));
    assert_eq!(seek(&cluster, "idle", To::Offset(2), |_| {}).await, Ok(vec![(Some(0), 2)]));
    assert_eq!(seek(&cluster, "idle", To::Offset(4), |_| {}).await, Err("OUT_OF_RANGE".to_owned()));
    assert_eq!(now_at(&cluster, "idle"), Some(2));
    // A group that there is not is made, where topics are named.
    let named = |request: &mut v1::SetGroupOffsetsRequest| {
        request.topics = vec![v1::TopicSelection { topic: TOPIC.to_owned(), partitions: Vec::new() }];
    };
    assert_eq!(seek(&cluster, "new", latest, named).await, Ok(vec![(None, 3)]));
    assert_eq!(seek(&cluster, "none", latest, |_| {}).await, Err("UNKNOWN_GROUP".to_owned()));
}

#[tokio::test]
async fn groups_with_members_are_moved_by_force_only() {
    let cluster = Cluster::start().await;
    committed(&cluster, CLASSIC, 1);
    let earliest = To::Earliest(v1::Edge {});
    assert_eq!(seek(&cluster, CLASSIC, earliest, |_| {}).await, Err("GROUP_IN_USE".to_owned()));
    assert_eq!(seek(&cluster, CLASSIC, earliest, |request| request.force = true).await, Ok(vec![(Some(1), 0)]));
    assert!(cluster.coordinator.last_call().contains("forced: true"));

    let delete = async |group: &str| {
        let deleted = cluster.admin.clone().delete_group(v1::DeleteGroupRequest { group: group.to_owned() }).await;
        deleted.map(drop).map_err(|status| detail_from_public_status(&status).code)
    };
    assert_eq!(delete(CLASSIC).await, Err("GROUP_IN_USE".to_owned()));
    assert_eq!(delete("idle").await, Ok(()));
}
