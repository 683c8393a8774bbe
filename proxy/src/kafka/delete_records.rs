//! `DeleteRecords`: moves the log start of partitions, at their owners.

use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_kafka::ResponseError;
use bmq_kafka::error::append_code;
use bmq_kafka::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use bmq_kafka::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use bmq_kafka::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::{ErrorCode, Offset, ServiceError, TopicPartition};
use futures::FutureExt;
use tokio::time::Instant;

use super::RequestContext;
use crate::several::several;
use crate::topic_admin::refuse_internal;

/// Partitions that are asked together.
const PARTITIONS_AT_ONCE: usize = 32;

/// Everything below the high watermark.
const ALL: i64 = -1;

/// The longest that a request may wait for owners.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub async fn handle(context: &RequestContext<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut topics = Vec::with_capacity(request.topics.len());
    for DeleteRecordsTopic { name, partitions, .. } in request.topics {
        let delete = |it: DeleteRecordsPartition| answer(context, &name, it, deadline).boxed();
        let partitions = several(partitions, PARTITIONS_AT_ONCE, delete).await;
        topics.push(DeleteRecordsTopicResult::default().with_name(name.clone()).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn answer(
    context: &RequestContext<'_>,
    topic: &str,
    asked: DeleteRecordsPartition,
    deadline: Instant,
) -> DeleteRecordsPartitionResult {
    let DeleteRecordsPartition { partition_index, offset, .. } = asked;
    let answer = DeleteRecordsPartitionResult::default().with_partition_index(partition_index);
    match delete(context, topic, partition_index, offset, deadline).await {
        Ok(log_start) => answer.with_low_watermark(log_start.0 as i64),
        Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
    }
}

async fn delete(
    context: &RequestContext<'_>,
    topic: &str,
    index: i32,
    before: i64,
    deadline: Instant,
) -> Result<Offset, ResponseError> {
    refuse_internal(topic).map_err(|_| ResponseError::InvalidTopicException)?;
    if let Ok(record) = context.api.directory.topic(topic).await
        && TopicSettings::parse(&record.config).is_ok_and(|settings| !settings.cleanup.delete)
    {
        return Err(ResponseError::PolicyViolation);
    }
    let number = u32::try_from(index).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let partition = context.api.directory.partition(topic, number).await;
    let partition = partition.map_err(|error| match error.code {
        ErrorCode::InvalidArgument => ResponseError::UnknownTopicOrPartition,
        _ => append_code(&error),
    })?;
    let before = match u64::try_from(before) {
        Ok(before) => Some(Offset(before)),
        Err(_) if before == ALL => None,
        Err(_) => return Err(ResponseError::OffsetOutOfRange),
    };
    move_log_start(context, partition, before, deadline).await.map_err(|error| append_code(&error))
}

/// Asks owner after owner. A second try is the same as one: the log start only grows.
async fn move_log_start(
    context: &RequestContext<'_>,
    partition: TopicPartition,
    before: Option<Offset>,
    deadline: Instant,
) -> Result<Offset, ServiceError> {
    let fetcher = &context.api.fetcher;
    let before = match before {
        Some(before) => before,
        None => fetcher.bounds.read(partition, deadline).await?.high_watermark,
    };
    let mut patience = fetcher.bounds.patience(partition, deadline);
    loop {
        let (epoch, owner) = patience.owner().await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let call = owner.service.delete_records(partition, epoch, before);
        match with_deadline("the broker", left, call).await {
            Ok(Ok(log_start)) => return Ok(log_start),
            Ok(Err(error)) => patience.pause_after(error).await?,
            Err(late) => return Err(ServiceError::unknown(ErrorCode::Timeout, late.to_string())),
        }
    }
}
