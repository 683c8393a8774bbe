//! A node's session: opened, kept alive, opened again when it ended, closed at shutdown. It says that the node is there
//! and guards nothing.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_common::{Random, ReadyFlag, Shutdown};

use super::{MetaService, OpenSession, SessionId, SessionRecord};
use crate::ErrorCode;

/// Signs of life per time to live: all but one of them may get lost.
const SIGNS_PER_SESSION: u32 = 4;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// Why a session is not kept any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The shutdown began.
    ShutDown,
    /// Another process runs under the same node id. This one must stop: two that replace each other's sessions would
    /// take each other's partitions for ever.
    Replaced,
}

/// Keeps a session until shutdown, then closes it; `ready` tells whether there is one.
pub async fn keep_session(
    meta: Arc<dyn MetaService>,
    request: OpenSession,
    random: Random,
    ready: ReadyFlag,
    shutdown: Shutdown,
) -> SessionEnd {
    let mut open = None;
    let end = tokio::select! {
        () = shutdown.begun() => SessionEnd::ShutDown,
        () = keep_open(meta.as_ref(), &request, &random, &ready, &mut open) => SessionEnd::Replaced,
    };
    ready.set(false, "the node is stopping");
    if let Some(session) = open
        && let Err(error) = meta.close_session(session).await
    {
        tracing::info!(%error, "the session was not closed, it ends by itself");
    }
    end
}

/// Returns when another process has taken the node's place.
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
                if is_replaced(meta, request).await {
                    let (kind, node) = (request.kind, request.node);
                    tracing::error!(?kind, %node, "another process runs under this node id, so this one stops");
                    return;
                }
            }
            Err(error) => {
                ready.set(false, format!("no session: {error}"));
                tracing::warn!(%error, "the session could not be opened, trying again");
            }
        }
        tokio::time::sleep(backoff.next(random)).await;
    }
}

/// Whether another incarnation of the node has a session.
async fn is_replaced(meta: &dyn MetaService, request: &OpenSession) -> bool {
    let sessions = match meta.list_sessions().await {
        Ok(sessions) => sessions,
        Err(error) => {
            tracing::warn!(%error, "it is not known who else has a session");
            return false;
        }
    };
    let same_node = |session: &&SessionRecord| session.kind == request.kind && session.node == request.node;
    sessions.iter().filter(same_node).any(|session| session.incarnation != request.incarnation)
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
