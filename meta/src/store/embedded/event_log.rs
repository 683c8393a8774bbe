//! The newest events, kept in one ring from which each watch reads at its own pace.
//!
//! A watch has a place in the ring and no queue of its own, so that slow watches cost nothing; one that falls off the
//! ring's old end is told `Compacted`.
//!
//! Invariant: the ring holds every revision in `oldest..=newest` that changed something, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::{ErrorKind, Event, EventStream, Events, MetaStoreError, Revision};

/// Bounds of the ring, whichever is reached first.
const MAX_REVISIONS: usize = 16_384;
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most revisions that one step of a watch tells of.
const MAX_STEP: usize = 256;

pub(super) struct EventLog {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<Revision>,
}

struct Ring {
    revisions: VecDeque<Arc<Events>>,
    /// The first revision from which a watch can still begin.
    oldest: Revision,
    bytes: usize,
}

/// One watch's place.
struct Follower {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Receiver<Revision>,
    prefix: String,
    next: Revision,
    failed: bool,
}

impl EventLog {
    /// A log of a store whose earlier events nobody remembers.
    pub(super) fn from(revision: Revision) -> Self {
        let ring = Ring { revisions: VecDeque::new(), oldest: revision.next(), bytes: 0 };
        Self { ring: Arc::new(Mutex::new(ring)), newest: watch::Sender::new(revision) }
    }

    pub(super) fn publish(&self, events: Events) {
        let revision = events.revision;
        self.ring.lock().push(events);
        self.newest.send_replace(revision);
    }

    pub(super) fn follow(&self, prefix: &str, from: Revision) -> EventStream {
        let follower = Follower {
            ring: Arc::clone(&self.ring),
            newest: self.newest.subscribe(),
            prefix: prefix.to_owned(),
            next: from,
            failed: false,
        };
        stream::unfold(follower, Follower::step).boxed()
    }
}

impl Ring {
    fn push(&mut self, events: Events) {
        self.bytes += size(&events);
        self.revisions.push_back(Arc::new(events));
        while self.revisions.len() > MAX_REVISIONS || (self.bytes > MAX_BYTES && self.revisions.len() > 1) {
            let dropped = self.revisions.pop_front().expect("the ring was found not to be empty");
            self.bytes -= size(&dropped);
            self.oldest = dropped.revision.next();
        }
    }

    /// The revisions from `next` on, at most a step of them.
    fn from(&self, next: Revision) -> Result<Vec<Arc<Events>>, MetaStoreError> {
        if next < self.oldest {
            let message = format!("events before revision {} are no longer kept", self.oldest.0);
            return Err(MetaStoreError::new(ErrorKind::Compacted, message));
        }
        let first = self.revisions.partition_point(|events| events.revision < next);
        Ok(self.revisions.iter().skip(first).take(MAX_STEP).cloned().collect())
    }
}

impl Follower {
    async fn step(mut self) -> Option<(Result<Events, MetaStoreError>, Self)> {
        if self.failed {
            return None;
        }
        match self.read().await {
            Ok(events) => Some((Ok(events), self)),
            Err(error) => {
                self.failed = true;
                Some((Err(error), self))
            }
        }
    }

    async fn read(&mut self) -> Result<Events, MetaStoreError> {
        loop {
            self.newest.borrow_and_update();
            let revisions = self.ring.lock().from(self.next)?;
            if let Some(last) = revisions.last() {
                let revision = last.revision;
                self.next = revision.next();
                let wanted = |event: &&Event| event.key().starts_with(&self.prefix);
                let events = revisions.iter().flat_map(|events| &events.events).filter(wanted).cloned().collect();
                return Ok(Events { revision, events });
            }
            if self.newest.changed().await.is_err() {
                return Err(MetaStoreError::new(ErrorKind::Unavailable, "the store was closed"));
            }
        }
    }
}

fn size(events: &Events) -> usize {
    let of = |event: &Event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key } => key.len(),
    };
    events.events.iter().map(of).sum()
}
