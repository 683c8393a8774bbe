//! `CreateTopics`. Where replicas are is the store's affair: replication factors and assignments are checked for sense
//! and then not followed, and the answer tells what is true, one replica at the proxy that leads.

use std::collections::HashMap;
use std::time::Duration;

use bmq_kafka::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use bmq_kafka::messages::create_topics_response::CreatableTopicResult;
use bmq_kafka::messages::{CreateTopicsRequest, CreateTopicsResponse};
use bmq_kafka::{ResponseError, Uuid};
use bmq_proto::meta::{CreateTopic, TopicConfig, TopicRecord};
use bmq_proto::topic_config::TopicSettings;
use futures::FutureExt;
use tokio::time::Instant;

use super::assignment::check_assignment;
use super::brokers::brokers;
use super::refusal::{Refusal, named_twice};
use super::{RequestContext, TOPICS_AT_ONCE, topic_configs};
use crate::directory::check_topic_name;
use crate::several::several;
use crate::topic_admin::{MAX_PARTITIONS, Mode, refuse_internal};

/// "As the server sees fit".
const UNSAID: i32 = -1;

/// The longest that a request may wait for a topic of the same name to be gone.
const MAX_WAIT: Duration = Duration::from_secs(60);

pub async fn handle(context: &RequestContext<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let CreateTopicsRequest { topics, timeout_ms, validate_only, .. } = request;
    let wait = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(MAX_WAIT);
    let (mode, deadline) = (Mode::validate_only(validate_only), Instant::now() + wait);
    let mut times: HashMap<String, usize> = HashMap::new();
    topics.iter().for_each(|topic| *times.entry(topic.name.to_string()).or_default() += 1);
    let create = |topic: CreatableTopic| {
        let is_alone = times[topic.name.as_str()] == 1;
        let created = async move {
            let created =
                if is_alone { create(context, &topic, mode, deadline).await } else { Err(named_twice("topic")) };
            created.unwrap_or_else(|refusal| refused(&topic, &refusal))
        };
        created.boxed()
    };
    CreateTopicsResponse::default().with_topics(several(topics, TOPICS_AT_ONCE, create).await)
}

async fn create(
    context: &RequestContext<'_>,
    topic: &CreatableTopic,
    mode: Mode,
    deadline: Instant,
) -> Result<CreatableTopicResult, Refusal> {
    let name = topic.name.to_string();
    check_topic_name(&name).map_err(|error| Refusal::of(&error, ResponseError::InvalidTopicException))?;
    refuse_internal(&name).map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    check_replication(topic)?;
    let partitions = match topic.assignments.as_slice() {
        [] => partition_count(topic.num_partitions, context.api.config.kafka.num_partitions)?,
        assignments => assigned_count(context, topic, assignments)?,
    };
    let config = config_of(topic)?;
    let created = context.api.create_topic(CreateTopic { name, partitions, config }, mode, deadline).await;
    let created = created.map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    Ok(told(topic, &created))
}

fn partition_count(asked: i32, default: u32) -> Result<u32, Refusal> {
    match u32::try_from(asked) {
        Ok(count) if (1..=MAX_PARTITIONS).contains(&count) => Ok(count),
        Err(_) if asked == UNSAID => Ok(default),
        _ => {
            let message = format!("a topic has 1 to {MAX_PARTITIONS} partitions, or -1 for the default, not {asked}");
            Err(Refusal::new(ResponseError::InvalidPartitions, message))
        }
    }
}

fn check_replication(topic: &CreatableTopic) -> Result<(), Refusal> {
    let factor = topic.replication_factor;
    if factor > 0 || i32::from(factor) == UNSAID {
        return Ok(());
    }
    let message = format!("a replication factor is above 0, or -1 for the default, not {factor}");
    Err(Refusal::new(ResponseError::InvalidReplicationFactor, message))
}

/// How many partitions the assignments name: each once, from 0 on, and each at brokers that there are.
fn assigned_count(
    context: &RequestContext<'_>,
    topic: &CreatableTopic,
    assignments: &[CreatableReplicaAssignment],
) -> Result<u32, Refusal> {
    if topic.num_partitions != UNSAID || i32::from(topic.replication_factor) != UNSAID {
        let message = "with assignments the number of partitions and the replication factor are -1";
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    let mut numbers: Vec<i32> = assignments.iter().map(|assignment| assignment.partition_index).collect();
    numbers.sort_unstable();
    if !numbers.iter().copied().eq(0..numbers.len() as i32) {
        let message = "the assignments must name each partition once, from 0 on";
        return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    }
    let brokers = brokers(context);
    for assignment in assignments {
        check_assignment(&brokers, &assignment.broker_ids)?;
    }
    partition_count(numbers.len() as i32, 0)
}

fn config_of(topic: &CreatableTopic) -> Result<TopicConfig, Refusal> {
    let mut config = TopicConfig::new();
    for entry in &topic.configs {
        let Some(value) = &entry.value else {
            let message = format!("{} has no value", entry.name.as_str());
            return Err(Refusal::new(ResponseError::InvalidConfig, message));
        };
        config.insert(entry.name.to_string(), value.to_string());
    }
    TopicSettings::parse(&config).map_err(|error| Refusal::of(&error, ResponseError::InvalidConfig))?;
    Ok(config)
}

fn told(topic: &CreatableTopic, created: &TopicRecord) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_topic_id(Uuid::from_bytes(created.id.0))
        .with_num_partitions(created.partitions as i32)
        .with_replication_factor(1)
        .with_configs(Some(topic_configs::created(&created.config)))
}

fn refused(topic: &CreatableTopic, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(refusal.code)
        .with_error_message(refusal.text())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
}
