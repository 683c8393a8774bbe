//! A layer over any store that goes wrong as told: by a script, or at random from a seed.
//!
//! A fault of [`Operation::Sync`] is drawn at an append and strikes what that append brought: the writer then hangs,
//! breaks or lags as its progress shows it, which is how a real store's trouble reaches a partition.

mod plan;
mod writer;

use std::future;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bmq_common::Random;
use bmq_proto::{BytePosition, ClusterId, TopicId};
use bytes::{Bytes, BytesMut};

pub use plan::{Fault, Operation};

use self::plan::FaultPlan;
use self::writer::FaultyWriter;
use crate::{
    FenceOutcome, FolderPath, FoundFile, SegmentPath, SegmentStore, SegmentWriter, StoreError, StoreProperties,
};

/// A store with faults. Clones are handles to the same store and the same plan.
pub struct FaultyStore<S> {
    inner: Arc<S>,
    plan: Arc<FaultPlan>,
}

impl<S> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), plan: self.plan.clone() }
    }
}

impl<S: SegmentStore> FaultyStore<S> {
    /// Over `inner`, without faults so far.
    pub fn new(inner: S) -> Self {
        Self { inner: Arc::new(inner), plan: Arc::default() }
    }

    /// The store below, without faults.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Has `fault` strike once, after `skip` more operations of the kind went well.
    pub fn inject(&self, operation: Operation, skip: usize, fault: Fault) {
        self.plan.inject(operation, skip, fault);
    }

    /// Has `fault` strike in `chance.0` of `chance.1` operations of the kind, from now on.
    pub fn inject_at_random(&self, random: &Random, operation: Operation, chance: (u64, u64), fault: Fault) {
        self.plan.inject_at_random(random.clone(), operation, chance, fault);
    }

    /// Ends all faults that have not struck yet.
    pub fn heal(&self) {
        self.plan.heal();
    }

    /// How many faults struck operations of the kind.
    pub fn struck(&self, operation: Operation) -> u64 {
        self.plan.struck(operation)
    }

    async fn run<T>(
        &self,
        operation: Operation,
        path: String,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        suffer(self.plan.draw(operation), operation, path, work).await
    }

    /// As `run`; `Damage` flips a bit of what was read.
    async fn run_read(
        &self,
        operation: Operation,
        path: String,
        work: impl Future<Output = Result<Bytes, StoreError>>,
    ) -> Result<Bytes, StoreError> {
        match self.plan.draw(operation) {
            Some(Fault::Damage) => work.await.map(|bytes| flip_a_bit(&bytes)),
            fault => suffer(fault, operation, path, work).await,
        }
    }
}

/// Does `work` as the fault lets it.
async fn suffer<T>(
    fault: Option<Fault>,
    operation: Operation,
    path: String,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match fault {
        None | Some(Fault::Damage) => work.await,
        Some(Fault::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            work.await
        }
        Some(Fault::Fail) => Err(failure(path, operation)),
        Some(Fault::NoSpace) => Err(StoreError::NoSpace { path, source: io::ErrorKind::StorageFull.into() }),
        Some(Fault::FailAfter) => {
            work.await?;
            Err(failure(path, operation))
        }
        Some(Fault::Hang) => future::pending().await,
        Some(Fault::HangAfter) => {
            work.await?;
            future::pending().await
        }
    }
}

/// What a fault answers.
fn failure(path: String, operation: Operation) -> StoreError {
    let source = Box::new(io::Error::other("a fault was injected"));
    StoreError::Failed { path, operation: operation.name(), source }
}

fn flip_a_bit(bytes: &Bytes) -> Bytes {
    let mut damaged = BytesMut::from(&bytes[..]);
    let middle = damaged.len() / 2;
    if let Some(byte) = damaged.get_mut(middle) {
        *byte ^= 1;
    }
    damaged.freeze()
}

#[async_trait]
impl<S: SegmentStore> SegmentStore for FaultyStore<S> {
    fn properties(&self) -> StoreProperties {
        self.inner.properties()
    }

    async fn create(&self, path: SegmentPath, header: Bytes) -> Result<Arc<dyn SegmentWriter>, StoreError> {
        let writer = self.run(Operation::Create, path.to_string(), self.inner.create(path, header)).await?;
        Ok(Arc::new(FaultyWriter::start(path, writer, self.plan.clone())))
    }

    async fn fence(&self, path: SegmentPath) -> Result<FenceOutcome, StoreError> {
        self.run(Operation::Fence, path.to_string(), self.inner.fence(path)).await
    }

    async fn recover(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        self.run(Operation::Recover, path.to_string(), self.inner.recover(path)).await
    }

    async fn read(&self, path: SegmentPath, start: BytePosition, end: BytePosition) -> Result<Bytes, StoreError> {
        self.run_read(Operation::Read, path.to_string(), self.inner.read(path, start, end)).await
    }

    async fn length(&self, path: SegmentPath) -> Result<BytePosition, StoreError> {
        self.run(Operation::Length, path.to_string(), self.inner.length(path)).await
    }

    async fn write_index(&self, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
        self.run(Operation::WriteIndex, path.index_path(), self.inner.write_index(path, content)).await
    }

    async fn read_index(&self, path: SegmentPath) -> Result<Bytes, StoreError> {
        self.run_read(Operation::ReadIndex, path.index_path(), self.inner.read_index(path)).await
    }

    async fn list(&self, folder: FolderPath) -> Result<Vec<FoundFile>, StoreError> {
        self.run(Operation::List, folder.to_string(), self.inner.list(folder)).await
    }

    async fn delete(&self, path: SegmentPath) -> Result<(), StoreError> {
        self.run(Operation::Delete, path.to_string(), self.inner.delete(path)).await
    }

    async fn delete_topic(&self, cluster: ClusterId, topic: TopicId) -> Result<(), StoreError> {
        let name = format!("{cluster}/{topic}");
        self.run(Operation::Delete, name, self.inner.delete_topic(cluster, topic)).await
    }
}
