//! Consumer groups, as a proxy sees them: each call goes to the coordinator that owns the group's shard.
//!
//! A coordinator that says that it is not the owner, or that cannot be reached, has certainly done nothing: the next
//! owner is looked for until a deadline. Once a call may have been applied its error goes to the client, which knows
//! whether to repeat it. How long an answer may take is the coordinator's to say: members wait for each other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::{Backoff, Random};
use bmq_proto::coordinator::*;
use bmq_proto::{ErrorCode, Happened, PartitionId, ServiceError, TopicPartition};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::directory::{Directory, Route, RouteCoordinator};
use crate::several::several;

/// The first and the longest back-off before a coordinator is asked again.
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Shards that are listed together.
const SHARDS_AT_ONCE: usize = 16;

/// See the head of the file.
pub struct Groups {
    directory: Arc<Directory>,
    /// How long a coordinator is looked for.
    deadline: Duration,
    random: Random,
}

impl fmt::Debug for Groups {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Groups").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Groups {
    pub fn new(directory: Arc<Directory>, deadline: Duration, random: Random) -> Self {
        Self { directory, deadline, random }
    }

    /// All groups, by name.
    pub async fn all(&self) -> Result<Vec<GroupListing>, ServiceError> {
        let shards = match self.directory.topic(GROUPS_TOPIC).await {
            Ok(topic) => topic.partitions,
            // No coordinator was ever there, so there is no group.
            Err(error) if error.code == ErrorCode::UnknownTopic => 0,
            Err(error) => return Err(error),
        };
        let list = |shard| self.list_groups(ListGroupsRequest { shard });
        let mut groups = Vec::new();
        for listed in several(0..shards, SHARDS_AT_ONCE, list).await {
            groups.extend(listed?.groups);
        }
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(groups)
    }

    async fn ask<Q, R, F>(
        &self,
        request: Q,
        send: impl Fn(Arc<dyn CoordinatorService>, Q) -> F,
    ) -> Result<R, ServiceError>
    where
        Q: Sharded + Clone,
        F: Future<Output = Result<R, ServiceError>>,
    {
        let deadline = Instant::now() + self.deadline;
        let topic = self.directory.topic(GROUPS_TOPIC).await.map_err(no_shards)?;
        let shard = TopicPartition { topic: topic.id, partition: request.shard(topic.partitions) };
        let mut route = self.directory.route(shard);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let coordinator = owner(&mut route, deadline).await?;
            let answer = tokio::select! {
                answer = send(Arc::clone(&coordinator.service), request.clone()) => answer,
                () = coordinator.gone.begun() => Err(lost()),
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let until = Instant::now() + backoff.next(&self.random);
            let certainly_not_done = error.happened == Happened::NotApplied && error.is_retriable();
            if !certainly_not_done || until >= deadline {
                return Err(error);
            }
            // Whichever comes first: another owner, or the time to ask again.
            let _ = tokio::time::timeout_at(until, route.changed()).await;
        }
    }
}

/// The coordinator that serves the shard, as soon as there is one.
async fn owner(route: &mut watch::Receiver<Route>, deadline: Instant) -> Result<RouteCoordinator, ServiceError> {
    loop {
        let known = route.borrow_and_update().coordinator.clone();
        if let Some(coordinator) = known {
            return Ok(coordinator);
        }
        if !matches!(tokio::time::timeout_at(deadline, route.changed()).await, Ok(Ok(()))) {
            let text = "no coordinator serves the group's shard just now";
            return Err(ServiceError::not_applied(ErrorCode::Unavailable, text));
        }
    }
}

fn no_shards(error: ServiceError) -> ServiceError {
    if error.code != ErrorCode::UnknownTopic {
        return error;
    }
    ServiceError::not_applied(ErrorCode::Unavailable, "no coordinator has made the shards of the groups yet")
}

fn lost() -> ServiceError {
    ServiceError::unknown(ErrorCode::Unavailable, "the group's coordinator was lost before it answered")
}

/// A request that says which shard answers it.
trait Sharded {
    fn shard(&self, shards: u32) -> PartitionId;
}

impl Sharded for ListGroupsRequest {
    fn shard(&self, _shards: u32) -> PartitionId {
        PartitionId(self.shard)
    }
}

macro_rules! sharded_by_group {
    ($($request:ident)*) => {
        $(impl Sharded for $request {
            fn shard(&self, shards: u32) -> PartitionId {
                shard_of(&self.group, shards)
            }
        })*
    };
}

sharded_by_group! {
    JoinGroupRequest SyncGroupRequest GroupHeartbeatRequest LeaveGroupRequest ConsumerGroupHeartbeatRequest
    ConsumerGroupDescribeRequest CommitOffsetsRequest FetchOffsetsRequest DeleteOffsetsRequest DescribeGroupRequest
    DeleteGroupRequest
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident,)*) => {
        #[async_trait]
        impl CoordinatorService for Groups {
            $(async fn $name(&self, request: $request) -> Result<$response, ServiceError> {
                self.ask(request, |coordinator, request| async move { coordinator.$name(request).await }).await
            })*
        }
    };
}

calls! {
    join_group: JoinGroupRequest => JoinGroupResponse,
    sync_group: SyncGroupRequest => SyncGroupResponse,
    group_heartbeat: GroupHeartbeatRequest => GroupErrorResponse,
    leave_group: LeaveGroupRequest => LeaveGroupResponse,
    consumer_group_heartbeat: ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse,
    consumer_group_describe: ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse,
    commit_offsets: CommitOffsetsRequest => CommitOffsetsResponse,
    fetch_offsets: FetchOffsetsRequest => FetchOffsetsResponse,
    delete_offsets: DeleteOffsetsRequest => DeleteOffsetsResponse,
    list_groups: ListGroupsRequest => ListGroupsResponse,
    describe_group: DescribeGroupRequest => DescribeGroupResponse,
    delete_group: DeleteGroupRequest => GroupErrorResponse,
}
