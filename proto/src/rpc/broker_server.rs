//! The broker service behind gRPC.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bmq_common::Shutdown;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::aggregate::aggregate;
use super::append::time_search;
use super::decode::{all, epoch, offset, topic_id};
use super::meta_server::{failed, partition_of, refused};
use super::{MAX_MESSAGE_BYTES, STREAM_MESSAGE_BYTES};
use crate::broker::{AppendAnswer, AppendItem, AppendStream, BrokerService};
use crate::internal as pb;
use crate::internal::broker_server::{Broker, BrokerServer};

/// Bytes of an answer without an error, as counted against the aim of a message. A rough number is enough.
const ANSWER_BYTES: usize = 24;

/// The gRPC service over `service`.
///
/// When `shutdown` begins, subscriptions end, and append streams take nothing more: they end when the service has
/// answered what it has taken.
pub fn broker_server(service: Arc<dyn BrokerService>, shutdown: Shutdown) -> BrokerServer<impl Broker> {
    BrokerServer::new(Glue { service, shutdown }).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

struct Glue {
    service: Arc<dyn BrokerService>,
    shutdown: Shutdown,
}

/// A stream of answers.
type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Broker for Glue {
    type AppendStream = Answers<pb::AppendResponse>;
    type FollowStream = Answers<pb::TailEvent>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Answers<pb::AppendResponse>>, Status> {
        let AppendStream { items, answers } = self.service.append_stream().await.map_err(failed)?;
        let forward = forward(request.into_inner(), items, self.shutdown.clone());
        let responses = AppendResponses {
            forward: Some(Box::pin(forward)),
            answers: aggregate(answers, answer_bytes, STREAM_MESSAGE_BYTES).boxed(),
            failed: false,
        };
        Ok(Response::new(responses.boxed()))
    }

    async fn read(&self, request: Request<pb::OwnerReadRequest>) -> Result<Response<pb::OwnerReadResponse>, Status> {
        let read = request.into_inner().try_into().map_err(refused)?;
        let batches = self.service.read(read).await.map_err(failed)?;
        Ok(Response::new(batches.into()))
    }

    async fn get_bounds(
        &self,
        request: Request<pb::GetBoundsRequest>,
    ) -> Result<Response<pb::PartitionBounds>, Status> {
        let bounds = self.service.bounds(partition_of(request.into_inner().partition)?).await.map_err(failed)?;
        Ok(Response::new(bounds.into()))
    }

    async fn follow(&self, request: Request<pb::FollowRequest>) -> Result<Response<Answers<pb::TailEvent>>, Status> {
        let request = request.into_inner();
        let partition = partition_of(request.partition)?;
        let epoch = epoch("follow.epoch", request.epoch).map_err(refused)?;
        let from = offset("follow.from", request.from).map_err(refused)?;
        let events = self.service.follow(partition, epoch, from).await.map_err(failed)?;
        let shutdown = self.shutdown.clone();
        let responses =
            events.map(|event| event.map(Into::into).map_err(failed)).take_until(async move { shutdown.begun().await });
        Ok(Response::new(responses.boxed()))
    }

    async fn delete_records(
        &self,
        request: Request<pb::DeleteRecordsRequest>,
    ) -> Result<Response<pb::DeleteRecordsResponse>, Status> {
        let request = request.into_inner();
        let partition = partition_of(request.partition)?;
        let epoch = epoch("delete_records.epoch", request.epoch).map_err(refused)?;
        let before = offset("delete_records.before", request.before).map_err(refused)?;
        let log_start = self.service.delete_records(partition, epoch, before).await.map_err(failed)?;
        Ok(Response::new(pb::DeleteRecordsResponse { log_start: log_start.0 }))
    }

    async fn offset_for_time(
        &self,
        request: Request<pb::OffsetForTimeRequest>,
    ) -> Result<Response<pb::OffsetForTimeResponse>, Status> {
        let request = request.into_inner();
        let partition = partition_of(request.partition)?;
        let epoch = epoch("offset_for_time.epoch", request.epoch).map_err(refused)?;
        let search = time_search(request.at_or_after_ms);
        let hint = self.service.offset_for_time(partition, epoch, search).await.map_err(failed)?;
        Ok(Response::new(pb::OffsetForTimeResponse { hint: hint.map(Into::into) }))
    }

    async fn list_producers(
        &self,
        request: Request<pb::ListProducersRequest>,
    ) -> Result<Response<pb::ListProducersResponse>, Status> {
        let request = request.into_inner();
        let partition = partition_of(request.partition)?;
        let epoch = epoch("list_producers.epoch", request.epoch).map_err(refused)?;
        let producers = self.service.producers(partition, epoch).await.map_err(failed)?;
        Ok(Response::new(pb::ListProducersResponse { producers: producers.into_iter().map(Into::into).collect() }))
    }

    async fn delete_topic_data(
        &self,
        request: Request<pb::DeleteTopicDataRequest>,
    ) -> Result<Response<pb::DeleteTopicDataResponse>, Status> {
        let topic = topic_id("delete_topic_data.topic_id", &request.get_ref().topic_id).map_err(refused)?;
        self.service.delete_topic_data(topic).await.map_err(failed)?;
        Ok(Response::new(pb::DeleteTopicDataResponse {}))
    }
}

/// Hands over what comes from the client, as fast as the service takes it, until either is gone or the process stops.
/// Fails if the client sends what cannot be read.
async fn forward(
    mut requests: Streaming<pb::AppendRequest>,
    items: mpsc::Sender<Vec<AppendItem>>,
    shutdown: Shutdown,
) -> Result<(), Status> {
    loop {
        let request = tokio::select! {
            biased;
            () = shutdown.begun() => return Ok(()),
            request = requests.message() => request?,
        };
        let Some(request) = request else { return Ok(()) };
        let group = all(request.items).map_err(refused)?;
        if items.send(group).await.is_err() {
            return Ok(());
        }
    }
}

/// The answers of one append stream. Also drives the forwarding of its items, so that both end with the call, without
/// a task of their own.
struct AppendResponses {
    /// `None` once it has ended.
    forward: Option<BoxFuture<'static, Result<(), Status>>>,
    answers: BoxStream<'static, Vec<AppendAnswer>>,
    failed: bool,
}

impl Stream for AppendResponses {
    type Item = Result<pb::AppendResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        if let Some(forward) = &mut self.forward
            && let Poll::Ready(result) = forward.as_mut().poll(context)
        {
            self.forward = None;
            if let Err(status) = result {
                self.failed = true;
                return Poll::Ready(Some(Err(status)));
            }
        }
        let answers = ready!(self.answers.poll_next_unpin(context));
        Poll::Ready(answers.map(|answers| {
            let answers = answers.into_iter().map(Into::into).collect();
            Ok(pb::AppendResponse { answers })
        }))
    }
}

fn answer_bytes(answer: &AppendAnswer) -> usize {
    match &answer.result {
        Ok(_) => ANSWER_BYTES,
        Err(error) => ANSWER_BYTES + error.message.len(),
    }
}
