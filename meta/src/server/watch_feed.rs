//! One prefix of the store, listed once and then followed: opened again where it broke off, listed again where events
//! were lost.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Backoff, Random, Shutdown};
use bmq_proto::meta::{MetaChange, WatchScope};
use bmq_proto::rpc::record::{StoredSession, decode_record};
use futures::StreamExt;

use super::watch_cache::Publisher;
use crate::keys;
use crate::store::{Entry, ErrorKind, ListRequest, MetaStoreError, Revision, SharedStore};

/// How long one page or the opening of a watch may take.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Feed {
    Topics,
    Sessions,
    Intents,
    Heads,
}

impl Feed {
    /// In the order in which a watch tells of them.
    pub(super) const ALL: [Feed; 4] = [Feed::Topics, Feed::Sessions, Feed::Intents, Feed::Heads];

    fn prefix(self) -> &'static str {
        match self {
            Feed::Topics => keys::TOPICS,
            Feed::Sessions => keys::SESSIONS,
            Feed::Intents => keys::INTENTS,
            Feed::Heads => keys::HEADS,
        }
    }

    pub(super) fn is_in(self, scope: WatchScope) -> bool {
        match self {
            Feed::Topics => scope.topics,
            Feed::Sessions => scope.sessions,
            Feed::Intents => scope.intents,
            Feed::Heads => scope.heads,
        }
    }

    pub(super) fn decode(self, entry: &Entry) -> Result<MetaChange, String> {
        let error = |error: bmq_proto::rpc::DecodeError| error.to_string();
        let partition = || keys::parse_partition(&entry.key).ok_or_else(|| "the key names no partition".to_owned());
        Ok(match self {
            Feed::Topics => MetaChange::Topic(decode_record(&entry.value).map_err(error)?),
            Feed::Sessions => MetaChange::Session(decode_record::<StoredSession>(&entry.value).map_err(error)?.session),
            Feed::Intents => MetaChange::Intent(partition()?, decode_record(&entry.value).map_err(error)?),
            Feed::Heads => MetaChange::Head(partition()?, decode_record(&entry.value).map_err(error)?),
        })
    }
}

/// Feeds the cache until the service stops.
pub(super) async fn run(store: SharedStore, feed: Feed, publisher: Arc<Publisher>, random: Random, shutdown: Shutdown) {
    let mut follower = Follower { store, feed, publisher, next: None, progressed: false };
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    loop {
        let error = tokio::select! {
            error = follower.follow() => error,
            () = shutdown.begun() => return,
        };
        if error.kind == ErrorKind::Compacted {
            follower.next = None;
        }
        if std::mem::take(&mut follower.progressed) {
            backoff.reset();
        }
        tracing::warn!(?feed, error = error.chain(), relist = follower.next.is_none(), "a watch broke off");
        tokio::select! {
            () = tokio::time::sleep(backoff.next(&random)) => {}
            () = shutdown.begun() => return,
        }
    }
}

struct Follower {
    store: SharedStore,
    feed: Feed,
    publisher: Arc<Publisher>,
    /// From where to go on; `None` if only a listing helps.
    next: Option<Revision>,
    /// Whether the watch told anything since it was opened.
    progressed: bool,
}

impl Follower {
    /// Follows until that fails.
    async fn follow(&mut self) -> MetaStoreError {
        match self.try_follow().await {
            Ok(()) => MetaStoreError::new(ErrorKind::Unavailable, "the watch ended"),
            Err(error) => error,
        }
    }

    async fn try_follow(&mut self) -> Result<(), MetaStoreError> {
        let next = match self.next {
            Some(next) => next,
            None => self.list().await?,
        };
        let opening = self.store.watch(self.feed.prefix(), next);
        let mut stream = tokio::time::timeout(STEP_DEADLINE, opening).await.map_err(|_| late())??;
        while let Some(events) = stream.next().await {
            let events = events?;
            self.progressed = true;
            self.publisher.apply(self.feed, events.events);
            self.next = Some(events.revision.next());
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<Revision, MetaStoreError> {
        let mut request = ListRequest::prefix(self.feed.prefix());
        let mut entries = Vec::new();
        loop {
            let listing = self.store.list(request.clone());
            let page = tokio::time::timeout(STEP_DEADLINE, listing).await.map_err(|_| late())??;
            request = request.after(&page);
            let (more, revision) = (page.more, page.revision);
            entries.extend(page.entries);
            if more {
                continue;
            }
            self.publisher.replace(self.feed, entries);
            self.next = Some(revision.next());
            return Ok(revision.next());
        }
    }
}

fn late() -> MetaStoreError {
    MetaStoreError::new(ErrorKind::Timeout, "the store did not answer in time")
}
