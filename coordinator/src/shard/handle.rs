//! What the service holds of a shard.

use bmq_proto::{ErrorCode, ServiceError};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Request, Response};

/// Where an answer goes.
pub type Caller = oneshot::Sender<Result<Response, ServiceError>>;

/// How far a shard has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardStatus {
    /// Being claimed, recovered or loaded.
    Loading,
    Serving,
    /// What is stored makes no sense: a person must look.
    Broken(String),
    Ended,
}

/// A running shard. Clones are the same shard.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    pub(super) mail: mpsc::Sender<(Request, Caller)>,
    pub(super) status: watch::Receiver<ShardStatus>,
}

impl ShardHandle {
    /// Asks, and waits for the answer. `Unavailable` while the shard is being loaded; `NotOwner` once it is not here
    /// any more.
    pub async fn ask(&self, request: Request) -> Result<Response, ServiceError> {
        match &*self.status.borrow() {
            ShardStatus::Serving => {}
            ShardStatus::Loading => return Err(refusal(ErrorCode::Unavailable, "the shard is being loaded")),
            ShardStatus::Broken(reason) => return Err(refusal(ErrorCode::Damaged, reason)),
            ShardStatus::Ended => return Err(refusal(ErrorCode::NotOwner, "the shard does not run here any more")),
        }
        let (caller, answer) = oneshot::channel();
        if self.mail.send((request, caller)).await.is_err() {
            return Err(refusal(ErrorCode::NotOwner, "the shard does not run here any more"));
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// How far it has come, to look at or to wait on.
    pub fn status(&self) -> watch::Receiver<ShardStatus> {
        self.status.clone()
    }
}

fn refusal(code: ErrorCode, message: &str) -> ServiceError {
    ServiceError::not_applied(code, message)
}

/// What callers hear whose request was taken and not answered.
pub(super) fn ended() -> ServiceError {
    ServiceError::unknown(ErrorCode::NotOwner, "the shard was given up before this was answered")
}
