//! One request to its handler.

use bmq_kafka::{RequestKind, ResponseKind};

use super::{
    RequestContext, api_versions, consumer_group_describe, consumer_group_heartbeat, create_partitions, create_topics,
    delete_groups, delete_records, delete_topics, describe_cluster, describe_configs, describe_groups,
    describe_log_dirs, describe_producers, describe_topic_partitions, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets, metadata,
    offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch, sync_group,
};

macro_rules! handlers {
    ($($kind:ident => $handler:ident,)*) => {
        /// Answers a request; `None` if it is of a kind that has no handler here: Produce, whose answer comes later,
        /// and what the table of supported requests rules out.
        pub async fn dispatch(context: &RequestContext<'_>, request: RequestKind) -> Option<ResponseKind> {
            Some(match request {
                $(RequestKind::$kind(request) => ResponseKind::$kind($handler::handle(context, request).await),)*
                _ => return None,
            })
        }
    };
}

handlers! {
    Fetch => fetch,
    ListOffsets => list_offsets,
    Metadata => metadata,
    OffsetCommit => offset_commit,
    OffsetFetch => offset_fetch,
    FindCoordinator => find_coordinator,
    JoinGroup => join_group,
    Heartbeat => heartbeat,
    LeaveGroup => leave_group,
    SyncGroup => sync_group,
    DescribeGroups => describe_groups,
    ListGroups => list_groups,
    ApiVersions => api_versions,
    CreateTopics => create_topics,
    DeleteTopics => delete_topics,
    DeleteRecords => delete_records,
    InitProducerId => init_producer_id,
    OffsetForLeaderEpoch => offset_for_leader_epoch,
    DescribeConfigs => describe_configs,
    DescribeLogDirs => describe_log_dirs,
    CreatePartitions => create_partitions,
    DeleteGroups => delete_groups,
    IncrementalAlterConfigs => incremental_alter_configs,
    OffsetDelete => offset_delete,
    DescribeCluster => describe_cluster,
    DescribeProducers => describe_producers,
    ConsumerGroupHeartbeat => consumer_group_heartbeat,
    ConsumerGroupDescribe => consumer_group_describe,
    DescribeTopicPartitions => describe_topic_partitions,
}
