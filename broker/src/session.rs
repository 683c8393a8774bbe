//! The broker's session in metadata: opened, kept alive, opened again when it ended. It says that the broker is there;
//! it guards nothing.

use std::sync::Arc;

use bmq_common::readiness::ReadyFlag;
use bmq_common::retry::Backoff;
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_proto::ErrorCode;
use bmq_proto::meta::{MetaService, OpenSession, SessionId};
use std::time::Duration;

/// How many signs of life fit into a session's time.
const SIGNS_PER_SESSION: u32 = 4;

/// Keeps a session until shutdown, then closes it.
pub async fn keep(
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
    ready.set(false, "the broker is stopping");
    if let Some(session) = open
        && let Err(error) = meta.close_session(session).await
    {
        tracing::warn!(%error, "the session was not closed; it ends by itself");
    }
}

async fn keep_open(
    meta: &dyn MetaService,
    request: &OpenSession,
    random: &Random,
    ready: &ReadyFlag,
    open: &mut Option<SessionId>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
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
