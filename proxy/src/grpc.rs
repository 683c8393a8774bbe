//! The public gRPC API, `bmq.v1`.

mod admin;
mod credit;
mod fetch;
mod messaging;
mod pack;
mod poll;
mod produce;
mod send;

pub use admin::AdminApi;
pub use messaging::MessagingApi;

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Random, SharedClock, Shutdown, Tasks};
use bmq_proto::meta::MetaService;
use bmq_proto::{ErrorCode, ServiceError};
use tokio::sync::Semaphore;

use crate::append::Appends;
use crate::config::ProxyConfig;
use crate::directory::Directory;
use crate::fetch::Fetcher;
use crate::metrics::ProxyMetrics;
use crate::producer_ids::ProducerIds;

/// What every call needs.
pub struct Api {
    pub config: ProxyConfig,
    pub meta: Arc<dyn MetaService>,
    pub directory: Arc<Directory>,
    pub appends: Arc<Appends>,
    pub fetcher: Arc<Fetcher>,
    pub producer_ids: ProducerIds,
    /// Bytes of batches unanswered, of all connections together.
    pub produce_budget: Arc<Semaphore>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: ProxyMetrics,
    /// The tasks behind streams of clients.
    pub streams: Tasks,
}

impl Api {
    fn shutdown(&self) -> &Shutdown {
        self.streams.shutdown()
    }

    /// Calls the metadata service, and waits for it no longer than allowed.
    async fn ask_meta<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
        let deadline: Duration = self.config.metadata_timeout.get();
        let late = |_| ServiceError::unknown(ErrorCode::Timeout, "the metadata service did not answer in time");
        tokio::time::timeout(deadline, call).await.map_err(late)?
    }
}

fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::not_applied(ErrorCode::InvalidArgument, message)
}

fn shutting_down() -> ServiceError {
    ServiceError::not_applied(ErrorCode::Unavailable, "the proxy is shutting down, connect to another")
}

/// What a stream's connection says when it breaks. The client has gone, so this is told to nobody but the log.
fn broken_stream(status: &tonic::Status) -> ServiceError {
    bmq_proto::rpc::status::from_status(status)
}
