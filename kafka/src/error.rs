//! Which Kafka code says what went wrong, so that the client does the right thing about it.
//!
//! Kafka's clients act on a code by the request that it answers, and some stop at a code that they do not expect
//! there. So there is one mapping per kind of request. Two rules hold in all of them:
//! * What may succeed later gets a code that clients retry by themselves; what may not gets one that they report.
//! * An error after which the request *may have been applied* never gets a code that says it was not. For Produce
//!   that leaves REQUEST_TIMED_OUT, which says neither: with it a client whose retries are off reports an unknown outcome, an
//!   idempotent one sends the batch again under its sequence and is recognised, and one that has asked for retries
//!   without idempotence has accepted duplicates, as it has with Kafka. NOT_LEADER_OR_FOLLOWER, the usual answer to
//!   what was certainly not applied, would be a lie there: librdkafka reports such a message as not persisted.

use bmq_proto::{ErrorCode, Happened, ServiceError};
use kafka_protocol::error::ResponseError;

/// For Produce and DeleteRecords, which go to the partition's leader and change something.
pub fn append_code(error: &ServiceError) -> ResponseError {
    match (error.happened, error.code) {
        (Happened::Unknown, _) => ResponseError::RequestTimedOut,
        (_, ErrorCode::InvalidArgument) => ResponseError::InvalidRecord,
        // Kafka's word for a checksum that is wrong. Clients send the batch again: it may have been the network.
        (_, ErrorCode::InvalidBatch) => ResponseError::CorruptMessage,
        (_, ErrorCode::Storage) => ResponseError::KafkaStorageError,
        // No client names an epoch in these requests: the epoch that was replaced is one between our own nodes.
        (_, ErrorCode::Fenced) => ResponseError::NotLeaderOrFollower,
        (_, code) if code.is_retriable() => ResponseError::NotLeaderOrFollower,
        (_, code) => final_code(code),
    }
}

/// For Fetch, ListOffsets, OffsetForLeaderEpoch, DescribeProducers and the partitions of Metadata: nothing changes, so
/// nothing is unknown. The Java consumer throws at any code that it does not expect in a Fetch response, a time-out for
/// example; those given here it expects.
pub fn read_code(error: &ServiceError) -> ResponseError {
    match error.code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ErrorCode::OutOfRange => ResponseError::OffsetOutOfRange,
        ErrorCode::Fenced => ResponseError::FencedLeaderEpoch,
        ErrorCode::Storage => ResponseError::KafkaStorageError,
        // Consumers stop here and say so, where at other codes they would try for ever.
        ErrorCode::Damaged | ErrorCode::InvalidBatch => ResponseError::CorruptMessage,
        code if code.is_retriable() => ResponseError::NotLeaderOrFollower,
        _ => ResponseError::UnknownServerError,
    }
}

/// For the requests that go to a group's coordinator. All of them know NOT_COORDINATOR, as they do not know other
/// codes that sound alike: the client looks the coordinator up and sends the request again. That is safe where the
/// first may have been applied, too: a commit says the same again, and a member is known by its id and generation.
pub fn group_code(error: &ServiceError) -> ResponseError {
    match (error.happened, error.code) {
        (Happened::Unknown, _) | (_, ErrorCode::Fenced) => ResponseError::NotCoordinator,
        (_, code) if code.is_retriable() => ResponseError::NotCoordinator,
        (_, code) => final_code(code),
    }
}

/// For FindCoordinator and ListGroups, which ask where or what there is: clients try these again.
pub fn find_coordinator_code(error: &ServiceError) -> ResponseError {
    match error.code {
        ErrorCode::Fenced => ResponseError::CoordinatorNotAvailable,
        code if code.is_retriable() => ResponseError::CoordinatorNotAvailable,
        code => final_code(code),
    }
}

/// For InitProducerId without a transaction. Clients send it again after COORDINATOR_LOAD_IN_PROGRESS; other codes
/// make some look for the coordinator of a transaction that there is not. An id given twice is one never used.
pub fn producer_id_code(error: &ServiceError) -> ResponseError {
    match (error.happened, error.code) {
        (Happened::Unknown, _) | (_, ErrorCode::Fenced) => ResponseError::CoordinatorLoadInProgress,
        (_, code) if code.is_retriable() => ResponseError::CoordinatorLoadInProgress,
        (_, code) => final_code(code),
    }
}

/// For requests about topics, partitions and settings. Admin clients send the request again after NOT_CONTROLLER,
/// which says that nothing was done; after a time-out their user is told that it may have been.
pub fn admin_code(error: &ServiceError) -> ResponseError {
    match (error.happened, error.code) {
        (Happened::Unknown, _) => ResponseError::RequestTimedOut,
        (_, ErrorCode::Fenced) => ResponseError::NotController,
        (_, code) if code.is_retriable() => ResponseError::NotController,
        (_, code) => final_code(code),
    }
}

/// What no retry mends, and what the mapping that asks does not treat by itself.
fn final_code(code: ErrorCode) -> ResponseError {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::InvalidBatch | ErrorCode::Conflict => ResponseError::InvalidRequest,
        ErrorCode::MessageTooLarge => ResponseError::MessageTooLarge,
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        ErrorCode::TopicExists => ResponseError::TopicAlreadyExists,
        ErrorCode::UnknownGroup => ResponseError::GroupIdNotFound,
        ErrorCode::GroupInUse => ResponseError::NonEmptyGroup,
        ErrorCode::OutOfRange => ResponseError::OffsetOutOfRange,
        ErrorCode::Unsupported => ResponseError::UnsupportedVersion,
        ErrorCode::OutOfOrderSequence => ResponseError::OutOfOrderSequenceNumber,
        ErrorCode::ProducerFenced => ResponseError::InvalidProducerEpoch,
        ErrorCode::Damaged
        | ErrorCode::Internal
        | ErrorCode::Fenced
        | ErrorCode::NotOwner
        | ErrorCode::Busy
        | ErrorCode::OutOfTurn
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::Storage => ResponseError::UnknownServerError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mapping = fn(&ServiceError) -> ResponseError;

    const MAPPINGS: [(&str, Mapping); 6] = [
        ("append", append_code),
        ("read", read_code),
        ("group", group_code),
        ("find_coordinator", find_coordinator_code),
        ("producer_id", producer_id_code),
        ("admin", admin_code),
    ];

    #[test]
    fn what_may_succeed_later_is_retried_by_clients() {
        for (name, mapping) in MAPPINGS {
            for code in ErrorCode::ALL.into_iter().filter(|code| code.is_retriable()) {
                let mapped = mapping(&ServiceError::not_applied(code, "…"));
                assert!(mapped.is_retriable(), "{name}: {code:?} → {mapped:?}");
            }
        }
    }

    #[test]
    fn what_may_have_been_written_is_never_called_unwritten() {
        for code in ErrorCode::ALL {
            let error = ServiceError::unknown(code, "…");
            assert_eq!(append_code(&error), ResponseError::RequestTimedOut, "{code:?}");
            assert_eq!(admin_code(&error), ResponseError::RequestTimedOut, "{code:?}");
        }
    }

    #[test]
    fn a_final_error_is_not_retried_for_ever() {
        let final_codes =
            [ErrorCode::MessageTooLarge, ErrorCode::Unsupported, ErrorCode::Internal, ErrorCode::Conflict];
        for (name, mapping) in MAPPINGS {
            for code in final_codes {
                let mapped = mapping(&ServiceError::not_applied(code, "…"));
                assert!(!mapped.is_retriable(), "{name}: {code:?} → {mapped:?}");
            }
        }
        assert!(!append_code(&ServiceError::not_applied(ErrorCode::Damaged, "…")).is_retriable());
    }

    /// What the Java consumer understands in a Fetch response; at any other code it throws an illegal state.
    #[test]
    fn a_fetch_gets_only_codes_that_consumers_expect() {
        let expected = [
            ResponseError::CorruptMessage,
            ResponseError::FencedLeaderEpoch,
            ResponseError::KafkaStorageError,
            ResponseError::NotLeaderOrFollower,
            ResponseError::OffsetOutOfRange,
            ResponseError::UnknownServerError,
            ResponseError::UnknownTopicOrPartition,
        ];
        for code in ErrorCode::ALL {
            let mapped = read_code(&ServiceError::not_applied(code, "…"));
            assert!(expected.contains(&mapped), "{code:?} → {mapped:?}");
        }
    }

    #[test]
    fn the_document_lists_the_codes_as_they_are() {
        let columns: [Mapping; 4] = [append_code, read_code, group_code, admin_code];
        let rows = ErrorCode::ALL.map(|code| {
            let cells = columns.map(|mapping| kafka_name(mapping(&ServiceError::not_applied(code, "…"))));
            format!("| `{}` | {} |", code.name(), cells.join(" | "))
        });
        let document = include_str!("../../docs/KAFKA_ERRORS.md");
        let found: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(found, rows, "these are the rows:\n{}", rows.join("\n"));
    }

    /// The name as Kafka writes it.
    fn kafka_name(error: ResponseError) -> String {
        let name = format!("{error:?}");
        let mut kafka = String::new();
        for (at, letter) in name.char_indices() {
            if at > 0 && letter.is_uppercase() {
                kafka.push('_');
            }
            kafka.extend(letter.to_uppercase());
        }
        format!("`{kafka}`")
    }
}
