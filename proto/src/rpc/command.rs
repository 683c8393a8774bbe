//! The requests to the metadata service, and the views that answer them, as protobuf messages.

use std::time::Duration;

use super::decode::{DecodeError, all, epoch, invalid, offset, optional, position, required};
use super::record::node_kind;
use crate::internal as pb;
use crate::internal::config_change::{Change as ChangeMessage, Delete};
use crate::internal::partition_command::{self as message_of, Kind as Message};
use crate::meta::{
    ConfigChange, ConfigChanges, CreateTopic, NodeKind, OpenSession, PartitionCommand, PartitionCommandKind,
    PartitionView, WatchScope,
};
use crate::{Epoch, FileId, Incarnation, NodeId, Offset, TopicPartition};

impl From<CreateTopic> for pb::CreateTopicRequest {
    fn from(request: CreateTopic) -> Self {
        Self { name: request.name, partitions: request.partitions, config: request.config }
    }
}

impl From<pb::CreateTopicRequest> for CreateTopic {
    fn from(message: pb::CreateTopicRequest) -> Self {
        Self { name: message.name, partitions: message.partitions, config: message.config }
    }
}

/// A request to change a topic's settings.
pub(super) fn alter_topic_config(name: &str, changes: ConfigChanges) -> pb::AlterTopicConfigRequest {
    let message = |(name, change)| {
        let change = match change {
            ConfigChange::Set(value) => ChangeMessage::Set(value),
            ConfigChange::Delete => ChangeMessage::Delete(Delete {}),
            ConfigChange::Append(items) => ChangeMessage::Append(items),
            ConfigChange::Subtract(items) => ChangeMessage::Subtract(items),
        };
        pb::ConfigChange { name, change: Some(change) }
    };
    pb::AlterTopicConfigRequest { name: name.to_owned(), changes: changes.into_iter().map(message).collect() }
}

/// The changes of such a request.
pub(super) fn config_changes(messages: Vec<pb::ConfigChange>) -> Result<ConfigChanges, DecodeError> {
    let count = messages.len();
    let mut changes = ConfigChanges::new();
    for message in messages {
        let change = match required("config_change.change", message.change)? {
            ChangeMessage::Set(value) => ConfigChange::Set(value),
            ChangeMessage::Delete(Delete {}) => ConfigChange::Delete,
            ChangeMessage::Append(items) => ConfigChange::Append(items),
            ChangeMessage::Subtract(items) => ConfigChange::Subtract(items),
        };
        changes.insert(message.name, change);
    }
    if changes.len() < count {
        return Err(invalid("alter_topic_config.changes", count as i128, "each setting at most once"));
    }
    Ok(changes)
}

impl From<OpenSession> for pb::OpenSessionRequest {
    fn from(request: OpenSession) -> Self {
        Self {
            kind: pb::NodeKind::from(request.kind).into(),
            node_id: request.node.0,
            incarnation: request.incarnation.0,
            address: request.address,
            endpoints: request.endpoints,
            time_to_live_ms: u64::try_from(request.time_to_live.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl TryFrom<pb::OpenSessionRequest> for OpenSession {
    type Error = DecodeError;
    fn try_from(message: pb::OpenSessionRequest) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: node_kind("open_session.kind", message.kind)?,
            node: NodeId(message.node_id),
            incarnation: Incarnation(message.incarnation),
            address: message.address,
            endpoints: message.endpoints,
            time_to_live: Duration::from_millis(message.time_to_live_ms),
        })
    }
}

impl From<WatchScope> for pb::WatchRequest {
    fn from(scope: WatchScope) -> Self {
        Self { topics: scope.topics, sessions: scope.sessions, intents: scope.intents, heads: scope.heads }
    }
}

impl From<pb::WatchRequest> for WatchScope {
    fn from(message: pb::WatchRequest) -> Self {
        Self { topics: message.topics, sessions: message.sessions, intents: message.intents, heads: message.heads }
    }
}

impl From<(TopicPartition, Option<NodeId>)> for pb::IntentChange {
    fn from((partition, node): (TopicPartition, Option<NodeId>)) -> Self {
        Self { partition: Some(partition.into()), node_id: node.map(|node| node.0) }
    }
}

impl TryFrom<pb::IntentChange> for (TopicPartition, Option<NodeId>) {
    type Error = DecodeError;
    fn try_from(message: pb::IntentChange) -> Result<Self, DecodeError> {
        let partition = required("intent_change.partition", message.partition)?.try_into()?;
        Ok((partition, message.node_id.map(NodeId)))
    }
}

/// The name of a session, in a watch that tells that it ended.
pub(super) fn session_key(kind: NodeKind, node: NodeId) -> pb::watch_event::SessionKey {
    pb::watch_event::SessionKey { kind: pb::NodeKind::from(kind).into(), node_id: node.0 }
}

impl From<&PartitionCommand> for pb::PartitionCommand {
    fn from(command: &PartitionCommand) -> Self {
        Self {
            partition: Some(command.partition.into()),
            nonce: command.nonce,
            now_ms: command.now_ms,
            kind: Some((&command.kind).into()),
        }
    }
}

impl TryFrom<pb::PartitionCommand> for PartitionCommand {
    type Error = DecodeError;
    fn try_from(message: pb::PartitionCommand) -> Result<Self, DecodeError> {
        Ok(Self {
            partition: required("command.partition", message.partition)?.try_into()?,
            nonce: message.nonce,
            now_ms: message.now_ms,
            kind: required("command.kind", message.kind)?.try_into()?,
        })
    }
}

impl From<&PartitionCommandKind> for Message {
    fn from(kind: &PartitionCommandKind) -> Self {
        use PartitionCommandKind as Kind;
        match kind {
            Kind::Claim { owner } => Message::Claim(message_of::Claim { owner: Some((*owner).into()) }),
            Kind::RecordFloor { epoch, file, floor } => Message::RecordFloor(message_of::RecordFloor {
                epoch: epoch.0,
                file: Some((*file).into()),
                floor: floor.0,
            }),
            Kind::FinishRecovery { epoch, found, start } => Message::FinishRecovery(message_of::FinishRecovery {
                epoch: epoch.0,
                found_file: found.map(|(file, _)| file.into()),
                found_end: found.map(|(_, end)| end.into()),
                start: start.0,
            }),
            Kind::OpenSegment { epoch, file, start_position, base_offset, seal } => {
                Message::OpenSegment(message_of::OpenSegment {
                    epoch: epoch.0,
                    file: Some((*file).into()),
                    start_position: start_position.0,
                    base_offset: base_offset.0,
                    seal: seal.map(Into::into),
                })
            }
            Kind::SealSegment { epoch, file, end } => Message::SealSegment(message_of::SealSegment {
                epoch: epoch.0,
                file: Some((*file).into()),
                end: Some((*end).into()),
            }),
            Kind::CloseSegment { epoch, base_offset, file, max_timestamp_ms } => {
                Message::CloseSegment(message_of::CloseSegment {
                    epoch: epoch.0,
                    base_offset: base_offset.0,
                    file: Some((*file).into()),
                    max_timestamp_ms: *max_timestamp_ms,
                })
            }
            Kind::MoveLogStart { epoch, log_start, drop_below } => Message::MoveLogStart(message_of::MoveLogStart {
                epoch: epoch.0,
                log_start: log_start.0,
                drop_below: drop_below.0,
            }),
            Kind::ReplaceSegments { epoch, replaced, file, start_position, end_position, max_timestamp_ms } => {
                let message = |(base_offset, file): &(Offset, FileId)| message_of::replace_segments::Replaced {
                    base_offset: base_offset.0,
                    file: Some((*file).into()),
                };
                Message::ReplaceSegments(message_of::ReplaceSegments {
                    epoch: epoch.0,
                    replaced: replaced.iter().map(message).collect(),
                    file: Some((*file).into()),
                    start_position: start_position.0,
                    end_position: end_position.0,
                    max_timestamp_ms: *max_timestamp_ms,
                })
            }
            Kind::Checkpoint { checkpoint } => Message::Checkpoint(checkpoint.into()),
            Kind::Release { epoch } => Message::Release(message_of::Release { epoch: epoch.0 }),
            Kind::ForgetGarbage { epoch, file } => {
                Message::ForgetGarbage(message_of::ForgetGarbage { epoch: epoch.0, file: Some((*file).into()) })
            }
        }
    }
}

impl TryFrom<Message> for PartitionCommandKind {
    type Error = DecodeError;
    fn try_from(message: Message) -> Result<Self, DecodeError> {
        use PartitionCommandKind as Kind;
        Ok(match message {
            Message::Claim(claim) => Kind::Claim { owner: required("claim.owner", claim.owner)?.into() },
            Message::RecordFloor(record) => Kind::RecordFloor {
                epoch: acting_epoch(record.epoch)?,
                file: file(record.file)?,
                floor: position("record_floor.floor", record.floor)?,
            },
            Message::FinishRecovery(finish) => finish_recovery(finish)?,
            Message::OpenSegment(open) => Kind::OpenSegment {
                epoch: acting_epoch(open.epoch)?,
                file: file(open.file)?,
                start_position: position("open_segment.start_position", open.start_position)?,
                base_offset: offset("open_segment.base_offset", open.base_offset)?,
                seal: optional(open.seal)?,
            },
            Message::SealSegment(seal) => Kind::SealSegment {
                epoch: acting_epoch(seal.epoch)?,
                file: file(seal.file)?,
                end: required("seal_segment.end", seal.end)?.try_into()?,
            },
            Message::CloseSegment(close) => Kind::CloseSegment {
                epoch: acting_epoch(close.epoch)?,
                base_offset: offset("close_segment.base_offset", close.base_offset)?,
                file: file(close.file)?,
                max_timestamp_ms: close.max_timestamp_ms,
            },
            Message::MoveLogStart(shift) => Kind::MoveLogStart {
                epoch: acting_epoch(shift.epoch)?,
                log_start: offset("move_log_start.log_start", shift.log_start)?,
                drop_below: offset("move_log_start.drop_below", shift.drop_below)?,
            },
            Message::ReplaceSegments(replace) => replace_segments(replace)?,
            Message::Checkpoint(checkpoint) => Kind::Checkpoint { checkpoint: checkpoint.try_into()? },
            Message::Release(release) => Kind::Release { epoch: acting_epoch(release.epoch)? },
            Message::ForgetGarbage(forget) => {
                Kind::ForgetGarbage { epoch: acting_epoch(forget.epoch)?, file: file(forget.file)? }
            }
        })
    }
}

fn finish_recovery(message: message_of::FinishRecovery) -> Result<PartitionCommandKind, DecodeError> {
    let found = match (message.found_file, message.found_end) {
        (None, None) => None,
        (Some(file), Some(end)) => Some((file.try_into()?, end.try_into()?)),
        (None, Some(_)) => return Err(DecodeError::Missing { field: "finish_recovery.found_file" }),
        (Some(_), None) => return Err(DecodeError::Missing { field: "finish_recovery.found_end" }),
    };
    Ok(PartitionCommandKind::FinishRecovery {
        epoch: acting_epoch(message.epoch)?,
        found,
        start: offset("finish_recovery.start", message.start)?,
    })
}

fn replace_segments(message: message_of::ReplaceSegments) -> Result<PartitionCommandKind, DecodeError> {
    let replaced = |replaced: message_of::replace_segments::Replaced| {
        Ok((offset("replace_segments.base_offset", replaced.base_offset)?, file(replaced.file)?))
    };
    Ok(PartitionCommandKind::ReplaceSegments {
        epoch: acting_epoch(message.epoch)?,
        replaced: message.replaced.into_iter().map(replaced).collect::<Result<_, DecodeError>>()?,
        file: file(message.file)?,
        start_position: position("replace_segments.start_position", message.start_position)?,
        end_position: position("replace_segments.end_position", message.end_position)?,
        max_timestamp_ms: message.max_timestamp_ms,
    })
}

/// The epoch under which a command acts: one that some claim made.
fn acting_epoch(found: u32) -> Result<Epoch, DecodeError> {
    match epoch("command.epoch", found)? {
        Epoch::NONE => Err(invalid("command.epoch", found, "at least 1")),
        epoch => Ok(epoch),
    }
}

fn file(message: Option<pb::FileId>) -> Result<FileId, DecodeError> {
    required("command.file", message)?.try_into()
}

impl From<&PartitionView> for pb::PartitionView {
    fn from(view: &PartitionView) -> Self {
        Self {
            head: Some((&view.head).into()),
            segments: view.segments.iter().map(Into::into).collect(),
            checkpoint: view.checkpoint.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::PartitionView> for PartitionView {
    type Error = DecodeError;
    fn try_from(message: pb::PartitionView) -> Result<Self, DecodeError> {
        Ok(Self {
            head: required("partition_view.head", message.head)?.try_into()?,
            segments: all(message.segments)?,
            checkpoint: optional(message.checkpoint)?,
        })
    }
}
