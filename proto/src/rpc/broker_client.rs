//! One broker across processes: a `BrokerService` over gRPC.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt, future};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tracing::{debug, warn};

use super::aggregate::aggregate;
use super::append::at_or_after;
use super::decode::{DecodeError, all, offset, optional};
use super::dial::channel;
use super::meta_stream::ending_with_error;
use super::status::from_status;
use super::{MAX_MESSAGE_BYTES, STREAM_MESSAGE_BYTES};
use crate::broker::{
    ActiveProducer, AppendAnswer, AppendItem, AppendStream, BrokerService, OwnerBatches, OwnerRead, PartitionBounds,
    TailEvent, TailStream, TimeHint, TimeSearch,
};
use crate::internal as pb;
use crate::internal::broker_client::BrokerClient as Stub;
use crate::{Epoch, ErrorCode, Offset, ServiceError, TopicId, TopicPartition};

/// Groups of items that wait for the connection; what the sender has beyond these waits at the sender.
const QUEUED_GROUPS: usize = 16;

/// Bytes of an item beside its batch. A rough number is enough.
const ITEM_BYTES: usize = 64;

/// How to reach one broker.
#[derive(Debug, Clone)]
pub struct BrokerClientConfig {
    /// Its address, `host:port`.
    pub address: String,
    /// How long a call may take, and the opening of a stream.
    pub deadline: Duration,
}

/// A client of one broker.
pub struct BrokerClient {
    /// Appends have a connection of their own, so that answers to readers do not delay them.
    appends: Stub<Channel>,
    others: Stub<Channel>,
    deadline: Duration,
}

impl BrokerClient {
    /// Connects at the first call. Must be called within a Tokio runtime. `InvalidArgument` if the address is none.
    pub fn new(config: &BrokerClientConfig) -> Result<Self, ServiceError> {
        let stub = || Ok(Stub::new(channel(&config.address)?).max_decoding_message_size(MAX_MESSAGE_BYTES));
        Ok(Self { appends: stub()?, others: stub()?, deadline: config.deadline })
    }

    /// Awaits an answer, or the opening of a stream, until the deadline.
    async fn answer<T>(&self, answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ServiceError> {
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => {
                let text = format!("the broker did not answer within {:?}", self.deadline);
                Err(ServiceError::unknown(ErrorCode::Timeout, text))
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }
}

fn unreadable(error: DecodeError) -> ServiceError {
    error.unreadable_answer()
}

#[async_trait]
impl BrokerService for BrokerClient {
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        let (items, queue) = mpsc::channel(QUEUED_GROUPS);
        let groups = aggregate(ReceiverStream::new(queue), item_bytes, STREAM_MESSAGE_BYTES);
        let requests = groups.map(|group| pb::AppendRequest { items: group.into_iter().map(Into::into).collect() });
        let responses = self.answer(self.appends.clone().append(requests)).await?;
        Ok(AppendStream { items, answers: append_answers(responses).boxed() })
    }

    async fn read(&self, request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        let request = self.request(request.into());
        self.answer(self.others.clone().read(request)).await?.try_into().map_err(unreadable)
    }

    async fn bounds(&self, partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        let request = self.request(pb::GetBoundsRequest { partition: Some(partition.into()) });
        self.answer(self.others.clone().get_bounds(request)).await?.try_into().map_err(unreadable)
    }

    async fn follow(&self, partition: TopicPartition, epoch: Epoch, from: Offset) -> Result<TailStream, ServiceError> {
        let request = pb::FollowRequest { partition: Some(partition.into()), epoch: epoch.0, from: from.0 };
        let events = self.answer(self.others.clone().follow(request)).await?;
        Ok(ending_with_error(events.map(|event| match event {
            Ok(event) => TailEvent::try_from(event).map_err(unreadable),
            Err(status) => Err(from_status(&status)),
        })))
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        before: Offset,
    ) -> Result<Offset, ServiceError> {
        let request = pb::DeleteRecordsRequest { partition: Some(partition.into()), epoch: epoch.0, before: before.0 };
        let answer = self.answer(self.others.clone().delete_records(self.request(request))).await?;
        offset("delete_records.log_start", answer.log_start).map_err(unreadable)
    }

    async fn offset_for_time(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        let at_or_after_ms = at_or_after(search);
        let request = pb::OffsetForTimeRequest { partition: Some(partition.into()), epoch: epoch.0, at_or_after_ms };
        let answer = self.answer(self.others.clone().offset_for_time(self.request(request))).await?;
        optional(answer.hint).map_err(unreadable)
    }

    async fn producers(&self, partition: TopicPartition, epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        let request = pb::ListProducersRequest { partition: Some(partition.into()), epoch: epoch.0 };
        let answer = self.answer(self.others.clone().list_producers(self.request(request))).await?;
        all(answer.producers).map_err(unreadable)
    }

    async fn delete_topic_data(&self, topic: TopicId) -> Result<(), ServiceError> {
        let request = self.request(pb::DeleteTopicDataRequest { topic_id: topic.0.to_vec().into() });
        self.answer(self.others.clone().delete_topic_data(request)).await?;
        Ok(())
    }
}

/// The answers until the stream breaks or the broker ends it; which of them does not matter to the sender.
fn append_answers<S>(responses: S) -> impl Stream<Item = Vec<AppendAnswer>>
where
    S: Stream<Item = Result<pb::AppendResponse, Status>>,
{
    responses.scan((), |(), response| {
        let answers = match response.map(|response| all(response.answers)) {
            Ok(Ok(answers)) => Some(answers),
            Ok(Err(error)) => {
                warn!(%error, "append stream ended: an answer cannot be read");
                None
            }
            Err(status) => {
                debug!(error = %from_status(&status), "append stream ended");
                None
            }
        };
        future::ready(answers)
    })
}

fn item_bytes(item: &AppendItem) -> usize {
    ITEM_BYTES + item.batch.len()
}
