//! A topic's life: created, marked for deletion, purged.

use bmq_proto::meta::{CreateTopic, TopicRecord, TopicState};
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::{ErrorCode, NodeId, ServiceError, TopicId, TopicPartition};

use super::refuse;

/// Most partitions of one topic.
pub const MAX_PARTITIONS: u32 = 10_000;
/// Kafka's bound on the length of a topic's name.
const MAX_NAME: usize = 249;

/// The record of a new topic, if its name is free. `id` is the caller's, fresh and random; a record that has it already
/// is the same request come again.
pub fn create(present: Option<&TopicRecord>, request: &CreateTopic, id: TopicId) -> Result<TopicRecord, ServiceError> {
    check_name(&request.name)?;
    if !(1..=MAX_PARTITIONS).contains(&request.partitions) {
        let message = format!("{} partitions, of 1 to {MAX_PARTITIONS}", request.partitions);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    TopicSettings::parse(&request.config)?;
    match present {
        None => {}
        Some(topic) if topic.id == id => return Ok(topic.clone()),
        Some(topic) => {
            let state = if topic.state == TopicState::Deleting { "is still being deleted" } else { "exists" };
            return refuse(ErrorCode::TopicExists, format!("topic `{}` {state}", topic.name));
        }
    }
    Ok(TopicRecord {
        id,
        name: request.name.clone(),
        partitions: request.partitions,
        config: request.config.clone(),
        state: TopicState::Active,
    })
}

/// The record marked for deletion; the same one if it was marked before.
pub fn delete(present: Option<&TopicRecord>, name: &str) -> Result<TopicRecord, ServiceError> {
    match present {
        Some(topic) => Ok(TopicRecord { state: TopicState::Deleting, ..topic.clone() }),
        None => refuse(ErrorCode::UnknownTopic, format!("there is no topic `{name}`")),
    }
}

/// Whether a topic's records may be removed; `None` stands for a topic of which nothing is left.
pub fn check_purge(present: Option<&TopicRecord>) -> Result<(), ServiceError> {
    match present {
        Some(topic) if topic.state == TopicState::Active => {
            refuse(ErrorCode::Conflict, format!("topic `{}` is not marked for deletion", topic.name))
        }
        _ => Ok(()),
    }
}

/// Whether an intent for `partition` may be written; one may always be removed.
pub fn check_intent(
    present: Option<&TopicRecord>,
    partition: TopicPartition,
    node: Option<NodeId>,
) -> Result<(), ServiceError> {
    if node.is_none() {
        return Ok(());
    }
    match present {
        None => refuse(ErrorCode::UnknownTopic, format!("there is no topic {}", partition.topic)),
        Some(topic) if topic.state == TopicState::Deleting => {
            refuse(ErrorCode::UnknownTopic, format!("topic `{}` is being deleted", topic.name))
        }
        Some(topic) if partition.partition.0 >= topic.partitions => {
            let message = format!("topic `{}` has no partition {}", topic.name, partition.partition);
            refuse(ErrorCode::UnknownPartition, message)
        }
        Some(_) => Ok(()),
    }
}

/// Checks a topic's name as Kafka does.
pub fn check_name(name: &str) -> Result<(), ServiceError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > MAX_NAME {
        let message = format!("a topic's name has 1 to {MAX_NAME} characters, this one {}", name.chars().count());
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if !name.bytes().all(valid) || name == "." || name == ".." {
        let message = format!("topic name `{}`: letters, digits, `.`, `_` and `-` only", name.escape_debug());
        return refuse(ErrorCode::InvalidArgument, message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::PartitionId;

    fn request(name: &str, partitions: u32) -> CreateTopic {
        CreateTopic { name: name.to_owned(), partitions, config: Default::default() }
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "A-b_c.9", &"x".repeat(249)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250), &"x".repeat(300)] {
            assert_eq!(check_name(name).unwrap_err().code, ErrorCode::InvalidArgument, "{name}");
        }
    }

    #[test]
    fn a_name_is_taken_once_and_a_request_may_come_twice() {
        let (id, other) = (TopicId([1; 16]), TopicId([2; 16]));
        let topic = create(None, &request("t", 3), id).unwrap();
        assert_eq!(create(Some(&topic), &request("t", 3), id), Ok(topic.clone()));
        assert_eq!(create(Some(&topic), &request("t", 3), other).unwrap_err().code, ErrorCode::TopicExists);
        let deleting = delete(Some(&topic), "t").unwrap();
        assert_eq!(create(Some(&deleting), &request("t", 3), other).unwrap_err().code, ErrorCode::TopicExists);
        assert_eq!(delete(Some(&deleting), "t"), Ok(deleting));
    }

    #[test]
    fn counts_are_bounded() {
        for partitions in [0, MAX_PARTITIONS + 1] {
            let error = create(None, &request("t", partitions), TopicId([1; 16])).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn settings_are_checked() {
        let with = |name: &str, value: &str| {
            let config = [(name.to_owned(), value.to_owned())].into();
            create(None, &CreateTopic { config, ..request("t", 1) }, TopicId([1; 16]))
        };
        assert_eq!(with("segment.bytes", "1048576").unwrap().config["segment.bytes"], "1048576");
        for (name, value) in [("segment.bytes", "x"), ("no.such.setting", "1")] {
            assert_eq!(with(name, value).unwrap_err().code, ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn intents_need_an_active_topic_and_its_partition() {
        let topic = create(None, &request("t", 3), TopicId([1; 16])).unwrap();
        let at = |number| TopicPartition { topic: topic.id, partition: PartitionId(number) };
        let node = Some(NodeId(1));
        assert_eq!(check_intent(Some(&topic), at(2), node), Ok(()));
        assert_eq!(check_intent(Some(&topic), at(3), node).unwrap_err().code, ErrorCode::UnknownPartition);
        assert_eq!(check_intent(None, at(0), node).unwrap_err().code, ErrorCode::UnknownTopic);
        assert_eq!(check_intent(None, at(0), None), Ok(()));
        let deleting = delete(Some(&topic), "t").unwrap();
        assert!(check_intent(Some(&deleting), at(0), node).is_err());
        assert!(check_purge(Some(&topic)).is_err());
        assert_eq!(check_purge(Some(&deleting)), Ok(()));
    }
}
