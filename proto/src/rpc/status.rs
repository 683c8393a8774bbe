//! Errors on the wire: the names of the codes, their gRPC statuses, and what a bare status of the transport means.
//!
//! Between our own processes a status carries a `bmq.internal.v1.Error` in its details, towards users a
//! `bmq.v1.ErrorDetail`; `docs/ERRORS.md` lists the codes for users.

use std::str::FromStr;

use prost::Message;
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::ids::ParseIdError;
use crate::{ErrorCode, Happened, ServiceError, internal, v1};

/// A status travels in HTTP/2 headers, which are limited as a whole: longer messages are cut.
const MAX_MESSAGE_LEN: usize = 1024;

impl ErrorCode {
    /// The code's name in every interface. Names never change.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "INVALID_ARGUMENT",
            ErrorCode::InvalidBatch => "INVALID_BATCH",
            ErrorCode::MessageTooLarge => "MESSAGE_TOO_LARGE",
            ErrorCode::UnknownTopic => "UNKNOWN_TOPIC",
            ErrorCode::UnknownPartition => "UNKNOWN_PARTITION",
            ErrorCode::TopicExists => "TOPIC_EXISTS",
            ErrorCode::UnknownGroup => "UNKNOWN_GROUP",
            ErrorCode::GroupInUse => "GROUP_IN_USE",
            ErrorCode::NotOwner => "NOT_OWNER",
            ErrorCode::Fenced => "FENCED",
            ErrorCode::OutOfRange => "OUT_OF_RANGE",
            ErrorCode::OutOfOrderSequence => "OUT_OF_ORDER_SEQUENCE",
            ErrorCode::ProducerFenced => "PRODUCER_FENCED",
            ErrorCode::Busy => "BUSY",
            ErrorCode::OutOfTurn => "OUT_OF_TURN",
            ErrorCode::Unavailable => "UNAVAILABLE",
            ErrorCode::Timeout => "TIMEOUT",
            ErrorCode::Storage => "STORAGE",
            ErrorCode::Damaged => "DAMAGED",
            ErrorCode::Conflict => "CONFLICT",
            ErrorCode::Unsupported => "UNSUPPORTED",
            ErrorCode::Internal => "INTERNAL",
        }
    }

    /// The gRPC status under which clients in other languages see the code.
    pub fn grpc_code(self) -> Code {
        match self {
            ErrorCode::InvalidArgument | ErrorCode::InvalidBatch | ErrorCode::MessageTooLarge => Code::InvalidArgument,
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::UnknownGroup => Code::NotFound,
            ErrorCode::TopicExists => Code::AlreadyExists,
            ErrorCode::GroupInUse | ErrorCode::Fenced | ErrorCode::OutOfOrderSequence | ErrorCode::ProducerFenced => {
                Code::FailedPrecondition
            }
            ErrorCode::OutOfRange => Code::OutOfRange,
            ErrorCode::Busy => Code::ResourceExhausted,
            ErrorCode::OutOfTurn | ErrorCode::Conflict => Code::Aborted,
            ErrorCode::NotOwner | ErrorCode::Unavailable | ErrorCode::Storage => Code::Unavailable,
            ErrorCode::Timeout => Code::DeadlineExceeded,
            ErrorCode::Damaged => Code::DataLoss,
            ErrorCode::Unsupported => Code::Unimplemented,
            ErrorCode::Internal => Code::Internal,
        }
    }
}

impl FromStr for ErrorCode {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let found = Self::ALL.into_iter().find(|code| code.name() == text);
        found.ok_or_else(|| ParseIdError { what: "error code", text: text.to_owned() })
    }
}

/// The error as it stands inside answers and in the details of statuses between our own processes.
pub fn error_message(error: &ServiceError) -> internal::Error {
    internal::Error {
        code: error.code.name().to_owned(),
        unknown: error.happened == Happened::Unknown,
        message: cut(&error.message).to_owned(),
    }
}

/// Reads what [`error_message`] wrote. A code that only a newer version knows becomes `Internal`.
pub fn error_from_message(message: internal::Error) -> ServiceError {
    let happened = if message.unknown { Happened::Unknown } else { Happened::NotApplied };
    match message.code.parse() {
        Ok(code) => ServiceError { code, happened, message: message.message },
        Err(_) => {
            let text = format!("{}: {}", message.code, message.message);
            ServiceError { code: ErrorCode::Internal, happened, message: text }
        }
    }
}

/// The error as a status between our own processes.
pub fn to_status(error: &ServiceError) -> Status {
    let details = error_message(error).encode_to_vec();
    Status::with_details(error.code.grpc_code(), cut(&error.message), details.into())
}

/// Reads a status from one of our own processes, or from the transport on the way there.
pub fn from_status(status: &Status) -> ServiceError {
    if !status.details().is_empty()
        && let Ok(message) = internal::Error::decode(status.details())
    {
        return error_from_message(message);
    }
    from_bare_status(status)
}

/// The error as users see it.
pub fn error_detail(error: &ServiceError) -> v1::ErrorDetail {
    v1::ErrorDetail {
        code: error.code.name().to_owned(),
        retriable: error.is_retriable(),
        may_have_been_applied: error.happened == Happened::Unknown,
        message: cut(&error.message).to_owned(),
    }
}

/// The error as a status to users.
pub fn to_public_status(error: &ServiceError) -> Status {
    let details = error_detail(error).encode_to_vec();
    Status::with_details(error.code.grpc_code(), cut(&error.message), details.into())
}

/// Reads a status of the public API. A status that comes from the transport is put in the same words.
pub fn detail_from_public_status(status: &Status) -> v1::ErrorDetail {
    match v1::ErrorDetail::decode(status.details()) {
        Ok(detail) if !detail.code.is_empty() => detail,
        _ => error_detail(&from_bare_status(status)),
    }
}

/// The meaning of a status without details of ours: it was made by gRPC itself, on this side or the other.
fn from_bare_status(status: &Status) -> ServiceError {
    let text = cut(status.message());
    match status.code() {
        _ if is_caused_by::<ConnectError>(status) => {
            ServiceError::not_applied(ErrorCode::Unavailable, format!("cannot connect: {text}"))
        }
        _ if is_caused_by::<TimeoutExpired>(status) => ServiceError::unknown(ErrorCode::Timeout, "the deadline passed"),
        Code::DeadlineExceeded => ServiceError::unknown(ErrorCode::Timeout, "the deadline passed"),
        // The other side has no such method.
        Code::Unimplemented => ServiceError::not_applied(ErrorCode::Unsupported, format!("not implemented: {text}")),
        // A message above the decode limit, of either side: it will be as large the next time.
        Code::OutOfRange => ServiceError::unknown(ErrorCode::MessageTooLarge, text),
        // Broken connections come under many codes.
        code => ServiceError::unknown(ErrorCode::Unavailable, format!("connection lost ({code:?}): {text}")),
    }
}

/// Whether an error of type `E` of this process, not one told by the other side, is behind the status. A
/// `ConnectError` there means that the request cannot have left this process.
fn is_caused_by<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE_LEN);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_errors() -> impl Iterator<Item = ServiceError> {
        ErrorCode::ALL.into_iter().flat_map(|code| {
            [ServiceError::not_applied(code, "what happened"), ServiceError::unknown(code, "what may have happened")]
        })
    }

    #[test]
    fn every_error_survives_a_hop() {
        for error in all_errors() {
            let status = to_status(&error);
            assert_eq!(status.code(), error.code.grpc_code());
            assert_eq!(status.message(), error.message);
            assert_eq!(from_status(&status), error);
        }
    }

    #[test]
    fn every_error_is_told_to_users() {
        for error in all_errors() {
            let status = to_public_status(&error);
            let detail = detail_from_public_status(&status);
            assert_eq!(status.code(), error.code.grpc_code());
            assert_eq!(detail, error_detail(&error));
            assert_eq!(detail.code.parse(), Ok(error.code));
            assert_eq!(detail.retriable, error.is_retriable());
            assert_eq!(detail.may_have_been_applied, error.happened == Happened::Unknown);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let error = ServiceError::unknown(ErrorCode::Storage, "ä".repeat(MAX_MESSAGE_LEN));
        let status = to_status(&error);
        assert_eq!(status.message(), "ä".repeat(MAX_MESSAGE_LEN / 2));
        assert_eq!(from_status(&status).code, ErrorCode::Storage);
    }

    #[test]
    fn codes_of_newer_versions_keep_what_is_understood() {
        let message = internal::Error { code: "TOO_NEW".into(), unknown: true, message: "it broke".into() };
        assert_eq!(error_from_message(message), ServiceError::unknown(ErrorCode::Internal, "TOO_NEW: it broke"));
    }

    #[test]
    fn bare_statuses_are_unknown_unless_never_connected() {
        let bare = |code| from_status(&Status::new(code, "text"));
        let what = |code| (bare(code).code, bare(code).happened);
        assert_eq!(what(Code::DeadlineExceeded), (ErrorCode::Timeout, Happened::Unknown));
        assert_eq!(what(Code::Unimplemented), (ErrorCode::Unsupported, Happened::NotApplied));
        assert_eq!(what(Code::OutOfRange), (ErrorCode::MessageTooLarge, Happened::Unknown));
        for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::Cancelled, Code::ResourceExhausted] {
            assert_eq!(what(code), (ErrorCode::Unavailable, Happened::Unknown), "{code:?}");
        }

        let refused = Status::from_error(Box::new(ConnectError("refused".into())));
        assert_eq!(
            (from_status(&refused).code, from_status(&refused).happened),
            (ErrorCode::Unavailable, Happened::NotApplied)
        );
    }

    #[test]
    fn the_document_lists_the_codes_as_they_are() {
        let document = include_str!("../../../docs/ERRORS.md");
        let rows = document.lines().filter(|line| line.starts_with("| `"));
        let found: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect();
        let expected = ErrorCode::ALL.map(|code| {
            let retriable = if code.is_retriable() { "yes" } else { "no" };
            [format!("`{}`", code.name()), retriable.to_owned(), format!("{:?}", code.grpc_code())]
        });
        assert_eq!(found.len(), expected.len());
        for (row, expected) in found.iter().zip(&expected) {
            assert_eq!(row[..3], *expected);
            assert!(row.len() == 4 && !row[3].is_empty(), "{row:?} needs a meaning");
        }
    }
}
