//! `CreatePartitions`: topics grow. Where the new partitions are is not the client's to say.

use std::collections::HashMap;

use bmq_kafka::ResponseError;
use bmq_kafka::messages::create_partitions_request::CreatePartitionsTopic;
use bmq_kafka::messages::create_partitions_response::CreatePartitionsTopicResult;
use bmq_kafka::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use futures::FutureExt;

use super::assignment::check_assignment;
use super::brokers::brokers;
use super::refusal::{Refusal, named_twice};
use super::{RequestContext, TOPICS_AT_ONCE};
use crate::several::several;
use crate::topic_admin::{MAX_PARTITIONS, Mode, refuse_internal};

pub async fn handle(context: &RequestContext<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mode = Mode::validate_only(request.validate_only);
    let mut times: HashMap<String, usize> = HashMap::new();
    request.topics.iter().for_each(|topic| *times.entry(topic.name.to_string()).or_default() += 1);
    let grow = |topic: CreatePartitionsTopic| {
        let is_alone = times[topic.name.as_str()] == 1;
        answer(context, topic, is_alone, mode).boxed()
    };
    CreatePartitionsResponse::default().with_results(several(request.topics, TOPICS_AT_ONCE, grow).await)
}

async fn answer(
    context: &RequestContext<'_>,
    topic: CreatePartitionsTopic,
    is_alone: bool,
    mode: Mode,
) -> CreatePartitionsTopicResult {
    let grown = if is_alone { grow(context, &topic, mode).await } else { Err(named_twice("topic")) };
    let answer = CreatePartitionsTopicResult::default().with_name(topic.name);
    match grown {
        Ok(()) => answer,
        Err(refusal) => answer.with_error_code(refusal.code).with_error_message(refusal.text()),
    }
}

async fn grow(context: &RequestContext<'_>, topic: &CreatePartitionsTopic, mode: Mode) -> Result<(), Refusal> {
    let name = topic.name.as_str();
    refuse_internal(name).map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    let present = context.api.read_topic(name).await;
    let present = present.map_err(|error| Refusal::of(&error, ResponseError::UnknownTopicOrPartition))?;
    let added = i64::from(topic.count) - i64::from(present.partitions);
    if added <= 0 || topic.count > MAX_PARTITIONS as i32 {
        let (has, count) = (present.partitions, topic.count);
        let message = format!("the topic has {has} partitions: {count} is no growth to at most {MAX_PARTITIONS}");
        return Err(Refusal::new(ResponseError::InvalidPartitions, message));
    }
    if let Some(assignments) = &topic.assignments {
        if assignments.len() as i64 != added {
            let message = format!("{added} partitions are to be added, {} are assigned", assignments.len());
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
        }
        let brokers = brokers(context);
        for assignment in assignments {
            check_assignment(&brokers, &assignment.broker_ids)?;
        }
    }
    let grown = context.api.add_partitions(name, topic.count as u32, mode).await;
    grown.map(drop).map_err(|error| Refusal::of(&error, ResponseError::InvalidPartitions))
}
