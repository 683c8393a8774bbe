//! Commands to the metadata service, one at a time and in order.
//!
//! A command whose outcome is unknown is sent again with its nonce until it is known: the service applies it once.

use std::collections::VecDeque;
use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{PartitionCommand, PartitionCommandKind, PartitionView};
use bmq_proto::{ErrorCode, ServiceError, TopicPartition};

use super::{Action, Nonces, Now};

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct CommandLane {
    queue: VecDeque<PartitionCommandKind>,
    sent: Option<Sent>,
}

#[derive(Debug)]
struct Sent {
    command: PartitionCommand,
    /// The wait after the next failure.
    backoff: Duration,
    /// Set while the command waits to be sent again.
    retry_at: Option<Monotonic>,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing yet, or the answer of a try that is no longer asked about.
    Pending,
    Applied(PartitionCommandKind, PartitionView),
    /// Another owner has the partition, or it is gone.
    Lost(ServiceError),
    /// The service says that the command does not fit its records.
    Refused(PartitionCommandKind, ServiceError),
}

impl CommandLane {
    pub fn submit(&mut self, kind: PartitionCommandKind) {
        self.queue.push_back(kind);
    }

    /// Whether a command of this name waits or is on its way.
    pub fn has(&self, name: &str) -> bool {
        let sent = self.sent.as_ref().map(|sent| sent.command.kind.name());
        sent == Some(name) || self.queue.iter().any(|kind| kind.name() == name)
    }

    pub fn is_empty(&self) -> bool {
        self.sent.is_none() && self.queue.is_empty()
    }

    pub fn retry_at(&self) -> Option<Monotonic> {
        self.sent.as_ref().and_then(|sent| sent.retry_at)
    }

    /// Drops what was not sent.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.sent = None;
    }

    /// Sends the next command, or again the one whose time has come.
    pub fn pump(&mut self, partition: TopicPartition, nonces: &mut Nonces, now: Now, out: &mut Vec<Action>) {
        if let Some(sent) = &mut self.sent {
            if sent.retry_at.is_some_and(|at| at <= now.monotonic) {
                sent.retry_at = None;
                out.push(Action::Command(sent.command.clone()));
            }
            return;
        }
        let Some(kind) = self.queue.pop_front() else { return };
        let command = PartitionCommand { partition, nonce: nonces.next(), now_ms: now.wall.0, kind };
        out.push(Action::Command(command.clone()));
        self.sent = Some(Sent { command, backoff: FIRST_RETRY, retry_at: None });
    }

    pub fn finish(&mut self, nonce: u64, result: Result<PartitionView, ServiceError>, now: Now) -> Outcome {
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.command.nonce == nonce) else {
            return Outcome::Pending;
        };
        match result {
            Ok(view) => {
                let sent = self.sent.take().expect("it was just looked at");
                Outcome::Applied(sent.command.kind, view)
            }
            Err(error) if is_loss(error.code) => Outcome::Lost(error),
            Err(error) if error.is_retriable() || error.happened == bmq_proto::Happened::Unknown => {
                sent.retry_at = Some(now.monotonic + sent.backoff);
                sent.backoff = (sent.backoff * 2).min(LONGEST_RETRY);
                Outcome::Pending
            }
            Err(error) => {
                let sent = self.sent.take().expect("it was just looked at");
                Outcome::Refused(sent.command.kind, error)
            }
        }
    }
}

/// Answers after which the partition is no longer ours, whatever else they say.
fn is_loss(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Fenced | ErrorCode::NotOwner | ErrorCode::UnknownTopic | ErrorCode::UnknownPartition)
}
