//! The proxy's session: it tells people and tools that the proxy is there, and where. Nothing depends on it.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Backoff, Random, Shutdown};
use bmq_proto::meta::{MetaService, OpenSession, SessionId};
use bmq_proto::{ErrorCode, ServiceError};
use tracing::{info, warn};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Signs of life per time to live: two may be lost.
const SIGNS_PER_SESSION: u32 = 3;

/// Keeps a session open until the shutdown, then ends it.
pub async fn keep(
    meta: Arc<dyn MetaService>,
    request: OpenSession,
    deadline: Duration,
    random: Random,
    shutdown: Shutdown,
) {
    let mut open = None;
    tokio::select! {
        () = shutdown.begun() => {}
        () = keep_open(&*meta, &request, deadline, &random, &mut open) => {}
    }
    let Some(session) = open else {
        return;
    };
    if let Err(error) = in_time(deadline, meta.close_session(session)).await {
        info!(%error, "the session was not ended, it will expire");
    }
}

async fn keep_open(
    meta: &dyn MetaService,
    request: &OpenSession,
    deadline: Duration,
    random: &Random,
    open: &mut Option<SessionId>,
) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let error = match in_time(deadline, meta.open_session(request.clone())).await {
            Ok(session) => {
                *open = Some(session);
                backoff.reset();
                let error = keep_alive(meta, session, request.time_to_live).await;
                *open = None;
                error
            }
            Err(error) => error,
        };
        warn!(%error, "no session, opening another");
        tokio::time::sleep(backoff.next(random)).await;
    }
}

/// Returns when the session has ended.
async fn keep_alive(meta: &dyn MetaService, session: SessionId, time_to_live: Duration) -> ServiceError {
    let interval = time_to_live / SIGNS_PER_SESSION;
    loop {
        tokio::time::sleep(interval).await;
        match in_time(time_to_live, meta.keep_alive(session)).await {
            Err(error) if error.code == ErrorCode::Fenced => return error,
            Err(error) => warn!(%error, "a sign of life was not taken"),
            Ok(()) => {}
        }
    }
}

async fn in_time<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, ServiceError>>,
) -> Result<T, ServiceError> {
    let late = |late: bmq_common::DeadlineExceeded| ServiceError::unknown(ErrorCode::Timeout, late.to_string());
    with_deadline("the metadata service", deadline, call).await.map_err(late)?
}
