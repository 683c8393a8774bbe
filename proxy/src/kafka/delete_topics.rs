//! `DeleteTopics`: by name, in newer versions by id too.

use std::collections::HashMap;
use std::sync::Arc;

use bmq_kafka::messages::delete_topics_request::DeleteTopicState;
use bmq_kafka::messages::delete_topics_response::DeletableTopicResult;
use bmq_kafka::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes, Uuid};
use bmq_proto::TopicId;
use bmq_proto::meta::{TopicRecord, TopicState};
use futures::FutureExt;

use super::refusal::{Refusal, named_twice};
use super::{RequestContext, TOPICS_AT_ONCE};
use crate::several::several;

/// From this version on topics may be named by their ids.
const IDS_SINCE: i16 = 6;

pub async fn handle(context: &RequestContext<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let topics = if context.version >= IDS_SINCE {
        request.topics
    } else {
        let by_name = |name| DeleteTopicState::default().with_name(Some(name));
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut times: HashMap<(Option<String>, Uuid), usize> = HashMap::new();
    topics.iter().for_each(|topic| *times.entry(key(topic)).or_default() += 1);
    let delete = |topic: DeleteTopicState| {
        let is_alone = times[&key(&topic)] == 1;
        answer(context, topic, is_alone).boxed()
    };
    DeleteTopicsResponse::default().with_responses(several(topics, TOPICS_AT_ONCE, delete).await)
}

async fn answer(context: &RequestContext<'_>, topic: DeleteTopicState, is_alone: bool) -> DeletableTopicResult {
    let deleted = if is_alone { delete(context, &topic).await } else { Err(named_twice("topic")) };
    let answer = DeletableTopicResult::default().with_name(topic.name.clone()).with_topic_id(topic.topic_id);
    match deleted {
        Ok(record) => answer
            .with_name(Some(TopicName(StrBytes::from_string(record.name.clone()))))
            .with_topic_id(Uuid::from_bytes(record.id.0)),
        Err(refusal) => answer.with_error_code(refusal.code).with_error_message(refusal.text()),
    }
}

fn key(topic: &DeleteTopicState) -> (Option<String>, Uuid) {
    (topic.name.as_ref().map(|name| name.to_string()), topic.topic_id)
}

async fn delete(context: &RequestContext<'_>, topic: &DeleteTopicState) -> Result<Arc<TopicRecord>, Refusal> {
    let record = match (&topic.name, topic.topic_id.is_nil()) {
        (Some(name), true) => {
            let found = context.api.read_topic(name).await;
            Arc::new(found.map_err(|error| Refusal::of(&error, ResponseError::UnknownTopicOrPartition))?)
        }
        (None, false) => by_id(context, TopicId(*topic.topic_id.as_bytes())).await?,
        _ => {
            let message = "a topic to be deleted is named by its name or its id, one of them";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
    };
    let deleted = context.api.delete_topic(&record.name).await;
    deleted.map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    Ok(record)
}

async fn by_id(context: &RequestContext<'_>, id: TopicId) -> Result<Arc<TopicRecord>, Refusal> {
    if let Some(known) = context.api.directory.topic_by_id(id) {
        return Ok(known);
    }
    // The watch may lag.
    let all = context.api.ask_meta(context.api.meta.list_topics()).await;
    let all = all.map_err(|error| Refusal::of(&error, ResponseError::InvalidRequest))?;
    let found = all.into_iter().find(|topic| topic.id == id && topic.state == TopicState::Active);
    found.map(Arc::new).ok_or_else(|| Refusal::new(ResponseError::UnknownTopicId, format!("there is no topic {id}")))
}
