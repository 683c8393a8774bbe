//! What every request needs, over whichever protocol it comes: the proxy's shared parts.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Random, SharedClock, Shutdown, Tasks};
use bmq_proto::meta::MetaService;
use bmq_proto::{ClusterId, ErrorCode, ServiceError};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::append::Appends;
use crate::config::ProxyConfig;
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::groups::Groups;
use crate::kafka;
use crate::metrics::ProxyMetrics;
use crate::producer_ids::ProducerIds;

/// See the head of the file.
pub struct Api {
    pub cluster: ClusterId,
    pub config: ProxyConfig,
    pub meta: Arc<dyn MetaService>,
    pub directory: Arc<Directory>,
    pub appends: Arc<Appends>,
    pub fetcher: Arc<Fetcher>,
    pub groups: Groups,
    pub producer_ids: ProducerIds,
    /// Bytes that clients sent and that are not answered yet, of all connections together.
    pub produce_budget: Arc<Semaphore>,
    pub kafka: kafka::Shared,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: ProxyMetrics,
    /// The tasks behind streams and connections of clients.
    pub streams: Tasks,
}

impl Api {
    pub fn shutdown(&self) -> &Shutdown {
        self.streams.shutdown()
    }

    /// Calls the metadata service, and waits for it no longer than allowed.
    pub async fn ask_meta<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
        let deadline: Duration = self.config.metadata_timeout.get();
        let late = |_| ServiceError::unknown(ErrorCode::Timeout, "the metadata service did not answer in time");
        tokio::time::timeout(deadline, call).await.map_err(late)?
    }
}

/// What a payload costs beside its bytes.
const PAYLOAD_OVERHEAD_BYTES: u64 = 256;

/// A payload and its share of the proxy's budget.
struct Budgeted {
    payload: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

/// Waits until so many bytes fit into what the proxy holds for all clients.
pub async fn budget_share(budget: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let permits = u32::try_from(bytes as u64 + PAYLOAD_OVERHEAD_BYTES).expect("a payload is below the message limit");
    Arc::clone(budget).acquire_many_owned(permits).await.expect("the budget is never closed")
}

/// Ties a payload to its share: it is given back when the last copy of the payload is dropped.
pub fn with_share(payload: Bytes, share: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(Budgeted { payload, _share: share })
}
