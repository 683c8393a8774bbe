//! What a session must look like, and who replaces whom.

use std::time::Duration;

use bmq_proto::meta::{MIN_SESSION_TTL, OpenSession, SessionId, SessionRecord};
use bmq_proto::rpc::record::StoredSession;
use bmq_proto::{ErrorCode, ServiceError};

use super::refuse;

/// Longest and shortest life of a session after its last keep-alive.
pub const TIME_TO_LIVE: std::ops::RangeInclusive<Duration> = MIN_SESSION_TTL..=Duration::from_secs(600);
const MAX_ADDRESS: usize = 512;
const MAX_ENDPOINTS: usize = 16;

/// The record of a session that is kept alive under `id`.
pub fn open(request: &OpenSession, id: SessionId) -> Result<StoredSession, ServiceError> {
    check(request)?;
    let session = SessionRecord {
        kind: request.kind,
        node: request.node,
        incarnation: request.incarnation,
        address: request.address.clone(),
        endpoints: request.endpoints.clone(),
    };
    Ok(StoredSession { session, id })
}

/// Checks a wish for a session.
pub fn check(request: &OpenSession) -> Result<(), ServiceError> {
    if !TIME_TO_LIVE.contains(&request.time_to_live) {
        let message = format!(
            "a session of {:?}, of {:?} to {:?}",
            request.time_to_live,
            TIME_TO_LIVE.start(),
            TIME_TO_LIVE.end()
        );
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let is_text = |text: &String| text.len() <= MAX_ADDRESS && text.is_ascii();
    let all_text = request.endpoints.iter().all(|(name, address)| is_text(name) && is_text(address));
    if !is_text(&request.address) || !all_text {
        let message = format!("an address is ASCII text of at most {MAX_ADDRESS} characters");
        return refuse(ErrorCode::InvalidArgument, message);
    }
    if request.endpoints.len() > MAX_ENDPOINTS {
        return refuse(ErrorCode::InvalidArgument, format!("a session has at most {MAX_ENDPOINTS} endpoints"));
    }
    Ok(())
}
