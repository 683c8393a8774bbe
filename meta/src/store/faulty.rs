//! A store that fails on purpose, for tests: transactions whose outcome is unclear, reads that fail, watches that break.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bmq_common::Random;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    ErrorKind, EventStream, LeaseId, ListRequest, MetaStore, MetaStoreError, Outcome, Page, Revision, SharedStore,
    Transaction, Versioned,
};

/// What happens to one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused.
    NotApplied,
    /// It is applied, and the answer is lost.
    UnknownApplied,
    /// It is lost on its way, and nobody knows.
    UnknownNotApplied,
    /// It is applied after that many more reads, and nobody knows.
    UnknownLate { reads: u32 },
}

impl Fault {
    /// One of each, for tests that try all.
    pub const ALL: [Fault; 7] = [
        Fault::NotApplied,
        Fault::UnknownApplied,
        Fault::UnknownNotApplied,
        Fault::UnknownLate { reads: 0 },
        Fault::UnknownLate { reads: 1 },
        // Late enough for the same call's next try, or another call, to come first.
        Fault::UnknownLate { reads: 4 },
        Fault::UnknownLate { reads: 9 },
    ];
}

/// A store around another one.
pub struct FaultyStore {
    inner: SharedStore,
    plan: Mutex<Plan>,
    /// Counts how often all watches were broken.
    breaks: watch::Sender<u64>,
}

#[derive(Default)]
struct Plan {
    faults: VecDeque<Fault>,
    failing_reads: u32,
    /// Each transaction fails in one of so many cases.
    chaos: Option<(Random, u64)>,
    late: Vec<(u32, Transaction)>,
    /// How often each of `Fault::ALL` occurred.
    counts: [u64; Fault::ALL.len()],
}

impl FaultyStore {
    pub fn new(inner: SharedStore) -> Self {
        Self { inner, plan: Mutex::default(), breaks: watch::Sender::new(0) }
    }

    /// Lets the next transactions fail, in this order.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.plan.lock().faults.extend(faults);
    }

    /// Lets the next reads fail.
    pub fn fail_reads(&self, count: u32) {
        self.plan.lock().failing_reads = count;
    }

    /// Lets one in `one_in` transactions fail from now on, each in a random way; 0 ends that.
    pub fn set_chaos(&self, random: Random, one_in: u64) {
        self.plan.lock().chaos = Some((random, one_in)).filter(|_| one_in > 0);
    }

    /// Ends all open watches with an error.
    pub fn break_watches(&self) {
        self.breaks.send_modify(|count| *count += 1);
    }

    /// How often each of [`Fault::ALL`] occurred.
    pub fn counts(&self) -> [u64; Fault::ALL.len()] {
        self.plan.lock().counts
    }

    /// Applies what is late and whose time has come. Gives way first, so that concurrent calls interleave.
    async fn before_read(&self) -> Result<(), MetaStoreError> {
        tokio::task::yield_now().await;
        let (due, fails) = {
            let mut plan = self.plan.lock();
            let (due, later) = std::mem::take(&mut plan.late).into_iter().partition::<Vec<_>, _>(|late| late.0 == 0);
            plan.late = later.into_iter().map(|(reads, transaction)| (reads - 1, transaction)).collect();
            let fails = plan.failing_reads > 0;
            plan.failing_reads = plan.failing_reads.saturating_sub(1);
            (due, fails)
        };
        for (_, transaction) in due {
            // Nobody waits for the outcome of a transaction that was given up.
            drop(self.inner.transact(transaction).await);
        }
        match fails {
            true => Err(MetaStoreError::new(ErrorKind::Unavailable, "a read fails on purpose")),
            false => Ok(()),
        }
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut plan = self.plan.lock();
        let fault = plan.faults.pop_front().or_else(|| {
            let (random, one_in) = plan.chaos.as_ref()?;
            let which = usize::try_from(random.below(Fault::ALL.len() as u64)).expect("a small number");
            random.chance(1, *one_in).then_some(Fault::ALL[which])
        })?;
        if let Some(which) = Fault::ALL.iter().position(|known| *known == fault) {
            plan.counts[which] += 1;
        }
        Some(fault)
    }
}

fn unknown() -> MetaStoreError {
    MetaStoreError::new(ErrorKind::Timeout, "the answer is lost on purpose").maybe_applied()
}

#[async_trait]
impl MetaStore for FaultyStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError> {
        self.before_read().await?;
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, MetaStoreError> {
        self.before_read().await?;
        self.inner.get_many(keys).await
    }

    async fn list(&self, request: ListRequest) -> Result<Page, MetaStoreError> {
        self.before_read().await?;
        self.inner.list(request).await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, MetaStoreError> {
        tokio::task::yield_now().await;
        match self.next_fault() {
            None => self.inner.transact(transaction).await,
            Some(Fault::NotApplied) => Err(MetaStoreError::new(ErrorKind::Unavailable, "refused on purpose")),
            Some(Fault::UnknownApplied) => {
                let _: Outcome = self.inner.transact(transaction).await?;
                Err(unknown())
            }
            Some(Fault::UnknownNotApplied) => Err(unknown()),
            Some(Fault::UnknownLate { reads }) => {
                self.plan.lock().late.push((reads, transaction));
                Err(unknown())
            }
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<EventStream, MetaStoreError> {
        let mut breaks = self.breaks.subscribe();
        let broken = stream::once(async move {
            // An error means that the store is gone, which breaks watches too.
            drop(breaks.changed().await);
            Err(MetaStoreError::new(ErrorKind::Unavailable, "the watch breaks on purpose"))
        });
        let events = self.inner.watch(prefix, from).await?;
        let mut failed = false;
        let both = stream::select(broken.boxed(), events);
        Ok(both.take_while(move |step| std::future::ready(!std::mem::replace(&mut failed, step.is_err()))).boxed())
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, MetaStoreError> {
        self.inner.grant(time_to_live).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        self.inner.revoke(lease).await
    }
}
