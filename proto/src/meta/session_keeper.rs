//! A node's session: opened, kept alive, opened again when it ended, closed at shutdown. It says that the node is there
//! and guards nothing.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_common::{Random, ReadyFlag, Shutdown};

use super::{MetaService, OpenSession, SessionId};
use crate::ErrorCode;

/// Signs of life per time to live: all but one of them may get lost.
const SIGNS_PER_SESSION: u32 = 4;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Keeps a session until shutdown, then closes it; `ready` tells whether there is one.
pub async fn keep_session(
    meta: Arc<dyn MetaService>,
    request: OpenSession,
    random: Random,
    ready: ReadyFlag,
    shutdown: Shutdown,
) {
    let mut open = None;
    tokio::select! {
        () = shutdown.begun() => {}
        () = keep_open(meta.as_ref(), &request, &random, &ready, &mut open) => {}
    }
    ready.set(false, "the node is stopping");
    if let Some(session) = open
        && let Err(error) = meta.close_session(session).await
    {
        tracing::info!(%error, "the session was not closed, it ends by itself");
    }
}

async fn keep_open(
    meta: &dyn MetaService,
    request: &OpenSession,
    random: &Random,
    ready: &ReadyFlag,
    open: &mut Option<SessionId>,
) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        match meta.open_session(request.clone()).await {
            Ok(session) => {
                backoff.reset();
                *open = Some(session);
                ready.set(true, "");
                tracing::info!(session = session.0, "session open");
                keep_alive(meta, session, request.time_to_live).await;
                *open = None;
                ready.set(false, "the session ended, another is being opened");
            }
            Err(error) => {
                ready.set(false, format!("no session: {error}"));
                tracing::warn!(%error, "the session could not be opened, trying again");
            }
        }
        tokio::time::sleep(backoff.next(random)).await;
    }
}

/// Returns when the session has ended.
async fn keep_alive(meta: &dyn MetaService, session: SessionId, time_to_live: Duration) {
    let mut interval = tokio::time::interval(time_to_live / SIGNS_PER_SESSION);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match meta.keep_alive(session).await {
            Ok(()) => {}
            Err(error) if error.code == ErrorCode::Fenced => {
                tracing::warn!(%error, "the session ended");
                return;
            }
            Err(error) => tracing::warn!(%error, "a sign of life did not get through"),
        }
    }
}
