//! `DescribeProducers`: the idempotent producers that partitions remember, as their owners know.

use bmq_common::retry::with_deadline;
use bmq_kafka::ResponseError;
use bmq_kafka::error::read_code;
use bmq_kafka::messages::describe_producers_request::TopicRequest;
use bmq_kafka::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use bmq_kafka::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use bmq_proto::broker::ActiveProducer;
use bmq_proto::{ErrorCode, ServiceError};
use futures::FutureExt;
use tokio::time::Instant;

use super::RequestContext;
use super::refusal::Refusal;
use crate::several::several;

/// Partitions that are asked together.
const PARTITIONS_AT_ONCE: usize = 32;

/// There are no transactions.
const NO_TRANSACTION: i32 = -1;

pub async fn handle(context: &RequestContext<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for TopicRequest { name, partition_indexes, .. } in request.topics {
        let describe = |index| answer(context, &name, index).boxed();
        let partitions = several(partition_indexes, PARTITIONS_AT_ONCE, describe).await;
        topics.push(TopicResponse::default().with_name(name.clone()).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn answer(context: &RequestContext<'_>, topic: &str, index: i32) -> PartitionResponse {
    let answer = PartitionResponse::default().with_partition_index(index);
    let described = match u32::try_from(index) {
        Ok(number) => describe(context, topic, number).await,
        Err(_) => Err(ServiceError::not_applied(ErrorCode::UnknownPartition, format!("there is no partition {index}"))),
    };
    match described {
        Ok(producers) => answer.with_active_producers(producers.into_iter().map(state_of).collect()),
        Err(error) => {
            let code = match error.code {
                ErrorCode::InvalidArgument => ResponseError::InvalidTopicException,
                _ => read_code(&error),
            };
            let refusal = Refusal::new(code, error.to_string());
            answer.with_error_code(refusal.code).with_error_message(refusal.text())
        }
    }
}

async fn describe(context: &RequestContext<'_>, topic: &str, number: u32) -> Result<Vec<ActiveProducer>, ServiceError> {
    let partition = context.api.directory.partition(topic, number).await?;
    let fetch = &context.api.config.fetch;
    let deadline = Instant::now() + fetch.answer_timeout.get();
    let mut patience = context.api.fetcher.bounds.patience(partition, deadline);
    loop {
        let (epoch, owner) = patience.owner().await?;
        let call = owner.service.producers(partition, epoch);
        match with_deadline("the broker", fetch.call_timeout.get(), call).await {
            Ok(Ok(producers)) => return Ok(producers),
            Ok(Err(error)) => patience.pause_after(error).await?,
            Err(late) => patience.pause(&late.to_string()).await?,
        }
    }
}

fn state_of(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.key.id))
        .with_producer_epoch(producer.key.epoch.into())
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp_ms)
        .with_coordinator_epoch(NO_TRANSACTION)
        .with_current_txn_start_offset(NO_TRANSACTION.into())
}
