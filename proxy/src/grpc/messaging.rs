//! The `Messaging` service: each method in a file of its own.

use std::sync::Arc;

use bmq_proto::broker::{AckLevel, TimeSearch};
use bmq_proto::meta::TopicRecord;
use bmq_proto::rpc::status::to_public_status;
use bmq_proto::v1::messaging_server::Messaging;
use bmq_proto::{ErrorCode, PartitionId, ServiceError, TopicPartition, v1};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, fetch, invalid, poll, produce, send};

/// Answers on their way to a client that does not read: few, since each may hold a mebibyte.
const FETCH_ANSWERS: usize = 8;
const PRODUCE_ANSWERS: usize = 256;

/// Partitions of one request that are asked about at once.
const BOUNDS_AT_ONCE: usize = 64;
/// The same for searches, which read.
const SEARCHES_AT_ONCE: usize = 8;

/// The service.
#[derive(Clone)]
pub struct MessagingApi(pub Arc<Api>);

#[tonic::async_trait]
impl Messaging for MessagingApi {
    type ProduceStream = ReceiverStream<Result<v1::ProduceResponse, Status>>;
    type FetchStream = ReceiverStream<Result<v1::FetchResponse, Status>>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (answers, stream) = mpsc::channel(PRODUCE_ANSWERS);
        let task = produce::run(Arc::clone(&self.0), request.into_inner(), answers);
        self.0.streams.spawn("produce stream", task);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let answer = send::send(&self.0, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_public_status(&error))
    }

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (answers, stream) = mpsc::channel(FETCH_ANSWERS);
        self.0.streams.spawn("fetch stream", fetch::run(Arc::clone(&self.0), request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn poll(&self, request: Request<v1::PollRequest>) -> Result<Response<v1::PollResponse>, Status> {
        let answer = poll::poll(&self.0, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_public_status(&error))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let answer = list_offsets(&self.0, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_public_status(&error))
    }

    async fn find_offsets(
        &self,
        request: Request<v1::FindOffsetsRequest>,
    ) -> Result<Response<v1::FindOffsetsResponse>, Status> {
        let answer = find_offsets(&self.0, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| to_public_status(&error))
    }
}

async fn find_offsets(api: &Api, request: v1::FindOffsetsRequest) -> Result<v1::FindOffsetsResponse, ServiceError> {
    let topic = api.directory.topic(&request.topic).await?;
    let numbers = wanted_partitions(&topic, request.partitions)?;
    let deadline = Instant::now() + api.config.fetch.answer_timeout.get();
    let asked = stream::iter(numbers).map(|number| {
        let partition = TopicPartition { topic: topic.id, partition: PartitionId(number) };
        async move {
            let search = TimeSearch::AtOrAfter(request.timestamp_ms);
            let (offset, timestamp_ms) = match api.fetcher.offset_for_time(partition, search, deadline).await? {
                Some(found) => (found.offset, Some(found.timestamp_ms)),
                None => (api.fetcher.bounds.read(partition, deadline).await?.high_watermark, None),
            };
            Ok::<_, ServiceError>(v1::FoundOffset { partition: number, offset: offset.0, timestamp_ms })
        }
    });
    Ok(v1::FindOffsetsResponse { partitions: asked.buffered(SEARCHES_AT_ONCE).try_collect().await? })
}

async fn list_offsets(api: &Api, request: v1::ListOffsetsRequest) -> Result<v1::ListOffsetsResponse, ServiceError> {
    let topic = api.directory.topic(&request.topic).await?;
    let numbers = wanted_partitions(&topic, request.partitions)?;
    let deadline = Instant::now() + api.config.fetch.answer_timeout.get();
    let asked = stream::iter(numbers).map(|number| {
        let (name, partition) = (&topic.name, TopicPartition { topic: topic.id, partition: PartitionId(number) });
        async move {
            let bounds = api.fetcher.bounds.read(partition, deadline).await?;
            Ok::<_, ServiceError>(v1::PartitionBounds {
                topic: name.clone(),
                partition: number,
                log_start: bounds.log_start.0,
                high_watermark: bounds.high_watermark.0,
                epoch: bounds.epoch.0,
            })
        }
    });
    Ok(v1::ListOffsetsResponse { partitions: asked.buffered(BOUNDS_AT_ONCE).try_collect().await? })
}

fn wanted_partitions(topic: &TopicRecord, wanted: Vec<u32>) -> Result<Vec<u32>, ServiceError> {
    if wanted.is_empty() {
        return Ok((0..topic.partitions).collect());
    }
    if wanted.len() > topic.partitions as usize {
        return Err(invalid(format!("topic `{}` has only {} partitions", topic.name, topic.partitions)));
    }
    match wanted.iter().find(|number| **number >= topic.partitions) {
        Some(number) => {
            let text = format!("topic `{}` has no partition {number}", topic.name);
            Err(ServiceError::not_applied(ErrorCode::UnknownPartition, text))
        }
        None => Ok(wanted),
    }
}

/// The ack level of a request.
pub(super) fn ack_level(ack: i32) -> Result<AckLevel, ServiceError> {
    match v1::Ack::try_from(ack) {
        Ok(v1::Ack::Unspecified | v1::Ack::Stored) => Ok(AckLevel::Stored),
        Ok(v1::Ack::Memory) => Ok(AckLevel::Memory),
        Err(_) => Err(invalid(format!("{ack} is not an ack level"))),
    }
}
