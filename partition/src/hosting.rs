//! The partitions that run on this node: started and released as the controller's intent says.
//!
//! Brokers and coordinators host partitions alike; which topics belong to which kind stands in the topics' records.

mod assignment;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::SharedClock;
use bmq_common::readiness::ReadyFlag;
use bmq_common::retry::Backoff;
use bmq_common::shutdown::Shutdown;
use bmq_common::tasks::Tasks;
use bmq_proto::meta::{MetaService, NodeKind, TopicRecord, WatchScope, WatchStream};
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::{TopicId, TopicPartition};
use futures::StreamExt;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use self::assignment::{Assignment, Step};
use crate::config::PartitionConfig;
use crate::driver::PartitionContext;
use crate::handle::PartitionHandle;
use crate::machine::StopReason;

/// The running partitions, shared by the task that starts them and the service that looks them up.
#[derive(Clone, Default)]
pub struct Hosting {
    partitions: Arc<RwLock<HashMap<TopicPartition, PartitionHandle>>>,
}

impl Hosting {
    pub fn find(&self, partition: TopicPartition) -> Option<PartitionHandle> {
        self.partitions.read().get(&partition).cloned()
    }

    pub fn all(&self) -> Vec<PartitionHandle> {
        self.partitions.read().values().cloned().collect()
    }

    pub fn hosts_topic(&self, topic: TopicId) -> bool {
        self.partitions.read().keys().any(|partition| partition.topic == topic)
    }

    /// Releases everything at once; returns when all have ended.
    pub async fn release_all(&self, close_wait: Duration) {
        let handles = self.all();
        futures::future::join_all(handles.iter().map(|handle| handle.release(close_wait))).await;
    }
}

/// What a [`Reconciler`] works with.
pub struct ReconcilerSetup {
    /// The kind of node that this is.
    pub kind: NodeKind,
    /// How long a partition that shall come here waits for a living owner to release it.
    pub handover_wait: Duration,
    pub hosting: Hosting,
    pub context: PartitionContext,
    pub config: PartitionConfig,
    pub tasks: Tasks,
    pub ready: ReadyFlag,
    /// Told of each partition that is started, for a service that does something with it by itself.
    pub started: Option<mpsc::UnboundedSender<(TopicPartition, PartitionHandle)>>,
}

/// Follows metadata and keeps the hosted partitions in line with it.
pub struct Reconciler {
    assignment: Assignment,
    setup: ReconcilerSetup,
}

/// How long a partition that ended unexpectedly waits before it is claimed again.
fn rest_after(reason: &StopReason) -> Duration {
    match reason {
        StopReason::Released => Duration::ZERO,
        StopReason::Superseded(_) => Duration::from_millis(200),
        StopReason::Refused { .. } => Duration::from_secs(1),
        // Metadata that is an old copy does not mend itself.
        StopReason::OldMetadata { .. } => Duration::from_secs(60),
    }
}

impl Reconciler {
    pub fn new(setup: ReconcilerSetup) -> Self {
        Self { assignment: Assignment::new(setup.kind, setup.context.me, setup.handover_wait), setup }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = self.reconcile_for_ever() => {}
        }
    }

    async fn reconcile_for_ever(&mut self) {
        let meta: Arc<dyn MetaService> = self.setup.context.meta.clone();
        let clock: SharedClock = self.setup.context.clock.clone();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let (ended_sender, mut ended) = mpsc::unbounded_channel();
        let mut watch: Option<WatchStream> = None;
        loop {
            if watch.is_none() {
                watch = open_watch(meta.as_ref(), &mut backoff, &self.setup.context).await;
            }
            let Some(stream) = watch.as_mut() else { continue };
            let deadline = self.assignment.next_deadline();
            let wait = async {
                match deadline {
                    Some(at) => tokio::time::sleep(at.saturating_since(clock.now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = stream.next() => match event {
                    Some(Ok(event)) => self.assignment.learn(event),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "the watch of metadata ended, opening another");
                        watch = None;
                    }
                    None => watch = None,
                },
                Some((partition, reason)) = ended.recv() => self.note_end(partition, &reason),
                () = wait => {}
            }
            if self.assignment.is_synced() {
                self.setup.ready.set(true, "");
            }
            for step in self.assignment.reconcile(clock.now()) {
                self.take_step(step, &ended_sender);
            }
        }
    }

    fn note_end(&mut self, partition: TopicPartition, reason: &StopReason) {
        self.setup.hosting.partitions.write().remove(&partition);
        self.assignment.ended(partition, rest_after(reason), self.setup.context.clock.now());
    }

    fn take_step(&mut self, step: Step, ended: &mpsc::UnboundedSender<(TopicPartition, StopReason)>) {
        match step {
            Step::Start(partition, topic) => self.start(partition, &topic, ended.clone()),
            Step::Reconfigure(partition, topic) => {
                if let Some(handle) = self.setup.hosting.find(partition) {
                    tracing::info!(%partition, topic = topic.name, "settings changed");
                    handle.reconfigure(self.config_of(&topic));
                }
            }
            Step::Release(partition) => {
                if let Some(handle) = self.setup.hosting.find(partition) {
                    tracing::info!(%partition, "releasing");
                    self.setup.tasks.spawn("partition release", async move {
                        handle.release(Duration::ZERO).await;
                    });
                }
            }
        }
    }

    fn config_of(&self, topic: &TopicRecord) -> PartitionConfig {
        // What an internal topic keeps is the affair of the service that owns it.
        if topic.is_internal() {
            return self.setup.config.clone();
        }
        match TopicSettings::parse(&topic.config) {
            Ok(settings) => self.setup.config.for_topic(&settings),
            Err(error) => {
                // From a newer version. Nothing is dropped by rules that are not understood.
                tracing::error!(topic = topic.name, %error, "the topic's settings cannot be read, the node's are used");
                self.setup.config.clone()
            }
        }
    }

    fn start(
        &mut self,
        partition: TopicPartition,
        topic: &TopicRecord,
        ended: mpsc::UnboundedSender<(TopicPartition, StopReason)>,
    ) {
        tracing::info!(%partition, topic = topic.name, "claiming");
        let config = self.config_of(topic);
        let (handle, task) = crate::driver::open(self.setup.context.clone(), partition, config);
        self.setup.hosting.partitions.write().insert(partition, handle.clone());
        if let Some(started) = &self.setup.started {
            // The receiver is gone only when the node stops.
            let _ = started.send((partition, handle));
        }
        self.setup.tasks.spawn("partition", async move {
            let reason = task.await;
            // The receiver is gone only when the node stops.
            let _ = ended.send((partition, reason));
        });
    }
}

async fn open_watch(meta: &dyn MetaService, backoff: &mut Backoff, context: &PartitionContext) -> Option<WatchStream> {
    let scope = WatchScope { topics: true, sessions: true, intents: true, heads: true };
    match meta.watch(scope).await {
        Ok(stream) => {
            backoff.reset();
            Some(stream)
        }
        Err(error) => {
            tracing::warn!(%error, "metadata cannot be watched, trying again");
            tokio::time::sleep(backoff.next(&context.random)).await;
            None
        }
    }
}
