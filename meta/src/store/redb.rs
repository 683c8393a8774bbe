//! A store in one database file of this process, over redb.
//!
//! Invariants:
//! * a commit is durable when it returns (redb's immediate durability: data, then header, each synced);
//! * one process has the file open; a second one is refused;
//! * leases do not outlive the process, so keys that had one are deleted when the file is opened;
//! * after a failed commit the file is opened anew before it is used again, since only that tells what it holds.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    Table, TableDefinition, WriteTransaction,
};

use super::embedded::{Backend, Commit, EmbeddedStore, Snapshot};
use super::{Entry, ErrorKind, LeaseId, MetaStoreError, Order, Revision, Version, Versioned};

/// Key → (version, value).
const VALUES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("values");
/// Key → lease, for the keys that have one.
const LEASED: TableDefinition<&str, u64> = TableDefinition::new("leased");
/// Numbers about the store itself, by the names below.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
const REVISION: &str = "revision";
const FORMAT: &str = "format";

/// The newest layout of these tables that this version knows.
const FORMAT_VERSION: u64 = 1;
/// redb's own default is 1 GiB.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// A store in one database file.
pub type RedbStore = EmbeddedStore<RedbBackend>;

impl RedbStore {
    /// Opens or creates the file; its folder must exist. Must be called within a Tokio runtime.
    ///
    /// `Unavailable` if another process has it open.
    pub async fn open(path: &Path) -> Result<Self, MetaStoreError> {
        let path = path.to_owned();
        let name = path.display().to_string();
        Self::open_with(name, move || open_file(&path)).await
    }

    /// Opens a database over what `backend` makes, such as a file that loses power. It is called again after a failed
    /// commit. `name` stands in errors.
    pub async fn open_backend<S: StorageBackend>(
        name: &str,
        backend: impl Fn() -> S + Send + Sync + 'static,
    ) -> Result<Self, MetaStoreError> {
        let open = move || builder().create_with_backend(backend());
        Self::open_with(name.to_owned(), open).await
    }

    async fn open_with(
        name: String,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, MetaStoreError> {
        let opened = tokio::task::spawn_blocking(move || RedbBackend::open(name, Box::new(open))).await;
        let cut_off = |error| MetaStoreError::new(ErrorKind::Unavailable, "opening was cut off").caused_by(error);
        Self::over(opened.map_err(cut_off)??)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    let is_new = !path.exists();
    let database = builder().create(path)?;
    if is_new {
        sync_folder(path).map_err(|error| DatabaseError::Storage(error.into()))?;
    }
    Ok(database)
}

/// Makes the file's name outlive a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.map_or_else(|| PathBuf::from("."), Path::to_owned))?.sync_all()
}

type OpenDatabase = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// Sorted keys in a database file.
pub struct RedbBackend {
    name: String,
    open: OpenDatabase,
    state: RwLock<State>,
}

enum State {
    Open(Database),
    /// Closed after a failure that may pass, such as a full disk: opened again at the next call.
    Closed,
    /// Closed after a failure that leaves it unclear what the disk holds: only a new process may look.
    Failed {
        reason: String,
    },
}

impl RedbBackend {
    fn open(name: String, open: OpenDatabase) -> Result<Self, MetaStoreError> {
        let database = open().map_err(|error| refused(&name, error))?;
        let backend = Self { name, open, state: RwLock::new(State::Closed) };
        prepare(&database).map_err(|error| backend.error("cannot be prepared", error))?;
        check_format(&database).map_err(|error| backend.error("cannot be read", error))?.map_or(Ok(()), |found| {
            let message = format!("{}: format {found} is not known to this version, use a newer one", backend.name);
            Err(MetaStoreError::new(ErrorKind::Damaged, message))
        })?;
        drop_leased(&database).map_err(|error| backend.error("cannot drop old sessions", error))?;
        *backend.state.write() = State::Open(database);
        Ok(backend)
    }

    fn error(&self, what: &str, error: redb::Error) -> MetaStoreError {
        let kind = match &error {
            redb::Error::Corrupted(_) => ErrorKind::Damaged,
            _ => ErrorKind::Unavailable,
        };
        MetaStoreError::new(kind, format!("{}: {what}", self.name)).caused_by(error)
    }

    /// Runs `call` on the open database. After a failure of the storage below the database is closed.
    fn with<T>(&self, call: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, MetaStoreError> {
        self.reopen()?;
        let failure = match &*self.state.read() {
            State::Open(database) => match call(database) {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            },
            State::Closed => return Err(MetaStoreError::new(ErrorKind::Unavailable, format!("{}: closed", self.name))),
            State::Failed { reason } => {
                let message = format!("{}: failed before, restart the process: {reason}", self.name);
                return Err(MetaStoreError::new(ErrorKind::Unavailable, message));
            }
        };
        Err(self.close_after(failure))
    }

    fn reopen(&self) -> Result<(), MetaStoreError> {
        if !matches!(&*self.state.read(), State::Closed) {
            return Ok(());
        }
        let mut state = self.state.write();
        if matches!(&*state, State::Closed) {
            *state = State::Open((self.open)().map_err(|error| refused(&self.name, error))?);
            tracing::info!(file = self.name, "metadata file opened again");
        }
        Ok(())
    }

    fn close_after(&self, failure: Failure) -> MetaStoreError {
        let (error, in_commit) = match failure {
            Failure::Before(error) => (error, false),
            Failure::InCommit(error) => (error, true),
        };
        let what = if in_commit { "a commit failed" } else { "cannot be used" };
        let next = match &error {
            redb::Error::Io(cause) if in_commit && !may_pass(cause) => State::Failed { reason: cause.to_string() },
            redb::Error::Io(_) | redb::Error::PreviousIo => State::Closed,
            _ if in_commit => State::Closed,
            _ => return self.error(what, error),
        };
        tracing::error!(file = self.name, %error, "metadata file closed after a failure");
        *self.state.write() = next;
        let error = self.error(what, error);
        if in_commit { error.maybe_applied() } else { error }
    }
}

/// A failure of the database, by whether it may have changed something.
enum Failure {
    Before(redb::Error),
    InCommit(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Before(error.into())
    }
}

/// Whether a failed write says no more than that there is no room. Of other failures, of a sync above all, nobody knows
/// what they left on the disk, whatever a later read shows.
fn may_pass(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn refused(name: &str, error: DatabaseError) -> MetaStoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            let message = format!("{name}: in use by another process; stop that one first");
            MetaStoreError::new(ErrorKind::Unavailable, message)
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(_)) => {
            MetaStoreError::new(ErrorKind::Damaged, format!("{name}: the metadata file is damaged")).caused_by(error)
        }
        error => MetaStoreError::new(ErrorKind::Unavailable, format!("{name}: cannot be opened")).caused_by(error),
    }
}

/// A transaction whose commit is durable when it returns.
fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

/// Makes the tables, if the file is new.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin_write(database)?;
    {
        transaction.open_table(VALUES)?;
        transaction.open_table(LEASED)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        if numbers.get(FORMAT)?.is_none() {
            numbers.insert(FORMAT, FORMAT_VERSION)?;
            numbers.insert(REVISION, 0)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// The format, if it is another one.
fn check_format(database: &Database) -> Result<Option<u64>, redb::Error> {
    let numbers = database.begin_read()?.open_table(NUMBERS)?;
    let found = numbers.get(FORMAT)?.map_or(0, |found| found.value());
    Ok(Some(found).filter(|found| *found != FORMAT_VERSION))
}

fn drop_leased(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin_write(database)?;
    {
        let mut leased = transaction.open_table(LEASED)?;
        let mut keys = Vec::new();
        for entry in leased.iter()? {
            keys.push(entry?.0.value().to_owned());
        }
        if keys.is_empty() {
            return Ok(());
        }
        let mut values = transaction.open_table(VALUES)?;
        for key in &keys {
            leased.remove(key.as_str())?;
            values.remove(key.as_str())?;
        }
        let mut numbers = transaction.open_table(NUMBERS)?;
        let revision = revision(&numbers)?;
        numbers.insert(REVISION, revision.next().0)?;
    }
    transaction.commit()?;
    Ok(())
}

fn revision(numbers: &impl ReadableTable<&'static str, u64>) -> Result<Revision, redb::Error> {
    Ok(Revision(numbers.get(REVISION)?.map_or(0, |number| number.value())))
}

impl Backend for RedbBackend {
    type Snapshot = RedbSnapshot;
    const BLOCKS: bool = true;

    fn snapshot(&self) -> Result<RedbSnapshot, MetaStoreError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let revision = revision(&transaction.open_table(NUMBERS)?)?;
            Ok(RedbSnapshot { transaction, revision })
        })
    }

    fn commit(&self, commit: &Commit) -> Result<(), MetaStoreError> {
        self.with(|database| {
            let transaction = begin_write(database)?;
            {
                let mut values = transaction.open_table(VALUES)?;
                let mut leased = transaction.open_table(LEASED)?;
                for key in &commit.deletes {
                    values.remove(key.as_str())?;
                    set_lease(&mut leased, key, None)?;
                }
                for put in &commit.puts {
                    values.insert(put.key.as_str(), (commit.revision.0, &put.value[..]))?;
                    set_lease(&mut leased, &put.key, put.lease)?;
                }
                transaction.open_table(NUMBERS)?.insert(REVISION, commit.revision.0)?;
            }
            transaction.commit().map_err(|error| Failure::InCommit(error.into()))
        })
    }
}

fn set_lease(leased: &mut Table<&'static str, u64>, key: &str, lease: Option<LeaseId>) -> Result<(), redb::Error> {
    match lease {
        Some(lease) => drop(leased.insert(key, lease.0)?),
        None => drop(leased.remove(key)?),
    }
    Ok(())
}

/// The database at one revision.
pub struct RedbSnapshot {
    transaction: ReadTransaction,
    revision: Revision,
}

impl RedbSnapshot {
    fn range_of(&self, start: &str, end: &str, order: Order, limit: usize) -> Result<Vec<Entry>, redb::Error> {
        let values = self.transaction.open_table(VALUES)?;
        let mut range = values.range(start..end)?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let next = match order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some(next) = next else { break };
            let (key, value) = next?;
            let (version, value) = value.value();
            entries.push(Entry {
                key: key.value().to_owned(),
                value: value.to_vec().into(),
                version: Version(version),
            });
        }
        Ok(entries)
    }

    fn get_of(&self, key: &str) -> Result<Option<Versioned>, redb::Error> {
        let values = self.transaction.open_table(VALUES)?;
        let found = values.get(key)?;
        Ok(found.map(|found| {
            let (version, value) = found.value();
            Versioned { value: value.to_vec().into(), version: Version(version) }
        }))
    }
}

fn unreadable(error: redb::Error) -> MetaStoreError {
    let kind = match &error {
        redb::Error::Corrupted(_) => ErrorKind::Damaged,
        _ => ErrorKind::Unavailable,
    };
    MetaStoreError::new(kind, "the metadata file cannot be read").caused_by(error)
}

impl Snapshot for RedbSnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError> {
        self.get_of(key).map_err(unreadable)
    }

    fn range(&self, start: &str, end: &str, order: Order, limit: usize) -> Result<Vec<Entry>, MetaStoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.range_of(start, end, order, limit).map_err(unreadable)
    }
}
