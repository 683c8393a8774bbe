//! Follows the tails of the partitions that somebody reads: one subscription each, however many read.
//!
//! Bounds: a ring holds at most its share; together the rings hold at most their total, beyond which the ring that
//! grows gives way. A partition that nobody has read for a while is not followed any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Backoff, Random, Shutdown, Tasks};
use bmq_proto::broker::{TailEvent, TailStream};
use bmq_proto::{ErrorCode, Offset, ServiceError, TopicPartition};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::tail::{Readable, Tail, TailError};
use crate::config::FetchConfig;
use crate::directory::{Directory, Route};
use crate::metrics::ProxyMetrics;

/// All followed tails.
pub struct Tails {
    directory: Arc<Directory>,
    config: FetchConfig,
    random: Random,
    tasks: Tasks,
    metrics: ProxyMetrics,
    table: Mutex<HashMap<TopicPartition, Arc<Followed>>>,
    held_bytes: AtomicUsize,
}

/// One followed tail.
struct Followed {
    tail: Mutex<Tail>,
    readers: AtomicUsize,
    /// Rings when the last reader leaves.
    deserted: Notify,
}

/// A reader's hold on a followed tail.
pub struct TailReader {
    tails: Arc<Tails>,
    followed: Arc<Followed>,
}

impl Tails {
    pub fn new(
        directory: Arc<Directory>,
        config: FetchConfig,
        random: Random,
        tasks: Tasks,
        metrics: ProxyMetrics,
    ) -> Self {
        let (table, held_bytes) = (Mutex::default(), AtomicUsize::new(0));
        Self { directory, config, random, tasks, metrics, table, held_bytes }
    }

    /// Looks at a tail, if it is followed.
    pub fn look<T>(&self, partition: TopicPartition, look: impl FnOnce(&Tail) -> T) -> Option<T> {
        let followed = self.table.lock().get(&partition).cloned()?;
        let tail = followed.tail.lock();
        Some(look(&tail))
    }

    /// Has the tail followed, from `offset` on if it is not followed already, as long as the answer is held.
    pub fn join(self: &Arc<Self>, partition: TopicPartition, offset: Offset) -> TailReader {
        let mut table = self.table.lock();
        let followed = table.entry(partition).or_insert_with(|| {
            let followed = Arc::new(Followed {
                tail: Mutex::new(Tail::new(offset)),
                readers: AtomicUsize::new(0),
                deserted: Notify::new(),
            });
            let follower = Follower { tails: Arc::clone(self), partition, followed: Arc::clone(&followed) };
            let shutdown = self.tasks.shutdown().clone();
            self.tasks.spawn("tail follower", follower.run(shutdown));
            followed
        });
        followed.readers.fetch_add(1, Ordering::AcqRel);
        TailReader { tails: Arc::clone(self), followed: Arc::clone(followed) }
    }

    /// Takes in an event; keeps the ring and all rings together within their bounds.
    fn apply(&self, followed: &Followed, event: TailEvent) -> Result<(), TailError> {
        let mut tail = followed.tail.lock();
        let before = tail.held();
        let applied = tail.apply(event, self.config.ring_bytes.0 as usize);
        self.account(before, tail.held());
        let over = self.held_bytes.load(Ordering::Acquire).saturating_sub(self.config.ring_total_bytes.0 as usize);
        if over > 0 {
            let before = tail.held();
            tail.shrink_to(before.saturating_sub(over));
            self.account(before, tail.held());
        }
        applied
    }

    fn account(&self, before: usize, after: usize) {
        self.held_bytes.fetch_add(after, Ordering::AcqRel);
        let held = self.held_bytes.fetch_sub(before, Ordering::AcqRel) - before;
        self.metrics.ring_bytes_are(held);
    }
}

impl TailReader {
    /// Waits until `min_bytes` can be read at `offset`, or the reader must look elsewhere, or until `deadline`.
    /// Returns whether it was woken.
    pub async fn wait(&self, offset: Offset, min_bytes: u64, deadline: Option<Instant>) -> bool {
        let (number, woken) = match self.followed.tail.lock().wait(offset, min_bytes) {
            Readable::Now => return true,
            Readable::Later(number, woken) => (number, woken),
        };
        let _level = self.tails.metrics.reader_parked();
        let _waiting = WaitGuard { followed: &self.followed, number };
        match deadline {
            // An error means that the follower has ended, which is a reason to look elsewhere too.
            Some(deadline) => tokio::time::timeout_at(deadline, woken).await.is_ok(),
            None => {
                let _ = woken.await;
                true
            }
        }
    }
}

struct WaitGuard<'a> {
    followed: &'a Followed,
    number: u64,
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.followed.tail.lock().leave(self.number);
    }
}

impl Drop for TailReader {
    fn drop(&mut self) {
        if self.followed.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.followed.deserted.notify_one();
        }
    }
}

/// The task behind one followed tail.
struct Follower {
    tails: Arc<Tails>,
    partition: TopicPartition,
    followed: Arc<Followed>,
}

impl Follower {
    async fn run(self, shutdown: Shutdown) {
        let _level = self.tails.metrics.partition_followed();
        tokio::select! {
            () = shutdown.begun() => self.forget(),
            () = self.until_deserted() => {}
            () = self.follow_for_ever() => {}
        }
        let mut tail = self.followed.tail.lock();
        self.tails.account(tail.held(), 0);
        tail.close();
    }

    fn forget(&self) {
        self.tails.table.lock().remove(&self.partition);
    }

    /// Returns when nobody has read for long enough; the tail cannot be joined any more then.
    async fn until_deserted(&self) {
        loop {
            self.followed.deserted.notified().await;
            tokio::time::sleep(self.tails.config.ring_ttl.get()).await;
            let mut table = self.tails.table.lock();
            if self.followed.readers.load(Ordering::Acquire) == 0 {
                table.remove(&self.partition);
                return;
            }
        }
    }

    /// Subscribes at each owner there is. Returns when the topic is gone.
    async fn follow_for_ever(&self) {
        let mut route = self.tails.directory.route(self.partition);
        let config = &self.tails.config;
        let mut backoff = Backoff::new(config.retry_first.get(), config.retry_max.get());
        loop {
            let found = route.wait_for(|route| route.topic_gone || route.owner.is_some()).await;
            let Ok(current) = found.map(|route| route.clone()) else {
                return self.forget();
            };
            if current.topic_gone {
                return self.forget();
            }
            let ended = self.follow(&current, &mut route, &mut backoff).await;
            let tried_long_enough = tokio::time::sleep(backoff.next(&self.tails.random));
            match ended {
                Ended::RouteChanged => {}
                Ended::Failed(error) => {
                    debug!(partition = %self.partition, %error, "the tail subscription ended");
                    // A newer owner is worth a try at once.
                    let epoch = current.epoch;
                    tokio::select! {
                        () = tried_long_enough => {}
                        _ = route.wait_for(|route| route.topic_gone || route.epoch > epoch) => {}
                    }
                }
                Ended::Broken(error) => {
                    warn!(partition = %self.partition, error = %chain(&error), "the tail cannot be used, starting anew");
                    tried_long_enough.await;
                }
            }
        }
    }

    async fn follow(&self, current: &Route, route: &mut watch::Receiver<Route>, backoff: &mut Backoff) -> Ended {
        let from = self.followed.tail.lock().begin(current.epoch, current.epoch_start);
        let mut stream = match self.subscribe(current, from).await {
            Ok(stream) => stream,
            Err(error) => {
                if error.code == ErrorCode::OutOfRange {
                    self.start_where_the_owner_is(current).await;
                }
                return Ended::Failed(error);
            }
        };
        let epoch = current.epoch;
        let ended = loop {
            tokio::select! {
                told = stream.next() => match told {
                    Some(Ok(event)) => {
                        if let Err(error) = self.tails.apply(&self.followed, event) {
                            break Ended::Broken(error);
                        }
                        backoff.reset();
                    }
                    Some(Err(error)) => break Ended::Failed(error),
                    None => break Ended::Failed(ServiceError::not_applied(ErrorCode::Unavailable, "the stream ended")),
                },
                _ = route.wait_for(|route| route.topic_gone || route.epoch > epoch) => break Ended::RouteChanged,
            }
        };
        self.end_subscription(matches!(ended, Ended::Broken(_)));
        ended
    }

    fn end_subscription(&self, broken: bool) {
        let mut tail = self.followed.tail.lock();
        let before = tail.held();
        tail.end(broken);
        self.tails.account(before, tail.held());
    }

    async fn subscribe(&self, current: &Route, from: Offset) -> Result<TailStream, ServiceError> {
        let owner = current.owner.as_ref().expect("the route was chosen for its owner");
        let call = owner.service.follow(self.partition, current.epoch, from);
        match with_deadline("the broker", self.deadline(), call).await {
            Ok(result) => result,
            Err(late) => Err(ServiceError::not_applied(ErrorCode::Timeout, late.to_string())),
        }
    }

    /// The owner cannot tell from where the ring ends: readers below its log start or above its high watermark look
    /// for themselves, and the ring begins at the high watermark.
    async fn start_where_the_owner_is(&self, current: &Route) {
        let owner = current.owner.as_ref().expect("the route was chosen for its owner");
        let Ok(Ok(bounds)) = with_deadline("the broker", self.deadline(), owner.service.bounds(self.partition)).await
        else {
            return;
        };
        let mut tail = self.followed.tail.lock();
        let before = tail.held();
        tail.restart_at(bounds.high_watermark);
        self.tails.account(before, tail.held());
        tail.wake_all();
    }

    fn deadline(&self) -> Duration {
        self.tails.config.call_timeout.get()
    }
}

enum Ended {
    RouteChanged,
    Failed(ServiceError),
    Broken(TailError),
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
