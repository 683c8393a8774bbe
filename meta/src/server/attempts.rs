//! One call's tries at a transaction: reads and commits under one deadline, and what is certain at the end.
//!
//! The pattern of each domain operation is a loop: read, decide, [`Attempts::commit`], and again if the records changed
//! under it or the outcome is unclear. A try after an unclear one is safe because both compare the same versions: if the
//! first applies late, the second conflicts; if the records have changed, the first can no longer apply.
//!
//! Invariant: once a commit was unclear, no error of the call says `NotApplied`.

use std::future::Future;
use std::time::Duration;

use bmq_common::{Backoff, Random};
use bmq_proto::rpc::record::StoredRecord;
use bmq_proto::{ErrorCode, Happened, ServiceError};
use tokio::time::Instant;

use super::decode;
use crate::metrics::MetaMetrics;
use crate::store::{
    Entry, ErrorKind, ListRequest, MAX_OPERATIONS, MetaStore, MetaStoreError, Outcome, Transaction, Versioned,
};

/// Most tries of one call, the deadline apart.
const MAX_TRIES: usize = 100;

/// What a commit came to, if not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Commit {
    Done,
    /// Read anew and decide anew: the records changed, or it is unclear whether the commit applied.
    Again,
}

pub(super) struct Attempts<'a> {
    store: &'a dyn MetaStore,
    random: &'a Random,
    metrics: &'a MetaMetrics,
    call: &'static str,
    deadline: Instant,
    backoff: Backoff,
    tries: usize,
    unclear: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        store: &'a dyn MetaStore,
        random: &'a Random,
        metrics: &'a MetaMetrics,
        call: &'static str,
        time: Duration,
    ) -> Self {
        let backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(250));
        let deadline = Instant::now() + time;
        Self { store, random, metrics, call, deadline, backoff, tries: 0, unclear: false }
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<Option<Versioned>, ServiceError> {
        let store = self.store;
        self.read(|| store.get(key)).await
    }

    /// Any number of keys; those of one hundred at one revision.
    pub(super) async fn get_many(&mut self, keys: &[String]) -> Result<Vec<Option<Versioned>>, ServiceError> {
        let store = self.store;
        let mut values = Vec::with_capacity(keys.len());
        for part in keys.chunks(MAX_OPERATIONS) {
            values.extend(self.read(|| store.get_many(part)).await?);
        }
        Ok(values)
    }

    /// One page.
    pub(super) async fn list_page(&mut self, request: ListRequest) -> Result<Vec<Entry>, ServiceError> {
        let store = self.store;
        Ok(self.read(|| store.list(request.clone())).await?.entries)
    }

    /// Everything below `prefix` at one revision.
    pub(super) async fn list(&mut self, prefix: &str) -> Result<Vec<Entry>, ServiceError> {
        let store = self.store;
        self.read(|| list_all(store, prefix)).await
    }

    /// The records below `prefix`, in the order of their keys.
    pub(super) async fn list_records<R: StoredRecord>(&mut self, prefix: &str) -> Result<Vec<R>, ServiceError> {
        self.list(prefix).await?.iter().map(|entry| decode(&entry.key, &entry.value)).collect()
    }

    /// Asks again after each failure until the deadline.
    pub(super) async fn read<T, F>(&mut self, read: impl Fn() -> F) -> Result<T, ServiceError>
    where
        F: Future<Output = Result<T, MetaStoreError>>,
    {
        loop {
            let answer = tokio::time::timeout_at(self.deadline, read()).await;
            let error = match answer {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.timed_out()),
            };
            self.pause_or_fail(error).await?;
        }
    }

    pub(super) async fn commit(&mut self, transaction: Transaction) -> Result<Commit, ServiceError> {
        let answer = tokio::time::timeout_at(self.deadline, self.store.transact(transaction)).await;
        match answer {
            Ok(Ok(Outcome::Committed(_))) => return Ok(Commit::Done),
            Ok(Ok(Outcome::Conflict)) => {
                self.metrics.conflict_found();
                self.pause_after_conflict().await?;
            }
            Ok(Err(error)) => {
                self.unclear |= error.happened == Happened::Unknown;
                self.pause_or_fail(error).await?;
            }
            Err(_) => {
                self.unclear = true;
                return Err(self.timed_out());
            }
        }
        Ok(Commit::Again)
    }

    /// Before another round whose reads did not fit together.
    pub(super) async fn pause_after_conflict(&mut self) -> Result<(), ServiceError> {
        if !self.pause().await {
            let message = format!("{}: the records changed under each try", self.call);
            return Err(self.refusal(ServiceError::not_applied(ErrorCode::Busy, message)));
        }
        Ok(())
    }

    /// A refusal as the caller may hear it: one that follows an unclear commit is not certain.
    pub(super) fn refusal(&self, mut error: ServiceError) -> ServiceError {
        if self.unclear {
            error.happened = Happened::Unknown;
        }
        error
    }

    async fn pause_or_fail(&mut self, error: MetaStoreError) -> Result<(), ServiceError> {
        let worth_another_try =
            matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Compacted);
        if worth_another_try && self.pause().await {
            tracing::debug!(call = self.call, error = error.chain(), "trying again");
            return Ok(());
        }
        let mut error = ServiceError::from(error);
        error.message = format!("{}: {}", self.call, error.message);
        // What is unclear of a commit is kept in `unclear`; a read that failed changed nothing.
        error.happened = Happened::NotApplied;
        Err(self.refusal(error))
    }

    /// Waits a little; false if there is no time for another try.
    async fn pause(&mut self) -> bool {
        self.tries += 1;
        let until = Instant::now() + self.backoff.next(self.random);
        if self.tries >= MAX_TRIES || until >= self.deadline {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }

    fn timed_out(&self) -> ServiceError {
        let message = format!("{}: the metadata store did not answer in time", self.call);
        self.refusal(ServiceError::not_applied(ErrorCode::Timeout, message))
    }
}

/// Everything below `prefix` at one revision; `Compacted` if that took too long.
async fn list_all(store: &dyn MetaStore, prefix: &str) -> Result<Vec<Entry>, MetaStoreError> {
    let mut request = ListRequest::prefix(prefix);
    let mut entries = Vec::new();
    loop {
        let page = store.list(request.clone()).await?;
        request = request.after(&page);
        let more = page.more;
        entries.extend(page.entries);
        if !more {
            return Ok(entries);
        }
    }
}
