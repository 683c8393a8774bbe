//! A topic's life: created, marked for deletion, purged.

use bmq_proto::meta::{ConfigChanges, CreateTopic, TopicRecord, TopicState, apply_config_changes};
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
        Some(topic) if topic.is_internal() => refuse(
            ErrorCode::InvalidArgument,
            format!("topic `{name}` holds the state of a service, it cannot be deleted"),
        ),
        Some(topic) => Ok(TopicRecord { state: TopicState::Deleting, ..topic.clone() }),
        None => refuse(ErrorCode::UnknownTopic, format!("there is no topic `{name}`")),
    }
}

/// The record with other settings; the same one if they are so already.
pub fn alter_config(
    present: Option<&TopicRecord>,
    name: &str,
    changes: &ConfigChanges,
) -> Result<TopicRecord, ServiceError> {
    let topic = in_use(present, name)?;
    Ok(TopicRecord { config: apply_config_changes(&topic.config, changes)?, ..topic.clone() })
}

/// The record with `total` partitions; the same one if it has so many already.
pub fn add_partitions(present: Option<&TopicRecord>, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
    let topic = in_use(present, name)?;
    if total < topic.partitions {
        let message = format!("topic `{name}` has {} partitions, which cannot become {total}", topic.partitions);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if total > MAX_PARTITIONS {
        return refuse(ErrorCode::InvalidArgument, format!("{total} partitions, of at most {MAX_PARTITIONS}"));
    }
    Ok(TopicRecord { partitions: total, ..topic.clone() })
}

fn in_use<'a>(present: Option<&'a TopicRecord>, name: &str) -> Result<&'a TopicRecord, ServiceError> {
    match present {
        None => refuse(ErrorCode::UnknownTopic, format!("there is no topic `{name}`")),
        Some(topic) if topic.state == TopicState::Deleting => {
            refuse(ErrorCode::UnknownTopic, format!("topic `{name}` is being deleted"))
        }
        Some(topic) => Ok(topic),
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
    use bmq_proto::meta::ConfigChange;
    use proptest::prelude::*;

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
    fn an_internal_topic_stays() {
        let name = bmq_proto::coordinator::GROUPS_TOPIC;
        let topic = create(None, &request(name, 3), TopicId([1; 16])).unwrap();
        assert_eq!(delete(Some(&topic), name).unwrap_err().code, ErrorCode::InvalidArgument);
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

    /// A setting's name, known or not, and a change of it, allowed or not.
    fn changes() -> impl Strategy<Value = ConfigChanges> {
        let name = prop_oneof![Just("segment.bytes"), Just("segment.ms"), Just("max.message.bytes"), Just("colour")];
        let value = prop_oneof![Just("1048576"), Just("5000"), Just("0"), Just("red")];
        let change = prop_oneof![
            value.clone().prop_map(|value| ConfigChange::Set(value.to_owned())),
            Just(ConfigChange::Delete),
            value.prop_map(|value| ConfigChange::Append(value.to_owned())),
        ];
        prop::collection::btree_map(name.prop_map(str::to_owned), change, 0..4)
    }

    proptest! {
        #[test]
        fn changed_settings_are_allowed_and_come_twice_as_once(requests in prop::collection::vec(changes(), 1..6)) {
            let mut topic = create(None, &request("t", 3), TopicId([1; 16])).unwrap();
            for changes in requests {
                let Ok(changed) = alter_config(Some(&topic), "t", &changes) else {
                    continue;
                };
                prop_assert!(TopicSettings::parse(&changed.config).is_ok());
                prop_assert_eq!(&alter_config(Some(&changed), "t", &changes).unwrap(), &changed);
                let named = |name: &String| changes.contains_key(name);
                for (name, value) in topic.config.iter().filter(|(name, _)| !named(name)) {
                    prop_assert_eq!(changed.config.get(name), Some(value));
                }
                prop_assert_eq!((changed.id, changed.partitions, changed.state), (topic.id, 3, topic.state));
                topic = changed;
            }
        }

        #[test]
        fn partitions_only_grow(totals in prop::collection::vec(0..MAX_PARTITIONS * 2, 1..20)) {
            let mut topic = create(None, &request("t", 3), TopicId([1; 16])).unwrap();
            for total in totals {
                let allowed = (topic.partitions..=MAX_PARTITIONS).contains(&total);
                let grown = add_partitions(Some(&topic), "t", total);
                prop_assert_eq!(grown.is_ok(), allowed);
                if let Ok(grown) = grown {
                    prop_assert_eq!(grown.partitions, total);
                    prop_assert_eq!(add_partitions(Some(&grown), "t", total).unwrap(), grown.clone());
                    topic = grown;
                }
            }
        }
    }

    #[test]
    fn only_topics_in_use_are_altered() {
        let topic = create(None, &request("t", 3), TopicId([1; 16])).unwrap();
        let deleting = delete(Some(&topic), "t").unwrap();
        for present in [None, Some(&deleting)] {
            let altered = alter_config(present, "t", &ConfigChanges::new());
            assert_eq!(altered.unwrap_err().code, ErrorCode::UnknownTopic);
            assert_eq!(add_partitions(present, "t", 9).unwrap_err().code, ErrorCode::UnknownTopic);
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
