//! Follows the metadata: keeps a watch open, and opens it anew when it ends or when a younger list is asked for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Backoff, Random, ReadyFlag, Shutdown};
use bmq_proto::meta::{MetaService, WatchEvent, WatchScope, WatchStream};
use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::warn;

const SCOPE: WatchScope = WatchScope { topics: true, sessions: true, intents: true, heads: true };

/// Events that are there at once are decided upon at once: many sessions that end together are seen together.
const MAX_EVENTS_AT_ONCE: usize = 1_024;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// What a watch told, and the number of the list that it goes on from.
#[derive(Debug)]
pub struct Watched {
    pub list: u64,
    pub events: Vec<WatchEvent>,
}

/// Keeps a watch open.
pub struct Watcher {
    pub meta: Arc<dyn MetaService>,
    pub random: Random,
    pub ready: ReadyFlag,
    /// The number of the list wanted: when it grows, the watch is opened anew.
    pub wanted: watch::Receiver<u64>,
    pub watched: mpsc::Sender<Watched>,
}

impl Watcher {
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            never = self.follow() => match never {},
        }
    }

    async fn follow(&mut self) -> Infallible {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            let list = *self.wanted.borrow_and_update();
            match self.meta.watch(SCOPE).await {
                Ok(stream) => self.pass_on(list, stream, &mut backoff).await,
                Err(error) => warn!(%error, "could not open the watch"),
            }
            self.ready.set(false, "the watch is being opened");
            sleep(backoff.next(&self.random)).await;
        }
    }

    /// Returns when the watch ended or another list is wanted.
    async fn pass_on(&mut self, list: u64, stream: WatchStream, backoff: &mut Backoff) {
        let mut chunks = stream.ready_chunks(MAX_EVENTS_AT_ONCE);
        loop {
            let chunk = tokio::select! {
                Some(chunk) = chunks.next() => chunk,
                Ok(()) = self.wanted.changed() => return,
                else => return,
            };
            let (mut events, mut failure) = (Vec::with_capacity(chunk.len()), None);
            for event in chunk {
                match event {
                    Ok(event) => events.push(event),
                    Err(error) => failure = Some(error),
                }
            }
            if events.contains(&WatchEvent::Synced) {
                backoff.reset();
                self.ready.set(true, "");
            }
            // The driver only goes away at the shutdown, when nothing more is decided.
            let _ = self.watched.send(Watched { list, events }).await;
            if let Some(error) = failure {
                warn!(%error, "the watch ended");
                return;
            }
        }
    }
}
