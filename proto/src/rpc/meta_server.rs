//! The metadata service behind gRPC.

use std::sync::Arc;

use bmq_common::Shutdown;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::MAX_MESSAGE_BYTES;
use super::command::config_changes;
use super::decode::{DecodeError, all, offset, required, topic_id};
use super::meta_stream::watch_responses;
use super::status::to_status;
use crate::internal as pb;
use crate::internal::meta_server::{Meta, MetaServer};
use crate::meta::{MetaService, PartitionView, SessionId};
use crate::{ServiceError, Term, TopicPartition};

/// Segments of one message of a partition's view.
const SEGMENTS_PER_MESSAGE: usize = 1024;

/// The gRPC service over `service`. Its watches end when `shutdown` begins.
pub fn meta_server(service: Arc<dyn MetaService>, shutdown: Shutdown) -> MetaServer<impl Meta> {
    MetaServer::new(Glue { service, shutdown }).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

struct Glue {
    service: Arc<dyn MetaService>,
    shutdown: Shutdown,
}

/// A stream of answers.
type Answers<T> = BoxStream<'static, Result<T, Status>>;

pub(super) fn refused(error: DecodeError) -> Status {
    to_status(&error.refusal())
}

pub(super) fn failed(error: ServiceError) -> Status {
    to_status(&error)
}

pub(super) fn partition_of(name: Option<pb::TopicPartition>) -> Result<TopicPartition, Status> {
    required("request.partition", name).and_then(TopicPartition::try_from).map_err(refused)
}

/// A view in pieces; the first has the head and the checkpoint.
fn pieces(view: &PartitionView) -> Vec<pb::PartitionView> {
    let head = pb::PartitionHead::from(&view.head);
    let mut pieces: Vec<_> = view
        .segments
        .chunks(SEGMENTS_PER_MESSAGE)
        .map(|segments| pb::PartitionView {
            head: None,
            segments: segments.iter().map(Into::into).collect(),
            checkpoint: None,
        })
        .collect();
    if pieces.is_empty() {
        pieces.push(pb::PartitionView::default());
    }
    pieces[0].head = Some(head);
    pieces[0].checkpoint = view.checkpoint.as_ref().map(Into::into);
    pieces
}

#[tonic::async_trait]
impl Meta for Glue {
    type ListTopicsStream = Answers<pb::TopicRecord>;
    type GetPartitionStream = Answers<pb::PartitionView>;
    type WatchStream = Answers<pb::WatchResponse>;

    async fn get_cluster(&self, _: Request<pb::GetClusterRequest>) -> Result<Response<pb::ClusterRecord>, Status> {
        let cluster = self.service.cluster().await.map_err(failed)?;
        Ok(Response::new((&cluster).into()))
    }

    async fn create_topic(
        &self,
        request: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::TopicRecord>, Status> {
        let topic = self.service.create_topic(request.into_inner().into()).await.map_err(failed)?;
        Ok(Response::new((&topic).into()))
    }

    async fn delete_topic(
        &self,
        request: Request<pb::DeleteTopicRequest>,
    ) -> Result<Response<pb::TopicRecord>, Status> {
        let topic = self.service.delete_topic(&request.get_ref().name).await.map_err(failed)?;
        Ok(Response::new((&topic).into()))
    }

    async fn alter_topic_config(
        &self,
        request: Request<pb::AlterTopicConfigRequest>,
    ) -> Result<Response<pb::TopicRecord>, Status> {
        let request = request.into_inner();
        let changes = config_changes(request.changes).map_err(refused)?;
        let topic = self.service.alter_topic_config(&request.name, changes).await.map_err(failed)?;
        Ok(Response::new((&topic).into()))
    }

    async fn add_partitions(
        &self,
        request: Request<pb::AddPartitionsRequest>,
    ) -> Result<Response<pb::TopicRecord>, Status> {
        let request = request.get_ref();
        let topic = self.service.add_partitions(&request.name, request.total).await.map_err(failed)?;
        Ok(Response::new((&topic).into()))
    }

    async fn purge_topic(
        &self,
        request: Request<pb::PurgeTopicRequest>,
    ) -> Result<Response<pb::PurgeTopicResponse>, Status> {
        let request = request.into_inner();
        let topic = topic_id("purge_topic.topic_id", &request.topic_id).map_err(refused)?;
        let done = self.service.purge_topic(Term(request.term), topic).await.map_err(failed)?;
        Ok(Response::new(pb::PurgeTopicResponse { done }))
    }

    async fn list_topics(
        &self,
        _: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<Answers<pb::TopicRecord>>, Status> {
        let topics = self.service.list_topics().await.map_err(failed)?;
        Ok(Response::new(stream::iter(topics).map(|topic| Ok((&topic).into())).boxed()))
    }

    async fn get_topic(&self, request: Request<pb::GetTopicRequest>) -> Result<Response<pb::GetTopicResponse>, Status> {
        let topic = self.service.topic(&request.get_ref().name).await.map_err(failed)?;
        Ok(Response::new(pb::GetTopicResponse { topic: topic.as_ref().map(Into::into) }))
    }

    async fn open_session(
        &self,
        request: Request<pb::OpenSessionRequest>,
    ) -> Result<Response<pb::OpenSessionResponse>, Status> {
        let request = request.into_inner().try_into().map_err(refused)?;
        let session = self.service.open_session(request).await.map_err(failed)?;
        Ok(Response::new(pb::OpenSessionResponse { session_id: session.0 }))
    }

    async fn keep_alive(
        &self,
        request: Request<pb::KeepAliveRequest>,
    ) -> Result<Response<pb::KeepAliveResponse>, Status> {
        self.service.keep_alive(SessionId(request.get_ref().session_id)).await.map_err(failed)?;
        Ok(Response::new(pb::KeepAliveResponse {}))
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Result<Response<pb::CloseSessionResponse>, Status> {
        self.service.close_session(SessionId(request.get_ref().session_id)).await.map_err(failed)?;
        Ok(Response::new(pb::CloseSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        _: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let sessions = self.service.list_sessions().await.map_err(failed)?;
        Ok(Response::new(pb::ListSessionsResponse { sessions: sessions.iter().map(Into::into).collect() }))
    }

    async fn acquire_term(
        &self,
        request: Request<pb::AcquireTermRequest>,
    ) -> Result<Response<pb::AcquireTermResponse>, Status> {
        let term = self.service.acquire_term(SessionId(request.get_ref().session_id)).await.map_err(failed)?;
        Ok(Response::new(pb::AcquireTermResponse { term: term.0 }))
    }

    async fn set_intents(
        &self,
        request: Request<pb::SetIntentsRequest>,
    ) -> Result<Response<pb::SetIntentsResponse>, Status> {
        let request = request.into_inner();
        let changes = all(request.changes).map_err(refused)?;
        self.service.set_intents(Term(request.term), changes).await.map_err(failed)?;
        Ok(Response::new(pb::SetIntentsResponse {}))
    }

    async fn command(&self, request: Request<pb::PartitionCommand>) -> Result<Response<pb::PartitionView>, Status> {
        let command = request.into_inner().try_into().map_err(refused)?;
        let view = self.service.command(command).await.map_err(failed)?;
        Ok(Response::new((&view).into()))
    }

    async fn get_head(&self, request: Request<pb::GetHeadRequest>) -> Result<Response<pb::PartitionHead>, Status> {
        let head = self.service.head(partition_of(request.into_inner().partition)?).await.map_err(failed)?;
        Ok(Response::new((&head).into()))
    }

    async fn get_partition(
        &self,
        request: Request<pb::GetPartitionRequest>,
    ) -> Result<Response<Answers<pb::PartitionView>>, Status> {
        let view = self.service.partition(partition_of(request.into_inner().partition)?).await.map_err(failed)?;
        Ok(Response::new(stream::iter(pieces(&view)).map(Ok).boxed()))
    }

    async fn list_segments(
        &self,
        request: Request<pb::ListSegmentsRequest>,
    ) -> Result<Response<pb::PartitionView>, Status> {
        let request = request.into_inner();
        let partition = partition_of(request.partition)?;
        let from = offset("list_segments.from", request.from).map_err(refused)?;
        let view = self.service.segments_from(partition, from, request.limit as usize).await.map_err(failed)?;
        Ok(Response::new((&view).into()))
    }

    async fn list_garbage(
        &self,
        request: Request<pb::ListGarbageRequest>,
    ) -> Result<Response<pb::ListGarbageResponse>, Status> {
        let garbage = self.service.garbage(partition_of(request.into_inner().partition)?).await.map_err(failed)?;
        Ok(Response::new(pb::ListGarbageResponse { garbage: garbage.iter().map(Into::into).collect() }))
    }

    async fn allocate_producer_ids(
        &self,
        request: Request<pb::AllocateProducerIdsRequest>,
    ) -> Result<Response<pb::AllocateProducerIdsResponse>, Status> {
        let first = self.service.allocate_producer_ids(request.get_ref().count).await.map_err(failed)?;
        Ok(Response::new(pb::AllocateProducerIdsResponse { first }))
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Answers<pb::WatchResponse>>, Status> {
        let events = self.service.watch(request.into_inner().into()).await.map_err(failed)?;
        let shutdown = self.shutdown.clone();
        let until_shutdown = watch_responses(events).take_until(async move { shutdown.begun().await });
        Ok(Response::new(until_shutdown.boxed()))
    }
}
