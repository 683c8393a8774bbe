//! `Metadata`: the proxies as brokers, and where topics are; may create a topic that is not there.

use std::collections::HashSet;
use std::sync::Arc;

use bmq_kafka::error::{admin_code, read_code};
use bmq_kafka::messages::metadata_request::MetadataRequestTopic;
use bmq_kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use bmq_kafka::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes, Uuid};
use bmq_proto::meta::{CreateTopic, TopicConfig, TopicRecord};
use bmq_proto::{Epoch, ErrorCode, ServiceError, TopicId};
use tracing::info;

use super::brokers::{Broker, brokers, leader};
use super::{RequestContext, authorized_operations};
use crate::directory::check_topic_name;
use crate::topic_admin::refuse_internal;

pub async fn handle(context: &RequestContext<'_>, request: MetadataRequest) -> MetadataResponse {
    let brokers = brokers(context);
    let form = Form { brokers: &brokers, operations: request.include_topic_authorized_operations };
    let topics = match request.topics {
        // The oldest version has no other way to say "all".
        Some(topics) if !(topics.is_empty() && context.version == 0) => {
            name_topics(context, topics, request.allow_auto_topic_creation, form).await
        }
        _ => all_topics(context, form),
    };
    MetadataResponse::default()
        .with_brokers(brokers.iter().map(broker_message).collect())
        .with_cluster_id(Some(StrBytes::from_string(context.api.cluster.to_string())))
        .with_controller_id(controller(&brokers))
        .with_topics(topics)
        .with_cluster_authorized_operations(authorized_operations::of_cluster(
            request.include_cluster_authorized_operations,
        ))
}

/// The broker that is told as the controller: any takes the requests that change topics.
pub fn controller(brokers: &[Broker]) -> BrokerId {
    brokers.first().map_or(BrokerId(-1), Broker::id)
}

fn broker_message(broker: &Broker) -> MetadataResponseBroker {
    MetadataResponseBroker::default().with_node_id(broker.id()).with_host(broker.host.clone()).with_port(broker.port)
}

/// How topics are told.
#[derive(Clone, Copy)]
struct Form<'a> {
    brokers: &'a [Broker],
    operations: bool,
}

fn all_topics(context: &RequestContext<'_>, form: Form<'_>) -> Vec<MetadataResponseTopic> {
    let mut topics = context.api.directory.topics();
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    topics.iter().map(|topic| topic_message(context, topic, form)).collect()
}

async fn name_topics(
    context: &RequestContext<'_>,
    wanted: Vec<MetadataRequestTopic>,
    may_create: bool,
    form: Form<'_>,
) -> Vec<MetadataResponseTopic> {
    let may_create = may_create && context.api.config.kafka.auto_create_topics;
    let mut seen = HashSet::new();
    let mut topics = Vec::with_capacity(wanted.len());
    for MetadataRequestTopic { topic_id, name, .. } in wanted {
        // Kafka's own client asks by id with an empty name, not without one.
        let name = name.filter(|_| topic_id.is_nil());
        if !seen.insert((topic_id, name.clone())) {
            continue;
        }
        let found = match &name {
            Some(name) => by_name(context, name, may_create).await,
            None => {
                let known = context.api.directory.topic_by_id(TopicId(topic_id.into_bytes()));
                known.ok_or(ResponseError::UnknownTopicId)
            }
        };
        topics.push(match found {
            Ok(topic) => topic_message(context, &topic, form),
            Err(error) => missing_topic(context, topic_id, name, error),
        });
    }
    topics
}

async fn by_name(
    context: &RequestContext<'_>,
    name: &str,
    may_create: bool,
) -> Result<Arc<TopicRecord>, ResponseError> {
    if check_topic_name(name).is_err() {
        return Err(ResponseError::InvalidTopicException);
    }
    match context.api.directory.topic(name).await {
        Ok(topic) => Ok(topic),
        Err(error) if error.code == ErrorCode::UnknownTopic && may_create && refuse_internal(name).is_ok() => {
            create(context, name).await.map_err(|error| admin_code(&error))
        }
        Err(error) => Err(read_code(&error)),
    }
}

/// Creates a topic that a client asked for; somebody else may have been faster.
async fn create(context: &RequestContext<'_>, name: &str) -> Result<Arc<TopicRecord>, ServiceError> {
    let partitions = context.api.config.kafka.num_partitions;
    let request = CreateTopic { name: name.to_owned(), partitions, config: TopicConfig::new() };
    match context.api.ask_meta(context.api.meta.create_topic(request)).await {
        Ok(topic) => {
            info!(topic = name, partitions, client = context.client.client_id, "created a topic that was asked for");
            context.api.directory.observe_topic(topic);
        }
        Err(error) if error.code == ErrorCode::TopicExists => {}
        Err(error) => return Err(error),
    }
    context.api.directory.topic(name).await
}

fn topic_message(context: &RequestContext<'_>, topic: &TopicRecord, form: Form<'_>) -> MetadataResponseTopic {
    let partitions = topic.partition_ids().map(|partition| {
        let leader = leader(form.brokers, partition).map_or(BrokerId(-1), Broker::id);
        MetadataResponsePartition::default()
            .with_partition_index(partition.partition.0 as i32)
            .with_leader_id(leader)
            .with_leader_epoch(leader_epoch(context.api.directory.epoch(partition)))
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(authorized_operations::of_topic(form.operations))
}

/// One that was never claimed has none that a client could hold against us later.
pub fn leader_epoch(epoch: Epoch) -> i32 {
    if epoch == Epoch::NONE { -1 } else { epoch.0 as i32 }
}

fn missing_topic(
    context: &RequestContext<'_>,
    topic_id: Uuid,
    name: Option<TopicName>,
    error: ResponseError,
) -> MetadataResponseTopic {
    // Versions before 12 cannot leave the name away.
    let name = name.or_else(|| (context.version < 12).then(TopicName::default));
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(topic_id)
        .with_topic_authorized_operations(authorized_operations::NOT_ASKED)
}
