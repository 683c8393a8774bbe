//! One stream of appends from a proxy: check each batch, pass it to its partition, gather the answers.
//!
//! Order: items of a lane are refused after the first refusal until a higher generation comes. Inside a partition the
//! partition's own task sees to that; here only for items of partitions that do not run on this broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::clock::{Monotonic, SharedClock};
use bmq_common::shutdown::Shutdown;
use bmq_partition::append::not_owner;
use bmq_partition::{AppendMail, Lane, ReplySink, ValidatedBatch};
use bmq_proto::broker::{AppendAnswer, AppendItem};
use bmq_proto::{ErrorCode, ServiceError, TopicPartition};
use futures::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::hosting::Hosting;

/// Answers sent in one message.
const ANSWERS_AT_ONCE: usize = 256;
/// One permit stands for so many bytes of a batch, and each batch costs at least one.
const PERMIT_BYTES: usize = 256;
/// Refusals remembered; older than the second they belong to requests that nobody waits for any more.
const MAX_BLOCKED: usize = 16 * 1024;
const BLOCKED_FOR: Duration = Duration::from_secs(120);

/// An answer, and the room in the stream's buffer that it frees when it is taken.
type HeldAnswer = (AppendAnswer, OwnedSemaphorePermit);

pub struct AppendStreamTask {
    pub stream: u64,
    pub hosting: Hosting,
    pub clock: SharedClock,
    pub room: Arc<Semaphore>,
    pub permits: usize,
    pub answers: mpsc::UnboundedSender<HeldAnswer>,
    pub blocked: HashMap<(u64, TopicPartition), (u32, Monotonic)>,
}

/// How many permits a buffer of so many bytes has.
pub fn permits_of(bytes: u64) -> usize {
    (bytes as usize / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)
}

/// The answers as a stream. It is bounded by the permits that its elements hold.
pub fn answer_stream(answers: mpsc::UnboundedReceiver<HeldAnswer>) -> BoxStream<'static, Vec<AppendAnswer>> {
    Box::pin(futures::stream::unfold(answers, |mut answers| async move {
        let mut taken = Vec::new();
        if answers.recv_many(&mut taken, ANSWERS_AT_ONCE).await == 0 {
            return None;
        }
        Some((taken.into_iter().map(|(answer, _)| answer).collect(), answers))
    }))
}

impl AppendStreamTask {
    pub async fn run(mut self, mut items: mpsc::Receiver<Vec<AppendItem>>, shutdown: Shutdown) {
        loop {
            let next = tokio::select! {
                next = items.recv() => next,
                () = shutdown.begun() => None,
            };
            let Some(next) = next else { break };
            for item in next {
                self.take(item).await;
            }
        }
        for partition in self.hosting.all() {
            partition.stream_gone(self.stream).await;
        }
    }

    async fn take(&mut self, item: AppendItem) {
        let wanted = (item.batch.len() / PERMIT_BYTES + 1).min(self.permits);
        let permit = self.room.clone().acquire_many_owned(wanted as u32).await.expect("the room is never closed");
        let answers = self.answers.clone();
        let id = item.id;
        let reply: ReplySink = Box::new(move |result| {
            // Nobody listens any more if the stream is gone.
            let _ = answers.send((AppendAnswer { id, result }, permit));
        });
        let Some(partition) = self.hosting.find(item.partition) else {
            return reply(Err(self.refuse_unknown(&item)));
        };
        if let Err(error) = self.check_turn(&item) {
            return reply(Err(error));
        }
        let mail = AppendMail {
            lane: Lane { stream: self.stream, channel: item.channel },
            generation: item.generation,
            epoch: item.epoch,
            ack: item.ack,
            batch: ValidatedBatch::check(item.batch, partition.max_batch_bytes()),
            reply,
        };
        partition.append(mail).await;
    }

    fn refuse_unknown(&mut self, item: &AppendItem) -> ServiceError {
        let now = self.clock.now();
        if self.blocked.len() >= MAX_BLOCKED {
            self.blocked.retain(|_, (_, at)| now.saturating_since(*at) < BLOCKED_FOR);
        }
        self.blocked.insert((item.channel, item.partition), (item.generation, now));
        not_owner("the partition does not run on this broker")
    }

    fn check_turn(&mut self, item: &AppendItem) -> Result<(), ServiceError> {
        let lane = (item.channel, item.partition);
        match self.blocked.get(&lane) {
            Some((generation, _)) if item.generation <= *generation => {
                let message = format!("an earlier batch of generation {generation} was refused");
                Err(ServiceError::not_applied(ErrorCode::OutOfTurn, message))
            }
            Some(_) => {
                self.blocked.remove(&lane);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
