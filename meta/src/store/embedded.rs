//! The engine shared by the stores that live in this process: compares, leases, pages and watches over a backend that
//! keeps sorted keys.
//!
//! Invariants:
//! * one writer at a time: who holds `writer` may commit, and only they know which keys each lease has;
//! * an event is published after its commit is durable, in the order of revisions;
//! * no lease outlives the process: a backend opens without leased keys.

mod event_log;
mod lease_table;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::{Random, Shutdown, Tasks};
use bmq_proto::Happened;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use super::{
    Entry, ErrorKind, Event, EventStream, Events, Expected, LeaseId, ListRequest, MAX_OPERATIONS, MAX_PAGE, MIN_LEASE,
    MetaStore, MetaStoreError, Order, Outcome, Page, Put, Revision, Transaction, Version, Versioned,
};
use event_log::EventLog;
use lease_table::LeaseTable;

/// How many listings may be under way page by page; the oldest gives way.
const MAX_PINNED: usize = 16;
/// How long a listing may take between two pages.
const PINNED_FOR: Duration = Duration::from_secs(10);

/// One transaction's changes, for a backend to make durable. Deletes name only keys that exist.
#[derive(Debug)]
pub struct Commit {
    pub revision: Revision,
    pub puts: Vec<Put>,
    pub deletes: Vec<String>,
}

impl Commit {
    fn events(&self) -> Events {
        let version = Version(self.revision.0);
        let put = |put: &Put| Event::Put(Entry { key: put.key.clone(), value: put.value.clone(), version });
        let deletes = self.deletes.iter().map(|key| Event::Delete { key: key.clone() });
        Events { revision: self.revision, events: self.puts.iter().map(put).chain(deletes).collect() }
    }
}

/// Sorted keys at one revision.
pub trait Snapshot: Send + Sync + 'static {
    fn revision(&self) -> Revision;
    fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError>;
    /// At most `limit` entries of `start..end` from the end that `order` names.
    fn range(&self, start: &str, end: &str, order: Order, limit: usize) -> Result<Vec<Entry>, MetaStoreError>;
}

/// Where the keys are kept. Called by one writer and any number of readers.
pub trait Backend: Send + Sync + 'static {
    type Snapshot: Snapshot;
    /// Whether calls may block their thread, so that they must not run on the runtime's own.
    const BLOCKS: bool;

    fn snapshot(&self) -> Result<Self::Snapshot, MetaStoreError>;

    /// All or nothing; durable when it returns `Ok`.
    fn commit(&self, commit: &Commit) -> Result<(), MetaStoreError>;
}

/// A `MetaStore` over a backend. Dropping it ends its watches with an error.
pub struct EmbeddedStore<B: Backend> {
    inner: Arc<Inner<B>>,
    _tasks: Tasks,
}

struct Inner<B: Backend> {
    backend: B,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    log: EventLog,
    /// Revisions of listings that are not finished.
    pinned: Mutex<VecDeque<Pinned<B::Snapshot>>>,
    random: Random,
    /// Tells the reaper that the next lease to end may be another one.
    leases_changed: Arc<Notify>,
}

/// What the one writer knows.
#[derive(Default)]
struct Writer {
    leases: LeaseTable,
    /// A commit that failed so that it may be there or not: the next snapshot tells.
    unclear: Option<Commit>,
}

struct Pinned<S> {
    until: Instant,
    snapshot: Arc<S>,
}

impl<B: Backend> EmbeddedStore<B> {
    /// Must be called within a Tokio runtime.
    pub fn over(backend: B) -> Result<Self, MetaStoreError> {
        let revision = backend.snapshot()?.revision();
        let leases_changed = Arc::new(Notify::new());
        let inner = Arc::new(Inner {
            backend,
            writer: Arc::default(),
            log: EventLog::from(revision),
            pinned: Mutex::default(),
            random: Random::from_os(),
            leases_changed: Arc::clone(&leases_changed),
        });
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("lease-reaper", reap(Arc::downgrade(&inner), leases_changed));
        Ok(Self { inner, _tasks: tasks })
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner<B>) -> Result<T, MetaStoreError> + Send + 'static,
    ) -> Result<T, MetaStoreError> {
        let inner = Arc::clone(&self.inner);
        run::<B, T>(move || read(&inner)).await
    }

    /// Waits for the writer's turn; from then on the call runs to its end, also if the caller goes away.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Inner<B>, &mut Writer) -> Result<T, MetaStoreError> + Send + 'static,
    ) -> Result<T, MetaStoreError> {
        let inner = Arc::clone(&self.inner);
        let mut writer = inner.lock().await;
        run::<B, T>(move || write(&inner, &mut writer)).await
    }
}

/// Runs a backend's call where it may block.
async fn run<B: Backend, T: Send + 'static>(
    call: impl FnOnce() -> Result<T, MetaStoreError> + Send + 'static,
) -> Result<T, MetaStoreError> {
    if !B::BLOCKS {
        return call();
    }
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => {
            Err(MetaStoreError::new(ErrorKind::Unavailable, "the call was cut off").caused_by(error).maybe_applied())
        }
    }
}

impl<B: Backend> Inner<B> {
    async fn lock(&self) -> OwnedMutexGuard<Writer> {
        Arc::clone(&self.writer).lock_owned().await
    }

    fn list(&self, request: &ListRequest) -> Result<Page, MetaStoreError> {
        let snapshot = self.snapshot_at(request.at)?;
        let limit = request.limit.clamp(1, MAX_PAGE);
        let mut entries = snapshot.range(&request.start, &request.end, request.order, limit + 1)?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let revision = snapshot.revision();
        if more {
            self.pin(snapshot);
        }
        Ok(Page { entries, revision, more })
    }

    fn snapshot_at(&self, at: Option<Revision>) -> Result<Arc<B::Snapshot>, MetaStoreError> {
        if let Some(revision) = at {
            let pinned = self.pinned.lock();
            if let Some(found) = pinned.iter().find(|pinned| pinned.snapshot.revision() == revision) {
                return Ok(Arc::clone(&found.snapshot));
            }
        }
        let latest = Arc::new(self.backend.snapshot()?);
        if at.is_some_and(|revision| revision != latest.revision()) {
            return Err(MetaStoreError::new(ErrorKind::Compacted, "the listing took too long, its revision is gone"));
        }
        Ok(latest)
    }

    fn pin(&self, snapshot: Arc<B::Snapshot>) {
        let now = Instant::now();
        let mut pinned = self.pinned.lock();
        pinned.retain(|other| other.until > now && other.snapshot.revision() != snapshot.revision());
        if pinned.len() == MAX_PINNED {
            pinned.pop_front();
        }
        pinned.push_back(Pinned { until: now + PINNED_FOR, snapshot });
    }

    /// Lets go of listings that nobody goes on with: an old snapshot keeps old pages from being used again.
    fn unpin_expired(&self) {
        let now = Instant::now();
        self.pinned.lock().retain(|pinned| pinned.until > now);
    }

    fn transact(&self, writer: &mut Writer, transaction: Transaction) -> Result<Outcome, MetaStoreError> {
        let snapshot = self.latest(writer)?;
        for compare in &transaction.compares {
            let present = snapshot.get(&compare.key)?;
            if compare.expected != Expected::unchanged(present.as_ref()) {
                return Ok(Outcome::Conflict);
            }
        }
        for lease in transaction.puts.iter().filter_map(|put| put.lease) {
            writer.leases.check_live(lease, Instant::now())?;
        }
        self.change(writer, &snapshot, transaction.puts, transaction.deletes)
    }

    /// The state to write upon, after the outcome of a commit that failed unclearly has been learnt from it.
    fn latest(&self, writer: &mut Writer) -> Result<B::Snapshot, MetaStoreError> {
        let snapshot = self.backend.snapshot()?;
        if let Some(commit) = writer.unclear.take_if(|commit| commit.revision <= snapshot.revision()) {
            self.finish_commit(writer, commit);
        }
        writer.unclear = None;
        Ok(snapshot)
    }

    fn change(
        &self,
        writer: &mut Writer,
        snapshot: &B::Snapshot,
        puts: Vec<Put>,
        deletes: Vec<String>,
    ) -> Result<Outcome, MetaStoreError> {
        let mut existing = Vec::with_capacity(deletes.len());
        for key in deletes {
            if snapshot.get(&key)?.is_some() {
                existing.push(key);
            }
        }
        if puts.is_empty() && existing.is_empty() {
            return Ok(Outcome::Committed(snapshot.revision()));
        }
        let commit = Commit { revision: snapshot.revision().next(), puts, deletes: existing };
        if let Err(error) = self.backend.commit(&commit) {
            if error.happened == Happened::Unknown {
                writer.unclear = Some(commit);
            }
            return Err(error);
        }
        let revision = commit.revision;
        self.finish_commit(writer, commit);
        Ok(Outcome::Committed(revision))
    }

    fn finish_commit(&self, writer: &mut Writer, commit: Commit) {
        writer.leases.absorb(&commit);
        self.log.publish(commit.events());
        self.unpin_expired();
    }

    /// Deletes the keys of a lease and then the lease, so that a failed try can be made again.
    fn end_lease(&self, writer: &mut Writer, lease: LeaseId) -> Result<(), MetaStoreError> {
        let snapshot = self.latest(writer)?;
        let keys = writer.leases.keys(lease);
        let _: Outcome = self.change(writer, &snapshot, Vec::new(), keys)?;
        writer.leases.remove(lease);
        Ok(())
    }

    /// Ends the lease whose time has come, if there is one. Returns when to look again.
    async fn end_due_lease(self: Arc<Self>) -> Option<Instant> {
        /// How soon to try again when the backend fails.
        const RETRY: Duration = Duration::from_millis(500);
        let mut writer = self.lock().await;
        let (end, lease) = writer.leases.next_end()?;
        if end > Instant::now() {
            return Some(end);
        }
        let ended = run::<B, ()>(move || self.end_lease(&mut writer, lease)).await;
        match ended {
            Ok(()) => Some(Instant::now()),
            Err(error) => {
                tracing::warn!(error = error.chain(), lease = lease.0, "cannot delete an ended lease's keys");
                Some(Instant::now() + RETRY)
            }
        }
    }
}

/// Ends leases when their time has come, until the store is dropped.
async fn reap<B: Backend>(inner: Weak<Inner<B>>, leases_changed: Arc<Notify>) {
    while let Some(store) = inner.upgrade() {
        // The store itself must not be held while waiting: a database's lock ends when its last handle does.
        match store.end_due_lease().await {
            Some(end) => tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = leases_changed.notified() => {}
            },
            None => leases_changed.notified().await,
        }
    }
}

#[async_trait]
impl<B: Backend> MetaStore for EmbeddedStore<B> {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError> {
        let key = key.to_owned();
        self.read(move |inner| inner.backend.snapshot()?.get(&key)).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, MetaStoreError> {
        if keys.len() > MAX_OPERATIONS {
            return Err(MetaStoreError::invalid(format!(
                "{} keys in one read, of at most {MAX_OPERATIONS}",
                keys.len()
            )));
        }
        let keys = keys.to_vec();
        self.read(move |inner| {
            let snapshot = inner.backend.snapshot()?;
            keys.iter().map(|key| snapshot.get(key)).collect()
        })
        .await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, MetaStoreError> {
        self.read(move |inner| inner.list(&request)).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, MetaStoreError> {
        transaction.validate()?;
        self.write(move |inner, writer| inner.transact(writer, transaction)).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<EventStream, MetaStoreError> {
        Ok(self.inner.log.follow(prefix, from))
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, MetaStoreError> {
        let time_to_live = checked_time_to_live(time_to_live)?;
        let mut writer = self.inner.lock().await;
        // Positive and below 2^63, as etcd's are.
        let lease = LeaseId(self.inner.random.below(i64::MAX as u64) + 1);
        writer.leases.insert(lease, time_to_live, Instant::now());
        self.inner.leases_changed.notify_one();
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        self.inner.lock().await.leases.renew(lease, Instant::now())
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        self.write(move |inner, writer| inner.end_lease(writer, lease)).await
    }
}

/// Rounded up to whole seconds, as etcd counts.
pub(super) fn checked_time_to_live(time_to_live: Duration) -> Result<Duration, MetaStoreError> {
    if time_to_live < MIN_LEASE {
        return Err(MetaStoreError::invalid(format!("a lease of {time_to_live:?}, of at least {MIN_LEASE:?}")));
    }
    let part = u64::from(time_to_live.subsec_nanos() > 0);
    Ok(Duration::from_secs(time_to_live.as_secs().saturating_add(part)))
}
