//! Keeps the directory's watch open.

use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Backoff, Shutdown};
use bmq_proto::meta::{WatchEvent, WatchScope};
use bmq_proto::{ErrorCode, ServiceError};
use futures::StreamExt;
use tracing::{info, warn};

use super::Directory;
use super::state::Named;

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

impl Directory {
    /// Follows the metadata until the shutdown. The directory is ready from its first whole snapshot on, and stays so:
    /// while the watch is broken, what is known still serves.
    pub async fn run(&self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let error = tokio::select! {
                () = shutdown.begun() => return,
                error = self.follow(&mut backoff) => error,
            };
            warn!(%error, "the metadata watch ended, opening another");
            self.metrics.watch_restarted();
            tokio::select! {
                () = shutdown.begun() => return,
                () = tokio::time::sleep(backoff.next(&self.random)) => {}
            }
        }
    }

    /// Follows one watch to its end.
    async fn follow(&self, backoff: &mut Backoff) -> ServiceError {
        let scope = WatchScope { topics: true, sessions: true, intents: false, heads: true };
        let mut watch = match with_deadline("the metadata watch", self.deadline, self.meta.watch(scope)).await {
            Ok(Ok(watch)) => watch,
            Ok(Err(error)) => return error,
            Err(late) => return ServiceError::not_applied(ErrorCode::Unavailable, late.to_string()),
        };
        // Until `Synced`, what the snapshot named.
        let mut snapshot = None;
        loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Reset)) => {
                    snapshot = Some(Named::default());
                    self.state.write().begin_snapshot();
                }
                Some(Ok(WatchEvent::Change(change))) => {
                    if let Some(named) = &mut snapshot {
                        named.add(&change);
                    }
                    self.state.write().apply(change);
                }
                Some(Ok(WatchEvent::Synced)) => {
                    let Some(named) = snapshot.take() else {
                        return ServiceError::not_applied(ErrorCode::Internal, "the watch was synced without a reset");
                    };
                    self.state.write().retain(&named);
                    self.ready.set(true, "");
                    backoff.reset();
                    info!("metadata is in sync");
                }
                Some(Err(error)) => return error,
                None => return ServiceError::not_applied(ErrorCode::Unavailable, "the metadata watch closed"),
            }
        }
    }
}
