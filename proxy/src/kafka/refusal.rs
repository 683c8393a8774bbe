//! Why one item of a request is refused: Kafka's number, and a reason for people.

use bmq_kafka::error::admin_code;
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::{ErrorCode, ServiceError};

/// See the head of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: i16,
    pub message: String,
}

impl Refusal {
    pub fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { code: error.code(), message: message.into() }
    }

    /// A failure of an admin request. What an argument that makes no sense is called depends on which one it is.
    pub fn of(error: &ServiceError, invalid_argument: ResponseError) -> Self {
        let code = match error.code {
            ErrorCode::InvalidArgument => invalid_argument,
            _ => admin_code(error),
        };
        Self::new(code, error.to_string())
    }

    /// The reason as messages hold it.
    pub fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

/// An item named twice in one request is refused each time: it is not clear which one was meant.
pub fn named_twice(what: &str) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, format!("the request names this {what} more than once"))
}
