//! Waiting for the other members of a group: as long as somebody waits for the answer, and the proxy does not stop.

use bmq_proto::{ErrorCode, ServiceError};

use super::RequestContext;

/// The answer of `call`, or a failure that sends the client to another proxy.
pub async fn while_wanted<T>(
    context: &RequestContext<'_>,
    call: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, ServiceError> {
    let ended = |reason: &str| Err(ServiceError::unknown(ErrorCode::Unavailable, reason));
    tokio::select! {
        answer = call => answer,
        () = context.client.gone.begun() => ended("the client has gone"),
        () = context.api.shutdown().begun() => ended("the proxy is shutting down"),
    }
}
