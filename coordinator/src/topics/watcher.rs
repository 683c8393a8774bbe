//! Follows metadata's topics and tells them on as views.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_common::rng::Random;
use bmq_common::shutdown::Shutdown;
use bmq_proto::TopicId;
use bmq_proto::meta::{MetaChange, MetaService, TopicRecord, WatchEvent, WatchScope, WatchStream};
use futures::StreamExt;
use tokio::sync::watch;

use super::TopicView;

/// Events taken at once.
const EVENTS_AT_ONCE: usize = 256;

/// Follows until shutdown.
pub async fn watch_topics(
    meta: Arc<dyn MetaService>,
    random: Random,
    views: watch::Sender<Arc<TopicView>>,
    shutdown: Shutdown,
) {
    let mut watcher = Watcher { topics: BTreeMap::new(), listing: None, synced: false, views };
    tokio::select! {
        () = shutdown.begun() => {}
        () = watcher.follow_for_ever(meta.as_ref(), &random) => {}
    }
}

struct Watcher {
    topics: BTreeMap<TopicId, TopicRecord>,
    /// The list that is coming in.
    listing: Option<BTreeMap<TopicId, TopicRecord>>,
    synced: bool,
    views: watch::Sender<Arc<TopicView>>,
}

impl Watcher {
    async fn follow_for_ever(&mut self, meta: &dyn MetaService, random: &Random) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match meta.watch(WatchScope { topics: true, ..WatchScope::default() }).await {
                Ok(stream) => {
                    backoff.reset();
                    self.follow(stream).await;
                }
                Err(error) => tracing::warn!(%error, "topics cannot be watched, trying again"),
            }
            tokio::time::sleep(backoff.next(random)).await;
        }
    }

    /// Returns when the watch has ended.
    async fn follow(&mut self, stream: WatchStream) {
        // Many changes at once make one view.
        let mut chunks = stream.ready_chunks(EVENTS_AT_ONCE);
        while let Some(events) = chunks.next().await {
            for event in events {
                match event {
                    Ok(event) => self.learn(event),
                    Err(error) => {
                        tracing::warn!(%error, "the watch of topics ended, opening another");
                        return;
                    }
                }
            }
            if self.synced && self.listing.is_none() {
                self.tell();
            }
        }
    }

    fn learn(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Reset => self.listing = Some(BTreeMap::new()),
            WatchEvent::Change(change) => apply(self.listing.as_mut().unwrap_or(&mut self.topics), change),
            WatchEvent::Synced => {
                if let Some(listed) = self.listing.take() {
                    self.topics = listed;
                }
                self.synced = true;
            }
        }
    }

    fn tell(&self) {
        let view = TopicView::of(self.topics.values());
        self.views.send_if_modified(|told| {
            let change = **told != view;
            *told = Arc::new(view);
            change
        });
    }
}

fn apply(topics: &mut BTreeMap<TopicId, TopicRecord>, change: MetaChange) {
    match change {
        MetaChange::Topic(topic) => drop(topics.insert(topic.id, topic)),
        MetaChange::TopicGone(topic) => drop(topics.remove(&topic)),
        _ => {}
    }
}
