//! The public gRPC API, `bmq.v1`.

mod admin;
mod credit;
mod fetch;
mod groups;
mod messaging;
mod pack;
mod poll;
mod produce;
mod send;

pub use admin::AdminApi;
pub use messaging::MessagingApi;

use bmq_proto::{ErrorCode, ServiceError};

use crate::api::Api;

fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::not_applied(ErrorCode::InvalidArgument, message)
}

fn shutting_down() -> ServiceError {
    ServiceError::not_applied(ErrorCode::Unavailable, "the proxy is shutting down, connect to another")
}

/// What a stream's connection says when it breaks. The client has gone, so this is told to nobody but the log.
fn broken_stream(status: &tonic::Status) -> ServiceError {
    bmq_proto::rpc::status::from_status(status)
}
