//! A coordinator that keeps offsets, tells of one group of each kind, and can be told to refuse.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bmq_kafka::ResponseError;
use bmq_proto::ServiceError;
use bmq_proto::coordinator::*;
use bmq_proto::meta::SessionRecord;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The group of the classic protocol, with one member.
pub const CLASSIC: &str = "classic-group";
/// The group of KIP-848, with one member.
pub const CONSUMER: &str = "consumer-group";

type Key = (String, String, u32);

pub struct FakeCoordinator {
    pub offsets: Mutex<BTreeMap<Key, CommittedOffset>>,
    /// Calls are refused so, one by one, before any is answered.
    pub refusals: Mutex<VecDeque<ServiceError>>,
    /// The calls that came, as they print.
    pub calls: Mutex<Vec<String>>,
    /// Joins and syncs are answered only while this is true.
    pub complete: watch::Sender<bool>,
}

impl Default for FakeCoordinator {
    fn default() -> Self {
        let (offsets, refusals, calls) = Default::default();
        Self { offsets, refusals, calls, complete: watch::Sender::new(true) }
    }
}

impl FakeCoordinator {
    fn answer<T>(&self, call: &impl std::fmt::Debug, answer: impl FnOnce() -> T) -> Result<T, ServiceError> {
        self.calls.lock().push(format!("{call:?}"));
        match self.refusals.lock().pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(answer()),
        }
    }

    pub fn refuse(&self, error: ServiceError) {
        self.refusals.lock().push_back(error);
    }

    /// The newest call.
    pub fn last_call(&self) -> String {
        self.calls.lock().last().cloned().unwrap_or_default()
    }
}

fn code(error: ResponseError) -> i32 {
    error.code().into()
}

fn client() -> Option<GroupClient> {
    Some(GroupClient { id: "test".to_owned(), host: "/127.0.0.1".to_owned() })
}

/// A consumer's assignment: partition 0 of `orders`.
fn assignment() -> bytes::Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 6];
    bytes.extend(b"orders");
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    bytes.into()
}

fn assigned() -> Option<TopicPartitionList> {
    let topic = TopicPartitions { topic_id: vec![7; 16].into(), partitions: vec![0], topic: "orders".to_owned() };
    Some(TopicPartitionList { topics: vec![topic] })
}

#[async_trait]
impl CoordinatorService for FakeCoordinator {
    async fn join_group(&self, request: JoinGroupRequest) -> Result<JoinGroupResponse, ServiceError> {
        self.complete.subscribe().wait_for(|complete| *complete).await.unwrap();
        self.answer(&request, || {
            if request.member.is_empty() && request.require_known_member {
                let error = code(ResponseError::MemberIdRequired);
                return JoinGroupResponse { error, member: "m-1".to_owned(), ..JoinGroupResponse::default() };
            }
            let joined = JoinedMember {
                member: "m-1".to_owned(),
                instance: Some("static".to_owned()),
                metadata: vec![1].into(),
            };
            JoinGroupResponse {
                error: 0,
                generation: 3,
                protocol_type: "consumer".to_owned(),
                protocol: "range".to_owned(),
                leader: "m-1".to_owned(),
                member: "m-1".to_owned(),
                members: vec![joined],
                skip_assignment: request.supports_skipping_assignment,
            }
        })
    }

    async fn sync_group(&self, request: SyncGroupRequest) -> Result<SyncGroupResponse, ServiceError> {
        self.complete.subscribe().wait_for(|complete| *complete).await.unwrap();
        self.answer(&request, || SyncGroupResponse {
            error: 0,
            protocol_type: "consumer".to_owned(),
            protocol: "range".to_owned(),
            assignment: assignment(),
        })
    }

    async fn group_heartbeat(&self, request: GroupHeartbeatRequest) -> Result<GroupErrorResponse, ServiceError> {
        self.answer(&request, || GroupErrorResponse { error: code(ResponseError::RebalanceInProgress) })
    }

    async fn leave_group(&self, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, ServiceError> {
        self.answer(&request, || {
            let left = |it: LeavingMember| LeftMember {
                member: it.member,
                instance: it.instance,
                error: code(ResponseError::UnknownMemberId),
            };
            LeaveGroupResponse { error: 0, members: request.members.iter().cloned().map(left).collect() }
        })
    }

    async fn consumer_group_heartbeat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, ServiceError> {
        self.answer(&request, || ConsumerGroupHeartbeatResponse {
            member: request.member.clone(),
            member_epoch: 5,
            heartbeat_interval_ms: 5_000,
            assignment: assigned(),
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    async fn consumer_group_describe(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> Result<ConsumerGroupDescribeResponse, ServiceError> {
        self.answer(&request, || {
            if request.group != CONSUMER {
                let error = code(ResponseError::GroupIdNotFound);
                return ConsumerGroupDescribeResponse { error, ..ConsumerGroupDescribeResponse::default() };
            }
            let member = ConsumerGroupMember {
                member: "m-2".to_owned(),
                member_epoch: 5,
                client: client(),
                subscribed_topics: vec!["orders".to_owned()],
                assignment: assigned(),
                target_assignment: assigned(),
                ..ConsumerGroupMember::default()
            };
            ConsumerGroupDescribeResponse {
                state: "Stable".to_owned(),
                group_epoch: 5,
                assignment_epoch: 5,
                assignor: "uniform".to_owned(),
                members: vec![member],
                ..ConsumerGroupDescribeResponse::default()
            }
        })
    }

    async fn commit_offsets(&self, request: CommitOffsetsRequest) -> Result<CommitOffsetsResponse, ServiceError> {
        self.answer(&request, || {
            let mut offsets = self.offsets.lock();
            for offset in request.offsets.iter().cloned() {
                offsets.insert((request.group.clone(), offset.topic.clone(), offset.partition), offset);
            }
            CommitOffsetsResponse::default()
        })
    }

    async fn fetch_offsets(&self, request: FetchOffsetsRequest) -> Result<FetchOffsetsResponse, ServiceError> {
        self.answer(&request, || {
            let is_wanted = |offset: &CommittedOffset| match &request.partitions {
                None => true,
                Some(wanted) => {
                    wanted.partitions.iter().any(|it| (&it.topic, it.partition) == (&offset.topic, offset.partition))
                }
            };
            let offsets = self.offsets.lock();
            let of_group = offsets.iter().filter(|((group, ..), _)| *group == request.group).map(|(_, at)| at);
            FetchOffsetsResponse { error: 0, offsets: of_group.filter(|at| is_wanted(at)).cloned().collect() }
        })
    }

    async fn delete_offsets(&self, request: DeleteOffsetsRequest) -> Result<DeleteOffsetsResponse, ServiceError> {
        self.answer(&request, || {
            let subscribed = request.partitions.iter().filter(|it| it.partition == 1).map(|it| PartitionError {
                topic: it.topic.clone(),
                partition: it.partition,
                error: code(ResponseError::GroupSubscribedToTopic),
                topic_id: it.topic_id.clone(),
            });
            DeleteOffsetsResponse { error: 0, partitions: subscribed.collect() }
        })
    }

    async fn list_groups(&self, request: ListGroupsRequest) -> Result<ListGroupsResponse, ServiceError> {
        self.answer(&request, || {
            let listing = |group: &str, kind: &str| GroupListing {
                group: group.to_owned(),
                r#type: kind.to_owned(),
                state: "Stable".to_owned(),
                protocol_type: "consumer".to_owned(),
            };
            ListGroupsResponse { groups: vec![listing(CONSUMER, "consumer"), listing(CLASSIC, "classic")] }
        })
    }

    async fn describe_group(&self, request: DescribeGroupRequest) -> Result<DescribeGroupResponse, ServiceError> {
        self.answer(&request, || {
            if request.group != CLASSIC {
                let error = code(ResponseError::GroupIdNotFound);
                return DescribeGroupResponse { error, ..DescribeGroupResponse::default() };
            }
            let member = DescribedMember {
                member: "m-1".to_owned(),
                instance: Some("static".to_owned()),
                client: client(),
                metadata: vec![1].into(),
                assignment: assignment(),
            };
            DescribeGroupResponse {
                error: 0,
                state: "Stable".to_owned(),
                protocol_type: "consumer".to_owned(),
                protocol: "range".to_owned(),
                members: vec![member],
            }
        })
    }

    async fn delete_group(&self, request: DeleteGroupRequest) -> Result<GroupErrorResponse, ServiceError> {
        self.answer(&request, || {
            let error = if request.group == CLASSIC { code(ResponseError::NonEmptyGroup) } else { 0 };
            GroupErrorResponse { error }
        })
    }
}

/// Every coordinator is this one.
pub struct FakeCoordinators(pub Arc<FakeCoordinator>);

impl CoordinatorConnector for FakeCoordinators {
    fn connect(&self, _coordinator: &SessionRecord) -> Arc<dyn CoordinatorService> {
        Arc::clone(&self.0) as Arc<dyn CoordinatorService>
    }
}
