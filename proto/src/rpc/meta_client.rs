//! The metadata service across processes: a `MetaService` that asks one of several endpoints.
//!
//! A call goes to the endpoint that answered last; when that cannot be reached the next one is asked, within the
//! call's deadline. A request that may have been applied goes to another endpoint only if applying it twice is the same
//! as applying it once; and once one try may have been applied, no later failure of the call says otherwise.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::MAX_MESSAGE_BYTES;
use super::command::alter_topic_config;
use super::decode::{DecodeError, all, optional, required};
use super::dial::channel;
use super::meta_stream::watch_events;
use super::status::from_status;
use crate::internal as pb;
use crate::internal::meta_client::MetaClient as Stub;
use crate::meta::{
    ClusterRecord, ConfigChanges, CreateTopic, GarbageRecord, MetaService, OpenSession, PartitionCommand,
    PartitionHead, PartitionView, SessionId, SessionRecord, TopicRecord, WatchScope, WatchStream,
};
use crate::{ErrorCode, Happened, NodeId, Offset, ServiceError, Term, TopicId, TopicPartition};

/// How to reach the metadata service.
#[derive(Debug, Clone)]
pub struct MetaClientConfig {
    /// Addresses (`host:port`) of its processes, at least one.
    pub endpoints: Vec<String>,
    /// How long a call may take in all.
    pub deadline: Duration,
}

/// A client of the metadata service.
pub struct MetaClient {
    stubs: Vec<Stub<Channel>>,
    /// The endpoint to ask next, modulo their number.
    current: AtomicUsize,
    deadline: Duration,
}

/// Whether a request that may have been applied may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Safe,
    Never,
}

impl MetaClient {
    /// Connects at the first call. Must be called within a Tokio runtime. `InvalidArgument` if an address is none.
    pub fn new(config: &MetaClientConfig) -> Result<Self, ServiceError> {
        if config.endpoints.is_empty() {
            let text = "the metadata service has no endpoints, name at least one";
            return Err(ServiceError::not_applied(ErrorCode::InvalidArgument, text));
        }
        let stub = |address: &String| Ok(Stub::new(channel(address)?).max_decoding_message_size(MAX_MESSAGE_BYTES));
        let stubs = config.endpoints.iter().map(stub).collect::<Result<_, ServiceError>>()?;
        Ok(Self { stubs, current: AtomicUsize::new(0), deadline: config.deadline })
    }

    async fn call<Q, R, F, Fut>(&self, repeat: Repeat, request: Q, send: F) -> Result<R, ServiceError>
    where
        Q: Clone,
        F: Fn(Stub<Channel>, Request<Q>) -> Fut,
        Fut: Future<Output = Result<R, Status>>,
    {
        let deadline = Instant::now() + self.deadline;
        let mut may_have_happened = false;
        let mut tries_left = self.stubs.len();
        loop {
            let asked = self.current.load(Ordering::Relaxed);
            let stub = self.stubs[asked % self.stubs.len()].clone();
            let mut request = Request::new(request.clone());
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut error = match tokio::time::timeout_at(deadline, send(stub, request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => from_status(&status),
                Err(_) => self.timed_out(),
            };

            may_have_happened |= error.happened == Happened::Unknown;
            if may_have_happened {
                error.happened = Happened::Unknown;
            }
            if !matches!(error.code, ErrorCode::Unavailable | ErrorCode::Timeout) {
                return Err(error);
            }
            self.move_on_from(asked);
            tries_left -= 1;
            let may_repeat = repeat == Repeat::Safe || !may_have_happened;
            if tries_left == 0 || !may_repeat || Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    fn timed_out(&self) -> ServiceError {
        let text = format!("the metadata service did not answer within {:?}", self.deadline);
        ServiceError::unknown(ErrorCode::Timeout, text)
    }

    /// Of many calls that failed at one endpoint, the first moves on.
    fn move_on_from(&self, asked: usize) {
        let next = asked.wrapping_add(1);
        let _ = self.current.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn unreadable(error: DecodeError) -> ServiceError {
    error.unreadable_answer()
}

/// Puts together a view that came in pieces.
fn join(pieces: Vec<pb::PartitionView>) -> Result<PartitionView, DecodeError> {
    let mut pieces = pieces.into_iter();
    let mut view: PartitionView = required("partition_view", pieces.next())?.try_into()?;
    for piece in pieces {
        view.segments.extend(all::<_, crate::meta::SegmentRecord>(piece.segments)?);
    }
    Ok(view)
}

/// One unary call: its name in the stub, and its request.
macro_rules! ask {
    ($client:expr, $repeat:expr, $method:ident, $request:expr) => {
        $client
            .call($repeat, $request, |mut stub, request| async move {
                stub.$method(request).await.map(tonic::Response::into_inner)
            })
            .await
    };
}

#[async_trait]
impl MetaService for MetaClient {
    async fn cluster(&self) -> Result<ClusterRecord, ServiceError> {
        let answer = ask!(self, Repeat::Safe, get_cluster, pb::GetClusterRequest {})?;
        answer.try_into().map_err(unreadable)
    }

    async fn create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        let answer = ask!(self, Repeat::Never, create_topic, pb::CreateTopicRequest::from(request))?;
        answer.try_into().map_err(unreadable)
    }

    async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        let request = pb::DeleteTopicRequest { name: name.to_owned() };
        let answer = ask!(self, Repeat::Never, delete_topic, request)?;
        answer.try_into().map_err(unreadable)
    }

    async fn alter_topic_config(&self, name: &str, changes: ConfigChanges) -> Result<TopicRecord, ServiceError> {
        // Not repeated: the late first try could undo a change that was made after the second.
        let answer = ask!(self, Repeat::Never, alter_topic_config, alter_topic_config(name, changes))?;
        answer.try_into().map_err(unreadable)
    }

    async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
        let request = pb::AddPartitionsRequest { name: name.to_owned(), total };
        ask!(self, Repeat::Safe, add_partitions, request)?.try_into().map_err(unreadable)
    }

    async fn purge_topic(&self, term: Term, topic: TopicId) -> Result<bool, ServiceError> {
        let request = pb::PurgeTopicRequest { term: term.0, topic_id: topic.0.to_vec().into() };
        Ok(ask!(self, Repeat::Safe, purge_topic, request)?.done)
    }

    async fn list_topics(&self) -> Result<Vec<TopicRecord>, ServiceError> {
        let request = pb::ListTopicsRequest {};
        let topics = self.call(Repeat::Safe, request, |mut stub, request| async move {
            stub.list_topics(request).await?.into_inner().try_collect::<Vec<_>>().await
        });
        all(topics.await?).map_err(unreadable)
    }

    async fn topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError> {
        let request = pb::GetTopicRequest { name: name.to_owned() };
        let answer = ask!(self, Repeat::Safe, get_topic, request)?;
        optional(answer.topic).map_err(unreadable)
    }

    async fn open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError> {
        let request = pb::OpenSessionRequest::from(request);
        Ok(SessionId(ask!(self, Repeat::Never, open_session, request)?.session_id))
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), ServiceError> {
        ask!(self, Repeat::Safe, keep_alive, pb::KeepAliveRequest { session_id: session.0 })?;
        Ok(())
    }

    async fn close_session(&self, session: SessionId) -> Result<(), ServiceError> {
        ask!(self, Repeat::Never, close_session, pb::CloseSessionRequest { session_id: session.0 })?;
        Ok(())
    }

    async fn list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError> {
        let answer = ask!(self, Repeat::Safe, list_sessions, pb::ListSessionsRequest {})?;
        all(answer.sessions).map_err(unreadable)
    }

    async fn acquire_term(&self, session: SessionId) -> Result<Term, ServiceError> {
        // The session that holds the term gets the same one again.
        let request = pb::AcquireTermRequest { session_id: session.0 };
        Ok(Term(ask!(self, Repeat::Safe, acquire_term, request)?.term))
    }

    async fn set_intents(
        &self,
        term: Term,
        intents: Vec<(TopicPartition, Option<NodeId>)>,
    ) -> Result<(), ServiceError> {
        // Not repeated: the late first try could undo a change that was made after the second.
        let changes = intents.into_iter().map(Into::into).collect();
        ask!(self, Repeat::Never, set_intents, pb::SetIntentsRequest { term: term.0, changes })?;
        Ok(())
    }

    async fn command(&self, command: PartitionCommand) -> Result<PartitionView, ServiceError> {
        // The nonce makes sure that it is applied once.
        let answer = ask!(self, Repeat::Safe, command, pb::PartitionCommand::from(&command))?;
        answer.try_into().map_err(unreadable)
    }

    async fn head(&self, partition: TopicPartition) -> Result<PartitionHead, ServiceError> {
        let request = pb::GetHeadRequest { partition: Some(partition.into()) };
        ask!(self, Repeat::Safe, get_head, request)?.try_into().map_err(unreadable)
    }

    async fn partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError> {
        let request = pb::GetPartitionRequest { partition: Some(partition.into()) };
        let pieces = self.call(Repeat::Safe, request, |mut stub, request| async move {
            stub.get_partition(request).await?.into_inner().try_collect::<Vec<_>>().await
        });
        join(pieces.await?).map_err(unreadable)
    }

    async fn segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let request = pb::ListSegmentsRequest { partition: Some(partition.into()), from: from.0, limit };
        ask!(self, Repeat::Safe, list_segments, request)?.try_into().map_err(unreadable)
    }

    async fn garbage(&self, partition: TopicPartition) -> Result<Vec<GarbageRecord>, ServiceError> {
        let request = pb::ListGarbageRequest { partition: Some(partition.into()) };
        all(ask!(self, Repeat::Safe, list_garbage, request)?.garbage).map_err(unreadable)
    }

    async fn allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError> {
        // A range that is lost on the way is only a gap.
        Ok(ask!(self, Repeat::Safe, allocate_producer_ids, pb::AllocateProducerIdsRequest { count })?.first)
    }

    async fn watch(&self, scope: WatchScope) -> Result<WatchStream, ServiceError> {
        let responses = self.call(Repeat::Safe, pb::WatchRequest::from(scope), |mut stub, mut request| async move {
            // The deadline is for the opening only.
            request.metadata_mut().remove("grpc-timeout");
            stub.watch(request).await.map(tonic::Response::into_inner)
        });
        Ok(watch_events(responses.await?))
    }
}
