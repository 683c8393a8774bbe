//! Runs a shard: waits for its partition, loads the state, and serves until the partition is gone.
//!
//! However it ends, the partition is then released: whoever shall have it claims and loads it anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::SharedClock;
use bmq_common::rng::Random;
use bmq_partition::{PartitionHandle, PartitionStatus};
use bmq_proto::meta::{MetaService, TopicState};
use bmq_proto::{ClusterId, ErrorCode, TopicId, TopicPartition};
use bmq_storage::SegmentStore;
use tokio::sync::{mpsc, watch};

use super::handle::{Caller, ShardHandle, ShardStatus};
use super::load::{LoadError, load};
use super::replay::{NewState, ReplaySizes};
use super::serving::{End, Loaded, Serving};
use super::{Request, ShardState};
use crate::metrics::CoordinatorMetrics;
use crate::topics::TopicView;

/// Requests that may wait.
const MAILBOX: usize = 1024;
/// Before a shard whose store failed is claimed anew, so that a sick store does not see a storm of claims.
const SICK_STORE_REST: Duration = Duration::from_millis(500);

/// Everything that a shard needs around it.
#[derive(Clone)]
pub struct ShardContext {
    pub cluster: ClusterId,
    pub partition: TopicPartition,
    pub meta: Arc<dyn MetaService>,
    pub store: Arc<dyn SegmentStore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: CoordinatorMetrics,
    /// A snapshot is written after this many bytes of records, or more if the state is large.
    pub snapshot_bytes: usize,
    /// Records not stored yet; beyond that requests are told to come again.
    pub buffer_bytes: usize,
}

/// Makes a shard over a partition that was opened: a handle, and the task that must be run for it.
pub fn open<S: ShardState>(
    context: ShardContext,
    partition: PartitionHandle,
    topics: watch::Receiver<Arc<TopicView>>,
    new_state: Arc<NewState<S>>,
) -> (ShardHandle, impl Future<Output = ()> + Send) {
    let (mail, mailbox) = mpsc::channel(MAILBOX);
    let (status, status_receiver) = watch::channel(ShardStatus::Loading);
    let driver = Driver { context, partition, topics, status };
    (ShardHandle { mail, status: status_receiver }, driver.run(mailbox, new_state))
}

struct Driver {
    context: ShardContext,
    partition: PartitionHandle,
    topics: watch::Receiver<Arc<TopicView>>,
    status: watch::Sender<ShardStatus>,
}

impl Driver {
    async fn run<S: ShardState>(self, mailbox: mpsc::Receiver<(Request, Caller)>, new_state: Arc<NewState<S>>) {
        let end = match self.wait_for_partition().await {
            true => self.load_and_serve(mailbox, new_state.as_ref()).await,
            false => End::PartitionGone,
        };
        self.finish(end).await;
    }

    /// Whether the partition has come to serve; it may also end before.
    async fn wait_for_partition(&self) -> bool {
        let mut status = self.partition.status();
        loop {
            let now = status.borrow_and_update().clone();
            match now {
                PartitionStatus::Starting => {}
                PartitionStatus::Serving => break,
                PartitionStatus::Stopped(_) => return false,
                PartitionStatus::Refusing => {
                    let reason = "its partition is damaged, an operator must look at it";
                    self.status.send_replace(ShardStatus::Broken(reason.to_owned()));
                }
            }
            if status.changed().await.is_err() {
                return false;
            }
        }
        self.status.send_replace(ShardStatus::Loading);
        true
    }

    async fn load_and_serve<S: ShardState>(
        &self,
        mailbox: mpsc::Receiver<(Request, Caller)>,
        new_state: &NewState<S>,
    ) -> End {
        let loaded = tokio::select! {
            loaded = self.load(new_state) => loaded,
            () = until_gone(self.partition.status()) => return End::PartitionGone,
        };
        match loaded {
            Ok(loaded) => {
                let (partition, topics) = (self.partition.clone(), self.topics.clone());
                Serving::new(self.context.clone(), partition, topics, loaded).run(mailbox, &self.status).await
            }
            Err(LoadError::Superseded) => End::PartitionGone,
            Err(error @ LoadError::Damaged(_)) => End::Broken(error.to_string()),
        }
    }

    /// The state as it is stored, with what became of its topics meanwhile.
    async fn load<S: ShardState>(&self, new_state: &NewState<S>) -> Result<Loaded<S>, LoadError> {
        let began = self.context.clock.now();
        let bounds = self.partition.tail().bounds();
        let (state, sizes) = load(&self.context, bounds, new_state).await?;
        let in_use = state.topics_in_use();
        let gone = match in_use.is_empty() {
            true => BTreeSet::new(),
            false => certainly_gone(&self.context, in_use).await,
        };
        // Topics that may not be known yet must not be taken for deleted: begin with a complete view.
        let mut topics = self.topics.clone();
        let view = topics.wait_for(|view| view.is_complete()).await.map(|view| view.clone()).unwrap_or_default();
        let took = self.context.clock.now().saturating_since(began);
        self.context.metrics.loaded(took);
        let ReplaySizes { records, snapshot_bytes, since_snapshot } = sizes;
        tracing::info!(partition = %self.context.partition, epoch = bounds.epoch.0, records, snapshot_bytes,
            since_snapshot, took_ms = took.as_millis() as u64, "shard loaded");
        Ok(Loaded { epoch: bounds.epoch, state, sizes, gone, view })
    }

    async fn finish(self, end: End) {
        let partition = self.context.partition;
        match &end {
            End::PartitionGone => tracing::info!(%partition, "shard ended with its partition"),
            End::Superseded(epoch) => tracing::info!(%partition, epoch = epoch.0, "shard was claimed by another"),
            // Such as in a move in good order: the partition takes nothing more before it is released.
            End::AppendFailed(error) if error.code == ErrorCode::NotOwner => {
                tracing::info!(%partition, %error, "the partition was given up under the shard");
            }
            End::AppendFailed(error) => tracing::warn!(%partition, %error, "an append failed, loading the shard anew"),
            End::Unstorable(error) => {
                tracing::error!(%partition, %error, "the groups wanted to store something that nobody could read");
            }
            End::Broken(reason) => {
                tracing::error!(%partition, reason, "shard cannot be loaded");
                self.status.send_replace(ShardStatus::Broken(reason.clone()));
                until_gone(self.partition.status()).await;
            }
        }
        self.status.send_replace(ShardStatus::Ended);
        if let End::AppendFailed(error) = &end
            && matches!(error.code, ErrorCode::Storage | ErrorCode::Busy)
        {
            tokio::time::sleep(SICK_STORE_REST).await;
        }
        // Whoever shall have it claims and loads it anew, here or elsewhere.
        self.partition.release(Duration::ZERO).await;
    }
}

pub(super) fn is_gone(status: &PartitionStatus) -> bool {
    matches!(status, PartitionStatus::Stopped(_))
}

async fn until_gone(mut status: watch::Receiver<PartitionStatus>) {
    // An error means that the partition's task is gone.
    let _ = status.wait_for(is_gone).await;
}

/// Those of the topics that are certainly deleted. A watch may lag behind what was committed; this list is younger than
/// every commit so far.
pub(super) async fn certainly_gone(context: &ShardContext, mut topics: BTreeSet<TopicId>) -> BTreeSet<TopicId> {
    match context.meta.list_topics().await {
        Ok(listed) => {
            for topic in listed.iter().filter(|topic| topic.state == TopicState::Active) {
                topics.remove(&topic.id);
            }
            topics
        }
        Err(error) => {
            // They stay until they expire, or until the next load.
            tracing::info!(%error, "offsets of topics that were deleted meanwhile are not looked for");
            BTreeSet::new()
        }
    }
}
