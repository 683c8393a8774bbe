//! The coordinator service over gRPC, both ends. The trait's messages are the wire's, so nothing is converted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::MAX_MESSAGE_BYTES;
use super::dial::channel;
use super::meta_server::failed;
use super::status::from_status;
use crate::coordinator::*;
use crate::internal::coordinator_client::CoordinatorClient as Stub;
use crate::internal::coordinator_server::{Coordinator, CoordinatorServer};
use crate::{ErrorCode, ServiceError};

/// How to reach one coordinator.
#[derive(Debug, Clone)]
pub struct CoordinatorClientConfig {
    /// Its address, `host:port`.
    pub address: String,
    /// How long a call may take. Joining waits for other members: for that, the rebalance time-out comes on top.
    pub deadline: Duration,
}

/// A client of one coordinator.
pub struct CoordinatorClient {
    stub: Stub<Channel>,
    deadline: Duration,
}

impl CoordinatorClient {
    /// Connects at the first call. Must be called within a Tokio runtime. `InvalidArgument` if the address is none.
    pub fn new(config: &CoordinatorClientConfig) -> Result<Self, ServiceError> {
        let stub = Stub::new(channel(&config.address)?).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { stub, deadline: config.deadline })
    }
}

struct Glue(Arc<dyn CoordinatorService>);

/// The gRPC service over `service`.
pub fn coordinator_server(service: Arc<dyn CoordinatorService>) -> CoordinatorServer<impl Coordinator> {
    CoordinatorServer::new(Glue(service)).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// How long a call waits for other members of the group, beyond the deadline of any call.
trait Patience {
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
}

impl Patience for JoinGroupRequest {
    fn patience(&self) -> Duration {
        Duration::from_millis(self.rebalance_timeout_ms.max(self.session_timeout_ms).into())
    }
}

/// A leader may take as long as a rebalance may; a member does not know how long that is, so it waits long.
impl Patience for SyncGroupRequest {
    fn patience(&self) -> Duration {
        Duration::from_secs(30 * 60)
    }
}

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident,)*) => {
        #[async_trait]
        impl CoordinatorService for CoordinatorClient {
            $(async fn $name(&self, request: $request) -> Result<$response, ServiceError> {
                let deadline = self.deadline + request.patience();
                let mut request = Request::new(request);
                request.set_timeout(deadline);
                let mut stub = self.stub.clone();
                match tokio::time::timeout(deadline, stub.$name(request)).await {
                    Ok(Ok(response)) => Ok(response.into_inner()),
                    Ok(Err(status)) => Err(from_status(&status)),
                    Err(_) => {
                        let text = format!("the coordinator did not answer within {deadline:?}");
                        Err(ServiceError::unknown(ErrorCode::Timeout, text))
                    }
                }
            })*
        }

        #[tonic::async_trait]
        impl Coordinator for Glue {
            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                self.0.$name(request.into_inner()).await.map(Response::new).map_err(failed)
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

impl Patience for GroupHeartbeatRequest {}
impl Patience for LeaveGroupRequest {}
impl Patience for ConsumerGroupHeartbeatRequest {}
impl Patience for ConsumerGroupDescribeRequest {}
impl Patience for CommitOffsetsRequest {}
impl Patience for FetchOffsetsRequest {}
impl Patience for DeleteOffsetsRequest {}
impl Patience for ListGroupsRequest {}
impl Patience for DescribeGroupRequest {}
impl Patience for DeleteGroupRequest {}
