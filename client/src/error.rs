//! The one error of the SDK.

use std::fmt;

use bmq_proto::record_batch::BatchError;
use bmq_proto::rpc::status;
use bmq_proto::{ErrorCode, Happened, ServiceError, v1};
use tonic::Status;

/// What went wrong, and what a caller may do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind of failure. A code that only a newer server knows is shown as `Internal`, with its name in `message`.
    pub code: ErrorCode,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// Whether the request may have been applied although it failed.
    pub may_have_been_applied: bool,
    /// For a person.
    pub message: String,
}

impl Error {
    pub(crate) fn not_applied(code: ErrorCode, message: impl Into<String>) -> Self {
        ServiceError::not_applied(code, message).into()
    }

    pub(crate) fn unknown(code: ErrorCode, message: impl Into<String>) -> Self {
        ServiceError::unknown(code, message).into()
    }

    /// The server broke the rules of the API.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::unknown(ErrorCode::Internal, message)
    }

    /// The same error of a request that changes nothing: there is nothing that may have been applied.
    pub(crate) fn of_a_read(self) -> Self {
        Self { may_have_been_applied: false, ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        if self.may_have_been_applied {
            out.write_str(" (it may have been applied)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<ServiceError> for Error {
    fn from(error: ServiceError) -> Self {
        Self {
            code: error.code,
            retriable: error.is_retriable(),
            may_have_been_applied: error.happened == Happened::Unknown,
            message: error.message,
        }
    }
}

impl From<v1::ErrorDetail> for Error {
    fn from(detail: v1::ErrorDetail) -> Self {
        let (code, message) = match detail.code.parse() {
            Ok(code) => (code, detail.message),
            Err(_) => (ErrorCode::Internal, format!("{}: {}", detail.code, detail.message)),
        };
        let v1::ErrorDetail { retriable, may_have_been_applied, .. } = detail;
        Self { code, retriable, may_have_been_applied, message }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        status::detail_from_public_status(&status).into()
    }
}

impl From<BatchError> for Error {
    fn from(error: BatchError) -> Self {
        Self::not_applied(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_keep_what_the_server_said() {
        let detail = |code: &str| v1::ErrorDetail {
            code: code.into(),
            retriable: true,
            may_have_been_applied: true,
            message: "it broke".into(),
        };
        let known = Error::from(detail("DAMAGED"));
        assert_eq!((known.code, known.message.as_str()), (ErrorCode::Damaged, "it broke"));
        let newer = Error::from(detail("TOO_NEW"));
        assert_eq!((newer.code, newer.message.as_str()), (ErrorCode::Internal, "TOO_NEW: it broke"));
        assert!(newer.retriable && newer.may_have_been_applied);
        assert_eq!(newer.to_string(), "TOO_NEW: it broke (it may have been applied)");
        assert_eq!(newer.of_a_read().to_string(), "TOO_NEW: it broke");
    }
}
