//! Watches as gRPC streams: the events as messages, and how a stream of them begins, is grouped, and ends.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future, stream};
use tonic::Status;

use super::command::session_key;
use super::decode::{DecodeError, required, topic_id};
use super::record::node_kind;
use super::status::{from_status, to_status};
use crate::internal as pb;
use crate::internal::watch_event::{self as message_of, Event as Message};
use crate::meta::{MetaChange, WatchEvent, WatchStream};
use crate::{ErrorCode, NodeId, ServiceError};

/// Events of one message: while the watcher is slow, more of them travel together.
const EVENTS_PER_MESSAGE: usize = 256;

impl From<&WatchEvent> for pb::WatchEvent {
    fn from(event: &WatchEvent) -> Self {
        let event = match event {
            WatchEvent::Reset => Message::Reset(message_of::Mark {}),
            WatchEvent::Synced => Message::Synced(message_of::Mark {}),
            WatchEvent::Change(change) => change.into(),
        };
        Self { event: Some(event) }
    }
}

impl From<&MetaChange> for Message {
    fn from(change: &MetaChange) -> Self {
        match change {
            MetaChange::Topic(topic) => Message::Topic(topic.into()),
            MetaChange::TopicGone(topic) => Message::TopicGone(topic.0.to_vec().into()),
            MetaChange::Session(session) => Message::Session(session.into()),
            MetaChange::SessionGone(kind, node) => Message::SessionGone(session_key(*kind, *node)),
            MetaChange::Intent(partition, intent) => Message::Intent(message_of::IntentEntry {
                partition: Some((*partition).into()),
                intent: Some(intent.into()),
            }),
            MetaChange::IntentGone(partition) => Message::IntentGone((*partition).into()),
            MetaChange::Head(partition, head) => {
                Message::Head(message_of::HeadEntry { partition: Some((*partition).into()), head: Some(head.into()) })
            }
            MetaChange::HeadGone(partition) => Message::HeadGone((*partition).into()),
        }
    }
}

impl TryFrom<pb::WatchEvent> for WatchEvent {
    type Error = DecodeError;
    fn try_from(message: pb::WatchEvent) -> Result<Self, DecodeError> {
        let change = match required("watch_event.event", message.event)? {
            Message::Reset(_) => return Ok(WatchEvent::Reset),
            Message::Synced(_) => return Ok(WatchEvent::Synced),
            Message::Topic(topic) => MetaChange::Topic(topic.try_into()?),
            Message::TopicGone(id) => MetaChange::TopicGone(topic_id("watch_event.topic_gone", &id)?),
            Message::Session(session) => MetaChange::Session(session.try_into()?),
            Message::SessionGone(key) => {
                MetaChange::SessionGone(node_kind("session_gone.kind", key.kind)?, NodeId(key.node_id))
            }
            Message::Intent(entry) => MetaChange::Intent(
                required("intent_entry.partition", entry.partition)?.try_into()?,
                required("intent_entry.intent", entry.intent)?.try_into()?,
            ),
            Message::IntentGone(partition) => MetaChange::IntentGone(partition.try_into()?),
            Message::Head(entry) => MetaChange::Head(
                required("head_entry.partition", entry.partition)?.try_into()?,
                required("head_entry.head", entry.head)?.try_into()?,
            ),
            Message::HeadGone(partition) => MetaChange::HeadGone(partition.try_into()?),
        };
        Ok(WatchEvent::Change(change))
    }
}

/// The server's side of a watch: events that are ready travel together, and an error ends it.
pub(super) fn watch_responses(events: WatchStream) -> impl Stream<Item = Result<pb::WatchResponse, Status>> + Send {
    events.ready_chunks(EVENTS_PER_MESSAGE).flat_map(|ready| {
        let mut events = Vec::with_capacity(ready.len());
        let mut failure = None;
        for event in ready {
            match event {
                Ok(event) => events.push((&event).into()),
                Err(error) => {
                    failure = Some(Err(to_status(&error)));
                    break;
                }
            }
        }
        let response = (!events.is_empty()).then_some(Ok(pb::WatchResponse { events }));
        stream::iter(response.into_iter().chain(failure))
    })
}

/// The client's side of a watch. It ends with an error, also when the server ended it without one.
pub(super) fn watch_events<S>(responses: S) -> WatchStream
where
    S: Stream<Item = Result<pb::WatchResponse, Status>> + Send + 'static,
{
    let events = responses.flat_map(|response| {
        let events = match response {
            Ok(response) => response.events.into_iter().map(read_event).collect(),
            Err(status) => vec![Err(from_status(&status))],
        };
        stream::iter(events)
    });
    ending_with_error(events)
}

fn read_event(message: pb::WatchEvent) -> Result<WatchEvent, ServiceError> {
    message.try_into().map_err(|error: DecodeError| error.unreadable_answer())
}

/// `items` up to their first error; an error of its own if they end without one.
pub(super) fn ending_with_error<S, T>(items: S) -> BoxStream<'static, Result<T, ServiceError>>
where
    S: Stream<Item = Result<T, ServiceError>> + Send + 'static,
    T: Send + 'static,
{
    let ended = ServiceError::unknown(ErrorCode::Unavailable, "the other side ended the stream");
    items
        .chain(stream::iter([Err(ended)]))
        .scan(false, |failed, item| {
            let item = (!*failed).then_some(item);
            *failed |= matches!(item, Some(Err(_)));
            future::ready(item)
        })
        .boxed()
}
