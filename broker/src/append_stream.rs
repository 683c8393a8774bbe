//! One stream of appends from a proxy: check each batch, pass it to its partition, gather the answers.
//!
//! Order: items of a lane are refused after the first refusal until a higher generation comes. Inside a partition's
//! mailbox its own task sees to that. The gate here covers the rest: partitions that do not run on this broker, and those
//! that ended and came back while items were on their way.

use std::sync::Arc;

use bmq_common::clock::SharedClock;
use bmq_common::shutdown::Shutdown;
use bmq_partition::append::not_owner;
use bmq_partition::{AppendMail, Gate, Hosting, Lane, ReplySink};
use bmq_proto::broker::{AppendAnswer, AppendItem};
use bmq_proto::{Happened, TopicPartition};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Answers sent in one message.
const ANSWERS_AT_ONCE: usize = 256;
/// One permit stands for so many bytes of a batch, and each batch costs at least one.
const PERMIT_BYTES: usize = 256;

/// A client connection and a partition: what keeps its order within a stream.
pub type ChannelPartition = (u64, TopicPartition);

/// An answer, and the room in the stream's buffer that it frees when it is taken.
type HeldAnswer = (AppendAnswer, OwnedSemaphorePermit);

pub struct AppendStreamTask {
    pub stream: u64,
    pub hosting: Hosting,
    pub clock: SharedClock,
    pub room: Arc<Semaphore>,
    pub permits: usize,
    pub answers: mpsc::UnboundedSender<HeldAnswer>,
    pub gate: Arc<Mutex<Gate<ChannelPartition>>>,
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
        let reply = self.reply_sink(&item, permit);
        // A statement of its own: the lock must be free again before the answer, which takes it too.
        let turn = self.gate.lock().check(&(item.channel, item.partition), item.generation);
        if let Err(error) = turn {
            return reply(Err(error));
        }
        let Some(partition) = self.hosting.find(item.partition) else {
            return reply(Err(not_owner("the partition does not run on this broker")));
        };
        let mail = AppendMail {
            lane: Lane { stream: self.stream, channel: item.channel },
            generation: item.generation,
            epoch: item.epoch,
            ack: item.ack,
            batch: partition.check(item.batch, self.clock.wall()),
            reply,
        };
        partition.append(mail).await;
    }

    /// Sends the answer; a refusal closes the gate before anybody learns of it.
    fn reply_sink(&self, item: &AppendItem, permit: OwnedSemaphorePermit) -> ReplySink {
        let (answers, gate, clock) = (self.answers.clone(), self.gate.clone(), self.clock.clone());
        let (id, generation, lane) = (item.id, item.generation, (item.channel, item.partition));
        Box::new(move |result| {
            if result.as_ref().is_err_and(|error| error.happened == Happened::NotApplied) {
                gate.lock().refuse(lane, generation, clock.now());
            }
            // Nobody listens any more if the stream is gone.
            let _ = answers.send((AppendAnswer { id, result }, permit));
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bmq_common::clock::SystemClock;
    use bmq_proto::broker::AckLevel;
    use bmq_proto::{Epoch, ErrorCode, PartitionId, TopicId};
    use bytes::Bytes;
    use futures::StreamExt;

    use super::*;

    fn item(id: u64, generation: u32) -> AppendItem {
        let partition = TopicPartition { topic: TopicId([1; 16]), partition: PartitionId(0) };
        let batch = Bytes::from_static(b"not looked at");
        AppendItem { id, channel: 1, generation, partition, epoch: Epoch(1), ack: AckLevel::Stored, batch }
    }

    #[tokio::test]
    async fn after_a_refusal_a_lane_is_refused_until_a_higher_generation_and_everything_is_answered() {
        let (answers, received) = mpsc::unbounded_channel();
        let task = AppendStreamTask {
            stream: 1,
            hosting: Hosting::default(),
            clock: SystemClock::shared(),
            room: Arc::new(Semaphore::new(16)),
            permits: 16,
            answers,
            gate: Arc::default(),
        };
        let (items, items_receiver) = mpsc::channel(1);
        items.send(vec![item(1, 0), item(2, 0), item(3, 1), item(4, 1)]).await.unwrap();
        drop(items);
        // On a thread of its own: a lock that is never free must fail the test, not hang it.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        std::thread::spawn(move || runtime.block_on(task.run(items_receiver, Shutdown::new())));
        let answered = answer_stream(received).concat();
        let answers = tokio::time::timeout(Duration::from_secs(10), answered).await.expect("the task goes on");
        let codes: Vec<_> = answers.into_iter().map(|answer| (answer.id, answer.result.unwrap_err().code)).collect();
        let expected = [ErrorCode::NotOwner, ErrorCode::OutOfTurn, ErrorCode::NotOwner, ErrorCode::OutOfTurn];
        assert_eq!(codes, (1..=4).zip(expected).collect::<Vec<_>>());
    }
}
