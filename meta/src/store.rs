//! `MetaStore`: a small linearizable key-value store with transactions, leases and watches.
//!
//! Three stores implement it: etcd for clusters, redb embedded in one process, and memory for tests. One conformance
//! suite (`conformance.rs`) says what they have in common.
//!
//! Invariants:
//! * a store has one revision, which grows with each transaction that changes something and never goes back;
//! * a value's version is the revision that wrote it, so a version never names two values of one key;
//! * what a read returns was true at one moment between its call and its answer.

pub mod embedded;
pub mod etcd;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod memory;
#[cfg(feature = "testing")]
pub mod power_loss;
pub mod redb;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::{ErrorCode, Happened, ServiceError};
use bytes::Bytes;
use futures::stream::BoxStream;

pub use etcd::EtcdStore;
pub use memory::MemoryStore;
pub use redb::RedbStore;

/// Most compares, and most puts and deletes together, of one transaction (etcd takes 128 of each).
pub const MAX_OPERATIONS: usize = 100;
/// Most bytes of keys and values of one transaction (etcd takes requests of 1.5 MiB).
pub const MAX_TRANSACTION_BYTES: usize = 1024 * 1024;
/// Most entries of one page of a listing.
pub const MAX_PAGE: usize = 1_000;
/// The shortest time to live of a lease (etcd's lower bound with its default election time-out).
pub const MIN_LEASE: Duration = bmq_proto::meta::MIN_SESSION_TTL;

/// The store's state after one transaction; the first has revision 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of the next transaction that changes something.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// The revision that wrote a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub u64);

/// Names one lease; never zero, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// A value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub value: Bytes,
    pub version: Version,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Bytes,
    pub version: Version,
}

/// From which end a listing begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

/// What to list: the keys in `start..end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    pub start: String,
    pub end: String,
    pub order: Order,
    /// From 1; the store may answer fewer, see [`Page::more`].
    pub limit: usize,
    /// The revision of an earlier page, so that all pages tell of one moment. `None` is now.
    pub at: Option<Revision>,
}

impl ListRequest {
    /// The first page of all keys that begin with `prefix`.
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: prefix_end(prefix), order: Order::Ascending, limit: MAX_PAGE, at: None }
    }

    /// The request for what follows `page`, at the same revision.
    pub fn after(mut self, page: &Page) -> Self {
        if let Some(last) = page.entries.last() {
            match self.order {
                Order::Ascending => self.start = after_key(&last.key),
                Order::Descending => self.end = last.key.clone(),
            }
        }
        self.at = Some(page.revision);
        self
    }
}

/// The smallest key greater than `key`.
pub fn after_key(key: &str) -> String {
    format!("{key}\0")
}

/// The smallest key greater than all keys that begin with `prefix`. Keys are ASCII, so the last byte can be raised.
pub fn prefix_end(prefix: &str) -> String {
    assert!(prefix.is_ascii() && !prefix.is_empty(), "key prefix `{prefix}` is not ASCII text");
    let (head, last) = prefix.split_at(prefix.len() - 1);
    let raised = char::from(last.as_bytes()[0] + 1);
    format!("{head}{raised}")
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    pub revision: Revision,
    /// Whether the range holds more entries than were returned.
    pub more: bool,
}

/// What a key must be for a transaction to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Version(Version),
}

impl Expected {
    /// That the key still is as it was read.
    pub fn unchanged(read: Option<&Versioned>) -> Self {
        read.map_or(Expected::Absent, |value| Expected::Version(value.version))
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: String,
    pub expected: Expected,
}

/// One value to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub key: String,
    pub value: Bytes,
    /// The key is deleted when this lease ends. `None` frees the key of the lease it had.
    pub lease: Option<LeaseId>,
}

/// Compares and, if all hold, changes: all or nothing. A key may stand in `puts` and `deletes` only once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transaction {
    pub compares: Vec<Compare>,
    pub puts: Vec<Put>,
    pub deletes: Vec<String>,
}

impl Transaction {
    pub fn expect(mut self, key: impl Into<String>, expected: Expected) -> Self {
        self.compares.push(Compare { key: key.into(), expected });
        self
    }

    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.puts.push(Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    pub fn put_leased(mut self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.puts.push(Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// Checks the bounds that every store keeps.
    pub fn validate(&self) -> Result<(), MetaStoreError> {
        let changes = self.puts.len() + self.deletes.len();
        if self.compares.len() > MAX_OPERATIONS || changes > MAX_OPERATIONS {
            let compares = self.compares.len();
            return Err(MetaStoreError::invalid(format!(
                "a transaction of {compares} compares and {changes} changes, of at most {MAX_OPERATIONS} each"
            )));
        }
        let put_bytes: usize = self.puts.iter().map(|put| put.key.len() + put.value.len()).sum();
        let key_bytes: usize = self.compares.iter().map(|compare| compare.key.len()).sum::<usize>()
            + self.deletes.iter().map(String::len).sum::<usize>();
        let bytes = put_bytes + key_bytes;
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(MetaStoreError::invalid(format!(
                "a transaction of {bytes} bytes, of at most {MAX_TRANSACTION_BYTES}"
            )));
        }
        let mut seen = BTreeSet::new();
        let mut changed = self.puts.iter().map(|put| &put.key).chain(&self.deletes);
        match changed.find(|key| !seen.insert(key.as_str())) {
            Some(key) => Err(MetaStoreError::invalid(format!("a transaction that changes `{key}` twice"))),
            None => Ok(()),
        }
    }
}

/// How a transaction ended that certainly ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a conflict changed nothing"]
pub enum Outcome {
    /// All compares held; the changes are durable. The revision is the store's after them.
    Committed(Revision),
    /// A compare did not hold; nothing changed.
    Conflict,
}

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Put(Entry),
    Delete { key: String },
}

impl Event {
    pub fn key(&self) -> &str {
        match self {
            Event::Put(entry) => &entry.key,
            Event::Delete { key } => key,
        }
    }
}

/// The events of whole revisions up to and with `revision`, in order. Without events it only tells how far the watch
/// has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// Ends after its first error; [`ErrorKind::Compacted`] tells that only a new listing helps.
pub type EventStream = BoxStream<'static, Result<Events, MetaStoreError>>;

/// What went wrong at the store, by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is beyond the store's bounds: a mistake of the caller.
    Invalid,
    /// The lease has ended.
    LeaseGone,
    /// The revision asked for is no longer kept: list anew.
    Compacted,
    /// The store cannot be reached or has no room: try again.
    Unavailable,
    /// No answer in time: try again.
    Timeout,
    /// The stored bytes are not what they should be: a person should look.
    Damaged,
}

/// An error of a store. For reads `happened` is always `NotApplied`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct MetaStoreError {
    pub kind: ErrorKind,
    pub happened: Happened,
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl MetaStoreError {
    /// An error that certainly changed nothing.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, happened: Happened::NotApplied, message: message.into(), source: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Says that what failed may have been applied, or may yet be.
    pub fn maybe_applied(self) -> Self {
        Self { happened: Happened::Unknown, ..self }
    }

    pub fn caused_by(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The error with its causes on one line, for where it is consumed.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        text
    }
}

impl From<MetaStoreError> for ServiceError {
    fn from(error: MetaStoreError) -> Self {
        let code = match error.kind {
            ErrorKind::Invalid => ErrorCode::Internal,
            ErrorKind::LeaseGone => ErrorCode::Fenced,
            ErrorKind::Compacted | ErrorKind::Unavailable => ErrorCode::Unavailable,
            ErrorKind::Timeout => ErrorCode::Timeout,
            ErrorKind::Damaged => ErrorCode::Storage,
        };
        ServiceError { code, happened: error.happened, message: format!("metadata store: {}", error.chain()) }
    }
}

/// A linearizable key-value store. Keys are ASCII.
///
/// Futures may be dropped at any await; a transaction whose future was dropped may still be applied.
#[async_trait]
pub trait MetaStore: Send + Sync + 'static {
    /// One key.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError>;

    /// At most [`MAX_OPERATIONS`] keys at one revision, in the order asked for.
    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, MetaStoreError>;

    /// A page of a range of keys. `Compacted` if the revision asked for is no longer kept.
    async fn list(&self, request: ListRequest) -> Result<Page, MetaStoreError>;

    /// Applies the changes if all compares hold. `Committed` is durable: it outlives a loss of power (in memory: the
    /// store itself). `LeaseGone` if a put names a lease that has ended.
    async fn transact(&self, transaction: Transaction) -> Result<Outcome, MetaStoreError>;

    /// What happens to the keys that begin with `prefix`, from revision `from` on.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<EventStream, MetaStoreError>;

    /// A new lease, which ends when it was not kept alive for `time_to_live` (at least [`MIN_LEASE`]; rounded up to
    /// whole seconds). Its keys are then deleted, each with an event.
    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, MetaStoreError>;

    /// Lets a lease live for its full time again. `LeaseGone` if it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), MetaStoreError>;

    /// Ends a lease and deletes its keys; `Ok` also if it has ended before.
    async fn revoke(&self, lease: LeaseId) -> Result<(), MetaStoreError>;
}

/// A store as services hold it.
pub type SharedStore = Arc<dyn MetaStore>;
