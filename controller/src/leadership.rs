//! The controller's session and term: kept, lost, taken again.
//!
//! The term is bound to the session, so a controller that hangs loses it by doing nothing. It may learn that late:
//! every write names the term and is refused under an older one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Backoff, Random, ReadyFlag, Shutdown};
use bmq_proto::meta::{MetaService, NodeKind, OpenSession, SessionId};
use bmq_proto::{ErrorCode, Incarnation, NodeId};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::state::Event;

/// How many keep-alives fit in a session's life: two may get lost.
const KEEP_ALIVES_PER_SESSION: u32 = 3;

const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Keeps a session open, and the term as long as it can be had.
pub struct Leadership {
    pub meta: Arc<dyn MetaService>,
    pub node: NodeId,
    pub session_time: Duration,
    pub random: Random,
    pub ready: ReadyFlag,
    /// Takes `TermTaken` and `TermLost`.
    pub events: mpsc::Sender<Event>,
    /// Notified when it is worth to ask for the term at once.
    pub ask_for_term: Arc<Notify>,
}

impl Leadership {
    /// Runs until the shutdown, then ends the session, so that a standby need not wait for it to run out.
    pub async fn run(self, shutdown: Shutdown) {
        let mut session = None;
        tokio::select! {
            () = shutdown.begun() => {}
            never = self.keep(&mut session) => match never {},
        }
        if let Some(session) = session
            && let Err(error) = self.meta.close_session(session).await
        {
            warn!(%error, "could not close the session, it will run out");
        }
    }

    async fn keep(&self, session: &mut Option<SessionId>) -> Infallible {
        loop {
            let opened = self.open().await;
            *session = Some(opened);
            self.ready.set(true, "");
            self.hold(opened).await;
            *session = None;
            self.ready.set(false, "the session ended, another is being opened");
        }
    }

    async fn open(&self) -> SessionId {
        let mut backoff = Backoff::new(FIRST_RETRY, self.session_time);
        // An incarnation names this session, so that an older one of ours is told from it.
        let incarnation = Incarnation(self.random.next_u64());
        loop {
            let request = OpenSession {
                kind: NodeKind::Controller,
                node: self.node,
                incarnation,
                address: String::new(),
                endpoints: Default::default(),
                time_to_live: self.session_time,
            };
            match self.meta.open_session(request).await {
                Ok(session) => return session,
                Err(error) => warn!(%error, "could not open a session"),
            }
            sleep(backoff.next(&self.random)).await;
        }
    }

    /// Returns when the session has ended.
    async fn hold(&self, session: SessionId) {
        let mut is_leading = false;
        loop {
            if !is_leading {
                is_leading = self.try_for_term(session).await;
            }
            tokio::select! {
                () = sleep(self.session_time / KEEP_ALIVES_PER_SESSION) => {}
                () = self.ask_for_term.notified() => is_leading = false,
            }
            match self.meta.keep_alive(session).await {
                Ok(()) => {}
                Err(error) if error.code == ErrorCode::Fenced => break,
                Err(error) => warn!(%error, "could not keep the session alive"),
            }
        }
        info!("the session ended");
        self.tell(Event::TermLost).await;
    }

    async fn try_for_term(&self, session: SessionId) -> bool {
        match self.meta.acquire_term(session).await {
            Ok(term) => {
                info!(%term, "took the term");
                self.tell(Event::TermTaken(term)).await;
                return true;
            }
            // Another controller leads, or the session has ended, which the next keep-alive tells.
            Err(error) if matches!(error.code, ErrorCode::Conflict | ErrorCode::Fenced) => {}
            Err(error) => warn!(%error, "could not ask for the term"),
        }
        false
    }

    async fn tell(&self, event: Event) {
        // The driver only goes away at the shutdown, when nothing more is decided.
        let _ = self.events.send(event).await;
    }
}
