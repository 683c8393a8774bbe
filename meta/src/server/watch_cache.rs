//! What the watched records look like now, and the newest changes, for any number of watchers.
//!
//! ```text
//!   store ──one watch per prefix──▶ feeds ──▶ records + ring of changes ──▶ watchers, each with a place in the ring
//! ```
//! A watcher has no queue: one that falls off the ring's old end starts anew with `Reset` and the records as they are.
//!
//! Invariant: the ring's changes, applied in order to the records as they were, give the records as they are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Random, Tasks, with_deadline};
use bmq_proto::meta::{MetaChange, WatchEvent, WatchScope, WatchStream};
use bmq_proto::{ErrorCode, ServiceError};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::watch_feed::{self, Feed};
use crate::metrics::{MetaMetrics, Subscriber};
use crate::store::{Entry, Event, SharedStore, Version};

/// How many changes a watcher may lie behind.
const MAX_RING: usize = 8_192;
/// Most changes that a watcher takes at once.
const MAX_STEP: usize = 256;

/// The cache as the server holds it. Dropping it ends all watches with an error.
pub(super) struct WatchCache {
    publisher: Arc<Publisher>,
}

/// The side that feeds write to.
pub(super) struct Publisher {
    state: Arc<Mutex<State>>,
    /// The sequence number that the next change will have.
    changed: watch::Sender<u64>,
    metrics: MetaMetrics,
}

#[derive(Default)]
struct State {
    feeds: BTreeMap<Feed, Records>,
    ring: VecDeque<Change>,
    next_sequence: u64,
}

/// One feed's records by key; absent from the state until they were listed once.
type Records = BTreeMap<String, (Version, Arc<MetaChange>)>;

struct Change {
    sequence: u64,
    feed: Feed,
    change: Arc<MetaChange>,
}

impl WatchCache {
    pub(super) fn start(store: &SharedStore, random: &Random, tasks: &Tasks, metrics: &MetaMetrics) -> Self {
        let publisher = Arc::new(Publisher::new(metrics.clone()));
        for feed in Feed::ALL {
            let run = watch_feed::run(
                Arc::clone(store),
                feed,
                Arc::clone(&publisher),
                random.clone(),
                tasks.shutdown().clone(),
            );
            tasks.spawn("meta-watch-feed", run);
        }
        Self { publisher }
    }

    /// Opens a watch, once there is something to tell.
    pub(super) async fn watch(&self, scope: WatchScope, deadline: Duration) -> Result<WatchStream, ServiceError> {
        let mut watcher = Watcher {
            state: Arc::clone(&self.publisher.state),
            changed: self.publisher.changed.subscribe(),
            scope,
            next_sequence: None,
            pending: VecDeque::new(),
            ended: false,
            _subscriber: self.publisher.metrics.count_subscriber(),
        };
        match with_deadline("the first listing of the metadata store", deadline, watcher.fill()).await {
            Ok(filled) => filled?,
            Err(late) => return Err(ServiceError::not_applied(ErrorCode::Unavailable, late.to_string())),
        }
        Ok(stream::unfold(watcher, Watcher::step).boxed())
    }
}

impl Publisher {
    fn new(metrics: MetaMetrics) -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0), metrics }
    }

    /// Takes a whole listing, telling watchers only what differs from before.
    pub(super) fn replace(&self, feed: Feed, entries: Vec<Entry>) {
        let mut state = self.state.lock();
        let before = state.feeds.remove(&feed).unwrap_or_default();
        let still_there: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        let gone: Vec<_> = before.keys().filter(|key| !still_there.contains(*key)).cloned().collect();
        state.feeds.insert(feed, before);
        gone.iter().for_each(|key| state.delete(feed, key));
        entries.into_iter().for_each(|entry| state.put(feed, entry));
        self.publish(state);
    }

    /// Takes what a watch tells.
    pub(super) fn apply(&self, feed: Feed, events: Vec<Event>) {
        let mut state = self.state.lock();
        for event in events {
            match event {
                Event::Put(entry) => state.put(feed, entry),
                Event::Delete { key } => state.delete(feed, &key),
            }
        }
        self.publish(state);
    }

    fn publish(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let excess = state.ring.len().saturating_sub(MAX_RING);
        state.ring.drain(..excess);
        let next_sequence = state.next_sequence;
        self.metrics.sessions_seen(state.feeds.get(&Feed::Sessions).map_or(0, Records::len));
        drop(state);
        self.changed.send_replace(next_sequence);
    }
}

impl State {
    fn put(&mut self, feed: Feed, entry: Entry) {
        let change = match feed.decode(&entry) {
            Ok(change) => Arc::new(change),
            Err(error) => {
                // Left out of the cache: one record that cannot be read must not keep the others from being seen.
                tracing::error!(key = entry.key, %error, "a watched record cannot be read");
                return;
            }
        };
        let records = self.feeds.entry(feed).or_default();
        let before = records.get(&entry.key);
        if before.is_some_and(|(version, _)| *version >= entry.version) {
            return;
        }
        let gone = before.and_then(|(_, before)| gone_by_replacement(before, &change));
        records.insert(entry.key, (entry.version, Arc::clone(&change)));
        gone.into_iter().for_each(|gone| self.push(feed, Arc::new(gone)));
        self.push(feed, change);
    }

    fn delete(&mut self, feed: Feed, key: &str) {
        let before = self.feeds.get_mut(&feed).and_then(|records| records.remove(key));
        if let Some(gone) = before.and_then(|(_, change)| gone(&change)) {
            self.push(feed, Arc::new(gone));
        }
    }

    fn push(&mut self, feed: Feed, change: Arc<MetaChange>) {
        self.ring.push_back(Change { sequence: self.next_sequence, feed, change });
        self.next_sequence += 1;
    }

    /// All records in scope, if each feed in scope was listed.
    fn snapshot(&self, scope: WatchScope) -> Option<Vec<Arc<MetaChange>>> {
        let mut changes = Vec::new();
        for feed in Feed::ALL.into_iter().filter(|feed| feed.is_in(scope)) {
            changes.extend(self.feeds.get(&feed)?.values().map(|(_, change)| Arc::clone(change)));
        }
        Some(changes)
    }
}

/// That a record no longer exists.
fn gone(change: &MetaChange) -> Option<MetaChange> {
    match change {
        MetaChange::Topic(topic) => Some(MetaChange::TopicGone(topic.id)),
        MetaChange::Session(session) => Some(MetaChange::SessionGone(session.kind, session.node)),
        MetaChange::Intent(partition, _) => Some(MetaChange::IntentGone(*partition)),
        MetaChange::Head(partition, _) => Some(MetaChange::HeadGone(*partition)),
        MetaChange::TopicGone(_)
        | MetaChange::SessionGone(..)
        | MetaChange::IntentGone(_)
        | MetaChange::HeadGone(_) => None,
    }
}

/// A topic made again under its old name has the same key and is another topic all the same.
fn gone_by_replacement(before: &MetaChange, after: &MetaChange) -> Option<MetaChange> {
    match (before, after) {
        (MetaChange::Topic(before), MetaChange::Topic(after)) if before.id != after.id => {
            Some(MetaChange::TopicGone(before.id))
        }
        _ => None,
    }
}

/// One watcher's place.
struct Watcher {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<u64>,
    scope: WatchScope,
    /// The first change not taken yet; `None` before the first snapshot.
    next_sequence: Option<u64>,
    pending: VecDeque<Pending>,
    ended: bool,
    _subscriber: Subscriber,
}

enum Pending {
    Reset,
    Change(Arc<MetaChange>),
    Synced,
}

impl Watcher {
    async fn step(mut self) -> Option<(Result<WatchEvent, ServiceError>, Self)> {
        if self.ended {
            return None;
        }
        if let Err(error) = self.fill().await {
            self.ended = true;
            return Some((Err(error), self));
        }
        let event = match self.pending.pop_front()? {
            Pending::Reset => WatchEvent::Reset,
            Pending::Change(change) => WatchEvent::Change((*change).clone()),
            Pending::Synced => WatchEvent::Synced,
        };
        Some((Ok(event), self))
    }

    /// Waits until something is pending.
    async fn fill(&mut self) -> Result<(), ServiceError> {
        while self.pending.is_empty() {
            self.changed.borrow_and_update();
            self.take();
            if self.pending.is_empty() && self.changed.changed().await.is_err() {
                return Err(ServiceError::not_applied(ErrorCode::Unavailable, "the metadata service has stopped"));
            }
        }
        Ok(())
    }

    /// Takes what the cache has for this watcher.
    fn take(&mut self) {
        let state = self.state.lock();
        let oldest = state.ring.front().map_or(state.next_sequence, |change| change.sequence);
        let Some(next) = self.next_sequence.filter(|next| *next >= oldest) else {
            let Some(records) = state.snapshot(self.scope) else { return };
            self.pending.push_back(Pending::Reset);
            self.pending.extend(records.into_iter().map(Pending::Change));
            self.pending.push_back(Pending::Synced);
            self.next_sequence = Some(state.next_sequence);
            return;
        };
        let skipped = usize::try_from(next - oldest).expect("a place within the ring");
        let mut after = next;
        for change in state.ring.iter().skip(skipped) {
            if self.pending.len() == MAX_STEP {
                break;
            }
            after = change.sequence + 1;
            if change.feed.is_in(self.scope) {
                self.pending.push_back(Pending::Change(Arc::clone(&change.change)));
            }
        }
        self.next_sequence = Some(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::meta::{TopicRecord, TopicState};
    use bmq_proto::rpc::record::encode_record;
    use bmq_proto::{TopicId, meta::TopicConfig};

    const TOPICS: WatchScope = WatchScope { topics: true, sessions: false, intents: false, heads: false };

    fn cache() -> WatchCache {
        WatchCache { publisher: Arc::new(Publisher::new(MetaMetrics::default())) }
    }

    fn topic(name: &str, id: u8) -> TopicRecord {
        let config = TopicConfig::new();
        TopicRecord { id: TopicId([id; 16]), name: name.to_owned(), partitions: 1, config, state: TopicState::Active }
    }

    fn entry(name: &str, id: u8, version: u64) -> Entry {
        let value = encode_record(&topic(name, id)).into();
        Entry { key: crate::keys::topic(name), value, version: Version(version) }
    }

    async fn next(stream: &mut WatchStream) -> WatchEvent {
        stream.next().await.unwrap().unwrap()
    }

    async fn opened(cache: &WatchCache) -> WatchStream {
        cache.watch(TOPICS, Duration::from_secs(5)).await.unwrap()
    }

    fn changed(name: &str, id: u8) -> WatchEvent {
        WatchEvent::Change(MetaChange::Topic(topic(name, id)))
    }

    #[tokio::test]
    async fn a_watch_waits_for_the_first_listing() {
        let cache = cache();
        let early = cache.watch(TOPICS, Duration::from_millis(1)).await;
        assert_eq!(early.err().unwrap().code, ErrorCode::Unavailable);
        cache.publisher.replace(Feed::Topics, Vec::new());
        let mut watch = opened(&cache).await;
        assert_eq!(next(&mut watch).await, WatchEvent::Reset);
        assert_eq!(next(&mut watch).await, WatchEvent::Synced);
        drop(cache);
        assert_eq!(watch.next().await.unwrap().unwrap_err().code, ErrorCode::Unavailable);
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn a_new_listing_tells_only_what_differs() {
        let cache = cache();
        cache.publisher.replace(Feed::Topics, vec![entry("a", 1, 1), entry("b", 2, 2), entry("c", 3, 3)]);
        let mut watch = opened(&cache).await;
        for expected in [WatchEvent::Reset, changed("a", 1), changed("b", 2), changed("c", 3), WatchEvent::Synced] {
            assert_eq!(next(&mut watch).await, expected);
        }
        cache.publisher.replace(Feed::Topics, vec![entry("a", 1, 1), entry("c", 9, 7)]);
        let gone = |id| WatchEvent::Change(MetaChange::TopicGone(TopicId([id; 16])));
        for expected in [gone(2), gone(3), changed("c", 9)] {
            assert_eq!(next(&mut watch).await, expected);
        }
        // What a resumed watch tells again is old news.
        cache.publisher.apply(Feed::Topics, vec![Event::Put(entry("c", 3, 3)), Event::Put(entry("d", 4, 8))]);
        assert_eq!(next(&mut watch).await, changed("d", 4));
    }

    #[tokio::test]
    async fn a_slow_watcher_starts_anew() {
        let cache = cache();
        cache.publisher.replace(Feed::Topics, Vec::new());
        let mut watch = opened(&cache).await;
        assert_eq!(next(&mut watch).await, WatchEvent::Reset);
        assert_eq!(next(&mut watch).await, WatchEvent::Synced);
        for version in 1..=MAX_RING as u64 + 1 {
            cache.publisher.apply(Feed::Topics, vec![Event::Put(entry("a", 1, version))]);
        }
        for expected in [WatchEvent::Reset, changed("a", 1), WatchEvent::Synced] {
            assert_eq!(next(&mut watch).await, expected);
        }
    }
}
