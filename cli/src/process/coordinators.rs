//! How proxies in this process reach coordinators: the coordinator itself where it is in the same process, kept gRPC
//! clients otherwise.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::ServiceError;
use bmq_proto::coordinator::*;
use bmq_proto::meta::SessionRecord;
use bmq_proto::rpc::{CoordinatorClient, CoordinatorClientConfig};

use super::kept_clients::KeptClients;

/// How long one call may take, besides what members wait for each other.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// The one coordinator of this process.
pub struct LocalCoordinator(pub Arc<dyn CoordinatorService>);

impl CoordinatorConnector for LocalCoordinator {
    fn connect(&self, _coordinator: &SessionRecord) -> Arc<dyn CoordinatorService> {
        Arc::clone(&self.0)
    }
}

/// Coordinators of other processes: one client for each address.
#[derive(Default)]
pub struct RemoteCoordinators {
    clients: KeptClients<dyn CoordinatorService>,
}

impl CoordinatorConnector for RemoteCoordinators {
    fn connect(&self, coordinator: &SessionRecord) -> Arc<dyn CoordinatorService> {
        self.clients.get(&coordinator.address, open)
    }
}

fn open(address: &str) -> Arc<dyn CoordinatorService> {
    match CoordinatorClient::new(&CoordinatorClientConfig { address: address.to_owned(), deadline: CALL_DEADLINE }) {
        Ok(client) => Arc::new(client),
        Err(error) => Arc::new(Unreachable(error)),
    }
}

/// A coordinator that gave an address which is none: every call says so.
struct Unreachable(ServiceError);

macro_rules! unreachable_calls {
    ($($name:ident: $request:ident => $response:ident,)*) => {
        #[async_trait]
        impl CoordinatorService for Unreachable {
            $(async fn $name(&self, _request: $request) -> Result<$response, ServiceError> {
                Err(self.0.clone())
            })*
        }
    };
}

unreachable_calls! {
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
