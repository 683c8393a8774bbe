//! `DescribeConfigs`: of topics, and of this proxy as a broker.

use bmq_kafka::messages::describe_configs_request::DescribeConfigsResource;
use bmq_kafka::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use bmq_kafka::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use bmq_kafka::{ResponseError, StrBytes};
use futures::FutureExt;

use super::refusal::Refusal;
use super::topic_configs::{self, SET_ON_BROKER};
use super::{RESOURCE_BROKER, RESOURCE_TOPIC, RequestContext, TOPICS_AT_ONCE};
use crate::several::several;

/// Kafka's numbers of types.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;

pub async fn handle(context: &RequestContext<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let told = |mut config: DescribeConfigsResourceResult| {
        if !synonyms {
            config.synonyms.clear();
        }
        if !documentation {
            config.documentation = None;
        }
        config
    };
    let describe = |resource| answer(context, resource).boxed();
    let mut results = several(request.resources, TOPICS_AT_ONCE, describe).await;
    for result in &mut results {
        result.configs = std::mem::take(&mut result.configs).into_iter().map(told).collect();
    }
    DescribeConfigsResponse::default().with_results(results)
}

async fn answer(context: &RequestContext<'_>, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let answer = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    let mut configs = match describe(context, &resource).await {
        Ok(configs) => configs,
        Err(refusal) => return answer.with_error_code(refusal.code).with_error_message(refusal.text()),
    };
    // No keys are all keys, whichever way a client says that.
    if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        configs.retain(|config| keys.contains(&config.name));
    }
    answer.with_configs(configs)
}

async fn describe(
    context: &RequestContext<'_>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    match resource.resource_type {
        RESOURCE_TOPIC => {
            let topic = context.api.read_topic(&resource.resource_name).await;
            let topic = topic.map_err(|error| Refusal::of(&error, ResponseError::InvalidTopicException))?;
            Ok(topic_configs::described(&topic.config))
        }
        RESOURCE_BROKER => of_broker(context, &resource.resource_name),
        other => {
            Err(Refusal::new(ResponseError::InvalidRequest, format!("resources of type {other} have no settings here")))
        }
    }
}

/// This proxy's own settings, as far as Kafka has a name for them. The cluster as a whole has none that change.
fn of_broker(context: &RequestContext<'_>, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let own = context.api.config.node();
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name != own.to_string() {
        let message = format!("this is broker {own}: the settings of broker {name} are its own to tell");
        return Err(Refusal::new(ResponseError::InvalidRequest, message));
    }
    let kafka = &context.api.config.kafka;
    let listeners = context.api.kafka.endpoints.iter().map(|(name, endpoint)| format!("{name}://{endpoint}"));
    let listeners: Vec<String> = listeners.collect();
    Ok(vec![
        broker_config("advertised.listeners", listeners.join(","), STRING, "where clients reach this broker"),
        broker_config(
            "auto.create.topics.enable",
            kafka.auto_create_topics.to_string(),
            BOOLEAN,
            "whether a topic that a client asks for is created",
        ),
        broker_config("broker.id", own.to_string(), INT, "the number of this broker: that of the proxy"),
        broker_config(
            "default.replication.factor",
            "1".to_owned(),
            INT,
            "each partition is led by one proxy; its replicas are the store's",
        ),
        broker_config(
            "message.max.bytes",
            context.api.config.produce.max_batch_bytes.0.to_string(),
            INT,
            "the largest record batch taken; a topic's own limit may be less",
        ),
        broker_config(
            "num.partitions",
            kafka.num_partitions.to_string(),
            INT,
            "how many partitions a topic gets whose creator does not say",
        ),
        broker_config(
            "socket.request.max.bytes",
            kafka.max_request_bytes.0.to_string(),
            INT,
            "the longest request taken",
        ),
    ])
}

fn broker_config(
    name: &'static str,
    value: String,
    config_type: i8,
    documentation: &'static str,
) -> DescribeConfigsResourceResult {
    let (name, value) = (StrBytes::from_static_str(name), Some(StrBytes::from_string(value)));
    let synonym =
        DescribeConfigsSynonym::default().with_name(name.clone()).with_value(value.clone()).with_source(SET_ON_BROKER);
    DescribeConfigsResourceResult::default()
        .with_name(name)
        .with_value(value)
        .with_read_only(true)
        .with_config_source(SET_ON_BROKER)
        .with_synonyms(vec![synonym])
        .with_config_type(config_type)
        .with_documentation(Some(StrBytes::from_static_str(documentation)))
}
