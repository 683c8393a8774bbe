//! The coordinator service over the shards that run here.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommitOffsetsResponse, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, CoordinatorService, DeleteGroupRequest,
    DeleteOffsetsRequest, DeleteOffsetsResponse, DescribeGroupRequest, DescribeGroupResponse, FetchOffsetsRequest,
    FetchOffsetsResponse, GroupErrorResponse, GroupHeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
    shard_of,
};
use bmq_proto::{ErrorCode, PartitionId, ServiceError, TopicPartition};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::shard::handle::ShardHandle;
use crate::shard::{Request, Response};
use crate::topics::TopicView;

/// The shards that were started here, shared by the task that starts them and the service. One that has ended says so
/// by itself, until another is started in its place.
#[derive(Debug, Clone, Default)]
pub struct Shards {
    running: Arc<RwLock<HashMap<TopicPartition, ShardHandle>>>,
}

impl Shards {
    pub fn find(&self, partition: TopicPartition) -> Option<ShardHandle> {
        self.running.read().get(&partition).cloned()
    }

    pub fn put(&self, partition: TopicPartition, shard: ShardHandle) {
        self.running.write().insert(partition, shard);
    }
}

pub struct Service {
    pub shards: Shards,
    pub topics: watch::Receiver<Arc<TopicView>>,
}

impl Service {
    /// Asks the shard of a group.
    async fn ask(&self, group: &str, request: Request) -> Result<Response, ServiceError> {
        let partitions = self.topics.borrow().groups_topic().map(|topic| topic.partitions);
        let Some(partitions) = partitions else { return Err(no_topic()) };
        self.ask_shard(shard_of(group, partitions), request).await
    }

    async fn ask_shard(&self, shard: PartitionId, request: Request) -> Result<Response, ServiceError> {
        let view = self.topics.borrow().clone();
        if view.groups_topic().is_none() {
            return Err(no_topic());
        }
        let Some(partition) = view.shard(shard) else {
            let message = format!("there is no shard {shard}");
            return Err(ServiceError::not_applied(ErrorCode::UnknownPartition, message));
        };
        let Some(shard) = self.shards.find(partition) else {
            let message = "the shard does not run on this coordinator";
            return Err(ServiceError::not_applied(ErrorCode::NotOwner, message));
        };
        shard.ask(request).await
    }
}

fn no_topic() -> ServiceError {
    ServiceError::not_applied(ErrorCode::Unavailable, "the topic that holds the groups is not known yet")
}

/// A shard answers what it was asked.
fn mismatch() -> ServiceError {
    ServiceError::unknown(ErrorCode::Internal, "a shard answered something else than it was asked")
}

macro_rules! answer {
    ($answer:expr, $kind:ident) => {
        match $answer? {
            Response::$kind(response) => Ok(response),
            _ => Err(mismatch()),
        }
    };
}

#[async_trait]
impl CoordinatorService for Service {
    async fn join_group(&self, request: JoinGroupRequest) -> Result<JoinGroupResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::JoinGroup(request)).await, JoinGroup)
    }

    async fn sync_group(&self, request: SyncGroupRequest) -> Result<SyncGroupResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::SyncGroup(request)).await, SyncGroup)
    }

    async fn group_heartbeat(&self, request: GroupHeartbeatRequest) -> Result<GroupErrorResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::GroupHeartbeat(request)).await, GroupHeartbeat)
    }

    async fn leave_group(&self, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::LeaveGroup(request)).await, LeaveGroup)
    }

    async fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::ConsumerGroupHeartbeat(request)).await, ConsumerGroupHeartbeat)
    }

    async fn consumer_group_describe(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> Result<ConsumerGroupDescribeResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::ConsumerGroupDescribe(request)).await, ConsumerGroupDescribe)
    }

    async fn commit_offsets(&self, request: CommitOffsetsRequest) -> Result<CommitOffsetsResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::CommitOffsets(request)).await, CommitOffsets)
    }

    async fn fetch_offsets(&self, request: FetchOffsetsRequest) -> Result<FetchOffsetsResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::FetchOffsets(request)).await, FetchOffsets)
    }

    async fn delete_offsets(&self, request: DeleteOffsetsRequest) -> Result<DeleteOffsetsResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::DeleteOffsets(request)).await, DeleteOffsets)
    }

    async fn list_groups(&self, request: ListGroupsRequest) -> Result<ListGroupsResponse, ServiceError> {
        let shard = PartitionId(request.shard);
        answer!(self.ask_shard(shard, Request::ListGroups(request)).await, ListGroups)
    }

    async fn describe_group(&self, request: DescribeGroupRequest) -> Result<DescribeGroupResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::DescribeGroup(request)).await, DescribeGroup)
    }

    async fn delete_group(&self, request: DeleteGroupRequest) -> Result<GroupErrorResponse, ServiceError> {
        let group = request.group.clone();
        answer!(self.ask(&group, Request::DeleteGroup(request)).await, DeleteGroup)
    }
}
