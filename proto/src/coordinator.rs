//! The coordinator service as its callers see it: consumer groups and their committed offsets.
//!
//! A group lives in one partition of [`GROUPS_TOPIC`], its shard, and the owner of that partition answers for it. The
//! messages are those of `coordinator.proto`: groups come from the edges' protocols, and nothing in between looks into
//! them. Failures that Kafka has a code for stand inside the answers; a `ServiceError` means that the node asked cannot
//! answer (`NotOwner`, `Unavailable`): look up the owner again.

use std::sync::Arc;

use async_trait::async_trait;

pub use crate::internal::{
    CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, ConsumerGroupDescribeRequest,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerGroupMember,
    DeleteGroupRequest, DeleteOffsetsRequest, DeleteOffsetsResponse, DescribeGroupRequest, DescribeGroupResponse,
    DescribedMember, FetchOffsetsRequest, FetchOffsetsResponse, GroupClient, GroupErrorResponse, GroupHeartbeatRequest,
    GroupListing, GroupProtocol, JoinGroupRequest, JoinGroupResponse, JoinedMember, LeaveGroupRequest,
    LeaveGroupResponse, LeavingMember, LeftMember, ListGroupsRequest, ListGroupsResponse, MemberAssignment,
    PartitionError, SyncGroupRequest, SyncGroupResponse, TopicNames, TopicPartitionList, TopicPartitionName,
    TopicPartitionNames, TopicPartitions,
};
use crate::meta::SessionRecord;
use crate::{PartitionId, ServiceError};

/// The internal topic whose partitions hold the groups. Kafka's name, since clients and tools know it as internal.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// The shard of a group: Kafka's rule, Java's string hash without its sign, over the number of partitions.
pub fn shard_of(group: &str, shards: u32) -> PartitionId {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    PartitionId((hash as u32 & 0x7fff_ffff) % shards.max(1))
}

/// The coordinator service.
#[async_trait]
pub trait CoordinatorService: Send + Sync + 'static {
    /// Joins a classic group; answered when the rebalance is complete.
    async fn join_group(&self, request: JoinGroupRequest) -> Result<JoinGroupResponse, ServiceError>;
    /// Hands in or fetches an assignment; answered when there is one.
    async fn sync_group(&self, request: SyncGroupRequest) -> Result<SyncGroupResponse, ServiceError>;
    /// A classic member's sign of life.
    async fn group_heartbeat(&self, request: GroupHeartbeatRequest) -> Result<GroupErrorResponse, ServiceError>;
    /// Members leave a classic group.
    async fn leave_group(&self, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, ServiceError>;
    /// The whole of the KIP-848 membership protocol.
    async fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, ServiceError>;
    /// A KIP-848 group with its members.
    async fn consumer_group_describe(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> Result<ConsumerGroupDescribeResponse, ServiceError>;
    /// Commits offsets: `Ok` when they are stored and visible.
    async fn commit_offsets(&self, request: CommitOffsetsRequest) -> Result<CommitOffsetsResponse, ServiceError>;
    /// What a group has committed.
    async fn fetch_offsets(&self, request: FetchOffsetsRequest) -> Result<FetchOffsetsResponse, ServiceError>;
    /// Forgets committed offsets that no member uses.
    async fn delete_offsets(&self, request: DeleteOffsetsRequest) -> Result<DeleteOffsetsResponse, ServiceError>;
    /// The groups of one shard.
    async fn list_groups(&self, request: ListGroupsRequest) -> Result<ListGroupsResponse, ServiceError>;
    /// A classic group with its members.
    async fn describe_group(&self, request: DescribeGroupRequest) -> Result<DescribeGroupResponse, ServiceError>;
    /// Deletes an empty group with its offsets.
    async fn delete_group(&self, request: DeleteGroupRequest) -> Result<GroupErrorResponse, ServiceError>;
}

/// Finds the service of a coordinator that has a session, as [`crate::broker::BrokerConnector`] does for brokers.
pub trait CoordinatorConnector: Send + Sync + 'static {
    /// Never blocks; an address that does not answer shows at the first call.
    fn connect(&self, coordinator: &SessionRecord) -> Arc<dyn CoordinatorService>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_shard_that_kafka_gives_it() {
        // Java: Math.abs("my-group".hashCode()) % 50 and the like.
        assert_eq!(shard_of("", 50), PartitionId(0));
        assert_eq!(shard_of("a", 50), PartitionId(97 % 50));
        assert_eq!(shard_of("ab", 50), PartitionId((97 * 31 + 98) % 50));
        // "polygenelubricants" hashes to the least integer, which has no absolute value.
        assert_eq!(shard_of("polygenelubricants", 50), PartitionId(0));
    }
}
