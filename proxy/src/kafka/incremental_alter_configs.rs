//! `IncrementalAlterConfigs`: topics' settings are changed one by one. Brokers have none that can be changed.

use std::collections::HashMap;

use bmq_kafka::ResponseError;
use bmq_kafka::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use bmq_kafka::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use bmq_kafka::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use bmq_proto::meta::{ConfigChange, ConfigChanges};
use futures::FutureExt;

use super::refusal::{Refusal, named_twice};
use super::{RESOURCE_BROKER, RESOURCE_TOPIC, RequestContext, TOPICS_AT_ONCE};
use crate::directory::check_topic_name;
use crate::several::several;
use crate::topic_admin::{Mode, refuse_internal};

pub async fn handle(
    context: &RequestContext<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mode = Mode::validate_only(request.validate_only);
    let key = |resource: &AlterConfigsResource| (resource.resource_type, resource.resource_name.to_string());
    let mut times: HashMap<(i8, String), usize> = HashMap::new();
    request.resources.iter().for_each(|resource| *times.entry(key(resource)).or_default() += 1);
    let alter = |resource: AlterConfigsResource| {
        let is_alone = times[&key(&resource)] == 1;
        answer(context, resource, is_alone, mode).boxed()
    };
    IncrementalAlterConfigsResponse::default().with_responses(several(request.resources, TOPICS_AT_ONCE, alter).await)
}

async fn answer(
    context: &RequestContext<'_>,
    resource: AlterConfigsResource,
    is_alone: bool,
    mode: Mode,
) -> AlterConfigsResourceResponse {
    let altered = if is_alone { alter(context, &resource, mode).await } else { Err(named_twice("resource")) };
    let answer = AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name);
    match altered {
        Ok(()) => answer,
        Err(refusal) => answer.with_error_code(refusal.code).with_error_message(refusal.text()),
    }
}

async fn alter(context: &RequestContext<'_>, resource: &AlterConfigsResource, mode: Mode) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ResponseError::InvalidRequest, message));
    match resource.resource_type {
        RESOURCE_TOPIC => {}
        RESOURCE_BROKER => {
            return refuse("brokers read their settings when they start: none can be changed".to_owned());
        }
        other => return refuse(format!("resources of type {other} have no settings here")),
    }
    let name = resource.resource_name.as_str();
    check_topic_name(name).map_err(|error| Refusal::of(&error, ResponseError::InvalidTopicException))?;
    refuse_internal(name).map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    let changes = changes_of(&resource.configs)?;
    let altered = context.api.alter_topic_config(name, changes, mode).await;
    altered.map(drop).map_err(|error| Refusal::of(&error, ResponseError::InvalidConfig))
}

fn changes_of(configs: &[AlterableConfig]) -> Result<ConfigChanges, Refusal> {
    let mut changes = ConfigChanges::new();
    for config in configs {
        let change = change_of(config)?;
        if changes.insert(config.name.to_string(), change).is_some() {
            return Err(named_twice("setting"));
        }
    }
    Ok(changes)
}

fn change_of(config: &AlterableConfig) -> Result<ConfigChange, Refusal> {
    let refused = |message: String| Refusal::new(ResponseError::InvalidRequest, message);
    let value = || match &config.value {
        Some(value) => Ok(value.to_string()),
        None => Err(refused(format!("{} has no value", config.name.as_str()))),
    };
    match config.config_operation {
        0 => Ok(ConfigChange::Set(value()?)),
        1 => Ok(ConfigChange::Delete),
        2 => Ok(ConfigChange::Append(value()?)),
        3 => Ok(ConfigChange::Subtract(value()?)),
        other => Err(refused(format!("{other} is no operation on a setting"))),
    }
}
