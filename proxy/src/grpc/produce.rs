//! `Produce`: a stream of batches in, a stream of results out.
//!
//! ```text
//!   frames ─▶ intake: credit, topic, checks, budget ─▶ queue ─▶ channel (lanes) ─▶ results, credit
//! ```
//! Bounds: a client has no more unanswered than its credit; all clients together no more than the proxy's budget,
//! beyond which frames stay unread; a client that does not read its results gets no new credit.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_proto::broker::Appended;
use bmq_proto::rpc::status::{error_detail, to_public_status};
use bmq_proto::v1::{produce_batch, produce_request, produce_response};
use bmq_proto::{ErrorCode, Happened, ServiceError, TopicPartition, v1};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tonic::codegen::tokio_stream::StreamExt;
use tonic::{Status, Streaming};
use tracing::debug;

use super::credit::ProduceCredit;
use super::messaging::ack_level;
use super::pack::{check_batch, pack};
use super::{Api, broken_stream, invalid, shutting_down};
use crate::api::{budget_share, with_share};
use crate::append::{AppendChannel, Reply, Ticket};

type Answers = mpsc::Sender<Result<v1::ProduceResponse, Status>>;

/// Batches between intake and channel.
const QUEUE: usize = 256;

/// Serves one stream to its end.
pub async fn run(api: Arc<Api>, frames: Streaming<v1::ProduceRequest>, answers: Answers) {
    let _level = api.metrics.produce_stream_open();
    let served = tokio::select! {
        served = serve(&api, frames, &answers) => served,
        () = answers.closed() => return,
    };
    if let Err(error) = served {
        debug!(%error, "a produce stream ends");
        // The client may have gone meanwhile.
        let _ = answers.send(Err(to_public_status(&error))).await;
    }
}

async fn serve(api: &Api, mut frames: Streaming<v1::ProduceRequest>, answers: &Answers) -> Result<(), ServiceError> {
    let open = tokio::select! {
        open = tokio::time::timeout(api.config.produce.answer_timeout.get(), first_frame(&mut frames)) => open,
        () = api.shutdown().begun() => return Err(shutting_down()),
    };
    let open = open.map_err(|_| ServiceError::not_applied(ErrorCode::Timeout, "no `open` frame came"))??;
    let ack = ack_level(open.ack)?;
    let producer_id = if open.idempotent { Some(api.producer_ids.next().await?) } else { None };

    let config = &api.config.produce;
    let credit = ProduceCredit::new(config.connection_bytes.0, config.connection_batches.into());
    let opened = v1::ProduceOpened { producer_id, producer_epoch: 0, credit: Some(credit.initial()) };
    let patience = config.answer_timeout.get();
    tell(answers, produce_response::Frame::Opened(opened), patience).await?;

    let (queue, taken_in) = mpsc::channel(QUEUE);
    let intake = Intake { api, credit: &credit, queue, places: HashMap::new() };
    let outflow = Outflow {
        channel: AppendChannel::new(Arc::clone(&api.appends), ack),
        credit: &credit,
        answers,
        patience,
        unanswered: HashMap::new(),
        next_ticket: 0,
    };
    tokio::try_join!(intake.run(frames), outflow.run(taken_in))?;
    if api.shutdown().is_begun() { Err(shutting_down()) } else { Ok(()) }
}

async fn first_frame(frames: &mut Streaming<v1::ProduceRequest>) -> Result<v1::ProduceOpen, ServiceError> {
    match frames.next().await {
        Some(Ok(v1::ProduceRequest { frame: Some(produce_request::Frame::Open(open)) })) => Ok(open),
        Some(Ok(_)) => Err(invalid("the first frame of a produce stream must be `open`")),
        Some(Err(status)) => Err(broken_stream(&status)),
        None => Err(invalid("the produce stream ended before its `open` frame")),
    }
}

/// Sends a frame. A client that does not read its answers must not hold what all clients share for ever.
async fn tell(answers: &Answers, frame: produce_response::Frame, patience: Duration) -> Result<(), ServiceError> {
    let sent = answers.send_timeout(Ok(v1::ProduceResponse { frame: Some(frame) }), patience).await;
    sent.map_err(|_| ServiceError::not_applied(ErrorCode::Unavailable, "the client does not read its answers"))
}

/// A batch that came in.
struct Arrived {
    sequence: u64,
    cost_bytes: u64,
    place: Result<TopicPartition, ServiceError>,
    content: Result<Content, ServiceError>,
}

struct Content {
    /// Holds its share of the budget wherever it is: a link may keep it after the client has its answer.
    payload: Bytes,
    idempotent: bool,
}

/// The reading half of a stream.
struct Intake<'a> {
    api: &'a Api,
    credit: &'a ProduceCredit,
    queue: mpsc::Sender<Arrived>,
    /// Where batches of this stream went before.
    places: HashMap<(String, u32), TopicPartition>,
}

/// Partitions whose place a stream remembers; beyond them it asks the directory again.
const REMEMBERED_PLACES: usize = 4096;

impl Intake<'_> {
    /// Takes batches in until the client has sent its last, or the shutdown begins.
    async fn run(mut self, mut frames: Streaming<v1::ProduceRequest>) -> Result<(), ServiceError> {
        let shutdown = self.api.shutdown().clone();
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                () = shutdown.begun() => return Ok(()),
            };
            let frame = match frame {
                Some(Ok(request)) => request.frame,
                Some(Err(status)) => return Err(broken_stream(&status)),
                None => return Ok(()),
            };
            let Some(produce_request::Frame::Batch(batch)) = frame else {
                return Err(invalid("only `batch` frames may follow `open`"));
            };
            let arrived = self.take_in(batch).await?;
            if self.queue.send(arrived).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn take_in(&mut self, batch: v1::ProduceBatch) -> Result<Arrived, ServiceError> {
        let v1::ProduceBatch { sequence, topic, partition, payload } = batch;
        let cost_bytes = payload.as_ref().map_or(0, cost_bytes);
        self.credit.take(cost_bytes)?;
        let place = self.place(topic, partition).await;
        let content = match self.check(payload) {
            Ok((payload, idempotent)) => {
                let payload = within_budget(&self.api.produce_budget, payload).await;
                Ok(Content { payload, idempotent })
            }
            Err(error) => Err(error),
        };
        Ok(Arrived { sequence, cost_bytes, place, content })
    }

    async fn place(&mut self, topic: String, partition: u32) -> Result<TopicPartition, ServiceError> {
        // A topic may have been deleted and made again under its name, so what is remembered is checked.
        let directory = &self.api.directory;
        let key = (topic, partition);
        if let Some(place) = self.places.get(&key)
            && directory.has_topic(place.topic)
        {
            return Ok(*place);
        }
        let place = directory.partition(&key.0, partition).await?;
        if self.places.len() >= REMEMBERED_PLACES {
            self.places.clear();
        }
        self.places.insert(key, place);
        Ok(place)
    }

    /// Checks what a batch holds; says whether it carries a producer id.
    fn check(&self, payload: Option<produce_batch::Payload>) -> Result<(Bytes, bool), ServiceError> {
        let max_bytes = self.api.config.produce.max_batch_bytes.0 as usize;
        match payload {
            Some(produce_batch::Payload::Batch(batch)) => {
                let header = check_batch(&batch, max_bytes)?;
                Ok((batch, header.producer().is_some()))
            }
            Some(produce_batch::Payload::Records(v1::Records { records })) => {
                Ok((pack(&records, max_bytes, &*self.api.clock)?, false))
            }
            None => Err(invalid("a batch frame needs `batch` or `records`")),
        }
    }
}

/// Waits until the batch fits into what the proxy holds for all clients.
pub(super) async fn within_budget(budget: &Arc<Semaphore>, payload: Bytes) -> Bytes {
    let share = budget_share(budget, payload.len()).await;
    with_share(payload, share)
}

/// What a payload counts for against the credit: the bytes of a ready batch, or of the encoded records.
fn cost_bytes(payload: &produce_batch::Payload) -> u64 {
    match payload {
        produce_batch::Payload::Batch(batch) => batch.len() as u64,
        produce_batch::Payload::Records(records) => prost::Message::encoded_len(records) as u64,
    }
}

/// A batch whose answer is awaited.
struct Unanswered {
    sequence: u64,
    cost_bytes: u64,
}

/// The forwarding and answering half of a stream.
struct Outflow<'a> {
    channel: AppendChannel,
    credit: &'a ProduceCredit,
    answers: &'a Answers,
    patience: Duration,
    unanswered: HashMap<Ticket, Unanswered>,
    next_ticket: u64,
}

impl Outflow<'_> {
    /// Works until intake has ended and everything is answered.
    async fn run(mut self, mut arrived: mpsc::Receiver<Arrived>) -> Result<(), ServiceError> {
        let mut intake_ended = false;
        while !(intake_ended && self.channel.outstanding() == 0 && self.unanswered.is_empty()) {
            tokio::select! {
                replies = self.channel.replies(), if !self.unanswered.is_empty() => self.answer(replies).await?,
                batch = arrived.recv(), if !intake_ended => match batch {
                    Some(batch) => self.push(batch),
                    None => intake_ended = true,
                },
            }
        }
        Ok(())
    }

    fn push(&mut self, batch: Arrived) {
        let Arrived { sequence, cost_bytes, place, content } = batch;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let unanswered = Unanswered { sequence, cost_bytes };
        match (place, content) {
            (Ok(place), Ok(Content { payload, idempotent })) => {
                self.channel.push(place, ticket, payload, idempotent);
            }
            (Ok(place), Err(error)) => self.channel.refuse(place, ticket, error),
            (Err(error), _) => self.channel.refuse_at_once(ticket, error),
        }
        self.unanswered.insert(ticket, unanswered);
    }

    async fn answer(&mut self, replies: Vec<Reply>) -> Result<(), ServiceError> {
        // The batches are done with, whenever the client hears of it: make room for others first.
        let answered: Vec<_> = replies
            .into_iter()
            .map(|Reply { ticket, result }| {
                let batch = self.unanswered.remove(&ticket).expect("each ticket is answered once");
                (batch.cost_bytes, produce_result(batch.sequence, result))
            })
            .collect();
        for (cost_bytes, result) in answered {
            tell(self.answers, produce_response::Frame::Result(result), self.patience).await?;
            if let Some(credit) = self.credit.hand_back(cost_bytes) {
                tell(self.answers, produce_response::Frame::Credit(credit), self.patience).await?;
            }
        }
        Ok(())
    }
}

fn produce_result(sequence: u64, result: Result<Appended, ServiceError>) -> v1::ProduceResult {
    match result {
        Ok(Appended { base_offset, deduplicated, .. }) => {
            v1::ProduceResult { sequence, base_offset: base_offset.0, deduplicated, error: None }
        }
        Err(error) => {
            debug!(sequence, unknown = error.happened == Happened::Unknown, %error, "a batch failed");
            v1::ProduceResult { sequence, base_offset: 0, deduplicated: false, error: Some(error_detail(&error)) }
        }
    }
}
