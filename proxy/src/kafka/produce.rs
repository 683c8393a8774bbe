//! `Produce`: batches on their way in. Several requests of a connection are under way at once; for each partition they
//! are applied in the order sent, and they are answered in the order sent.
//!
//! ```text
//!   request ─ begin ─▶ a ticket for each batch ─▶ channel (lanes) ─▶ replies ─▶ the oldest request that is complete
//! ```
//! Invariants:
//! * every batch has exactly one ticket, and a request is finished when its last ticket is answered;
//! * requests that are under way at once ask for the same acks, so no batch overtakes another on a second channel.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bmq_kafka::error::append_code;
use bmq_kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use bmq_kafka::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use bmq_kafka::messages::{ProduceRequest, ProduceResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes};
use bmq_proto::broker::{AckLevel, Appended};
use bmq_proto::meta::TopicRecord;
use bmq_proto::record_batch::{BatchError, BatchHeader, Codec};
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::{ServiceError, TopicId, TopicPartition};
use bytes::Bytes;
use tracing::debug;

use super::worker::Heading;
use super::{RequestContext, places};
use crate::append::{AppendChannel, Reply, Ticket};

/// The first version that names topics by their ids.
const BY_ID: i16 = 13;
/// The first versions that have these fields.
const LOG_START: i16 = 5;
const ERROR_MESSAGE: i16 = 8;

/// The values of `acks`.
const ACKS_NONE: i16 = 0;
const ACKS_LEADER: i16 = 1;
const ACKS_ALL: i16 = -1;

/// A request that is answered.
pub struct Finished {
    pub heading: Heading,
    pub response: ProduceResponse,
    /// No answer is sent.
    pub is_silent: bool,
    /// Some batch was not taken. Where no answer is sent, closing the connection tells the client.
    pub has_failed: bool,
}

/// The produce requests of one connection that are under way.
pub struct Produces {
    channels: Channels,
    under_way: VecDeque<UnderWay>,
    /// The number of the oldest request under way.
    oldest: u64,
    tickets: HashMap<Ticket, Place>,
    next_ticket: u64,
}

struct UnderWay {
    acks: i16,
    heading: Heading,
    response: ProduceResponse,
    /// How many batches are not answered yet.
    open: usize,
    has_failed: bool,
}

/// Where in which answer the reply for a batch goes.
struct Place {
    request: u64,
    topic: usize,
    partition: usize,
    log_start: i64,
}

/// Each ack level has a channel of its own.
#[derive(Default)]
struct Channels {
    memory: Option<AppendChannel>,
    stored: Option<AppendChannel>,
}

/// A batch that passed the checks.
struct Checked {
    place: TopicPartition,
    batch: Bytes,
    idempotent: bool,
}

/// Why a batch is refused at the edge.
struct Refusal {
    error: ResponseError,
    message: Option<String>,
}

impl Refusal {
    fn new(error: ResponseError, message: impl ToString) -> Self {
        Refusal { error, message: Some(message.to_string()) }
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Refusal { error, message: None }
    }
}

impl Produces {
    pub fn new() -> Self {
        Self {
            channels: Channels::default(),
            under_way: VecDeque::new(),
            oldest: 0,
            tickets: HashMap::new(),
            next_ticket: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether a request may begin while those under way go on.
    pub fn may_begin(&self, request: &ProduceRequest) -> bool {
        self.under_way.back().is_none_or(|last| last.acks == request.acks)
    }

    /// Sends a request's batches on their way.
    pub async fn begin(&mut self, context: &RequestContext<'_>, heading: Heading, request: ProduceRequest) {
        let number = self.oldest + self.under_way.len() as u64;
        let ProduceRequest { transactional_id, acks, timeout_ms, topic_data, .. } = request;
        let timeout =
            Duration::from_millis(timeout_ms.max(0) as u64).min(context.api.config.produce.answer_timeout.get());
        let refused = match acks {
            // There are no transactions, and this is what makes clients give up at once.
            _ if transactional_id.is_some() => Some(ResponseError::TransactionalIdAuthorizationFailed),
            ACKS_NONE | ACKS_LEADER | ACKS_ALL => None,
            _ => Some(ResponseError::InvalidRequiredAcks),
        };
        let response = ProduceResponse::default();
        let under_way = UnderWay { acks, heading, response, open: 0, has_failed: false };
        self.under_way.push_back(under_way);
        for (index, topic) in topic_data.into_iter().enumerate() {
            let TopicProduceData { name, topic_id, partition_data, .. } = topic;
            let found = match refused {
                Some(error) => Err(error),
                None => find_topic(context, &name, topic_id).await,
            };
            let answer = TopicProduceResponse::default().with_name(name).with_topic_id(topic_id);
            self.newest().response.responses.push(answer);
            let found = found.as_deref().map_err(|error| *error);
            let level = found.map_or(AckLevel::Stored, |topic| ack_level(acks, topic));
            for data in partition_data {
                self.begin_batch(context, (number, index), found, data, (level, timeout));
            }
        }
    }

    fn begin_batch(
        &mut self,
        context: &RequestContext<'_>,
        (request, topic): (u64, usize),
        found: Result<&TopicRecord, ResponseError>,
        data: PartitionProduceData,
        (level, timeout): (AckLevel, Duration),
    ) {
        let index = data.index;
        let checked = found.map_err(Refusal::from).and_then(|topic| {
            let max_bytes = context.api.config.produce.max_batch_bytes.0 as usize;
            check(topic, data, max_bytes, context.version)
        });
        let answer = PartitionProduceResponse::default()
            .with_index(index)
            .with_base_offset(-1)
            .with_log_append_time_ms(-1)
            .with_log_start_offset(-1);
        let Refusal { error, message } = match checked {
            Ok(Checked { place, batch, idempotent }) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                let log_start = context.api.directory.log_start(place).0 as i64;
                let newest = self.newest();
                let answers = &mut newest.response.responses[topic].partition_responses;
                let partition = answers.len();
                answers.push(answer);
                newest.open += 1;
                self.tickets.insert(ticket, Place { request, topic, partition, log_start });
                self.channels.get(context, level).push_within(place, ticket, batch, idempotent, timeout);
                return;
            }
            Err(refusal) => refusal,
        };
        debug!(partition = index, %error, message, "a batch is refused");
        let version = context.version;
        let newest = self.newest();
        newest.has_failed = true;
        let answer = with_error(answer, version, error, message);
        newest.response.responses[topic].partition_responses.push(answer);
    }

    /// Waits until batches are answered. Never ends while none is under way. May be cancelled and called again.
    pub async fn progress(&mut self) {
        for Reply { ticket, result } in self.channels.replies().await {
            self.take_reply(ticket, result);
        }
    }

    fn take_reply(&mut self, ticket: Ticket, result: Result<Appended, ServiceError>) {
        let place = self.tickets.remove(&ticket).expect("each ticket is answered once");
        let number = (place.request - self.oldest) as usize;
        let request = self.under_way.get_mut(number).expect("a request is there until its last ticket is answered");
        request.open -= 1;
        let answer = &mut request.response.responses[place.topic].partition_responses[place.partition];
        match result {
            Ok(Appended { base_offset, append_time_ms, .. }) => {
                answer.base_offset = base_offset.0 as i64;
                answer.log_append_time_ms = append_time_ms.unwrap_or(-1);
                if request.heading.version >= LOG_START {
                    answer.log_start_offset = place.log_start;
                }
            }
            Err(error) => {
                debug!(%error, "a batch failed");
                request.has_failed = true;
                let blank = std::mem::take(answer);
                *answer = with_error(blank, request.heading.version, append_code(&error), Some(error.message));
            }
        }
    }

    /// The oldest request, if it is answered.
    pub fn take_finished(&mut self) -> Option<Finished> {
        self.under_way.front().filter(|oldest| oldest.open == 0)?;
        let UnderWay { acks, heading, response, has_failed, .. } = self.under_way.pop_front()?;
        self.oldest += 1;
        Some(Finished { heading, response, is_silent: acks == ACKS_NONE, has_failed })
    }

    fn newest(&mut self) -> &mut UnderWay {
        self.under_way.back_mut().expect("a request is being begun")
    }
}

impl Channels {
    fn get(&mut self, context: &RequestContext<'_>, level: AckLevel) -> &mut AppendChannel {
        let channel = match level {
            AckLevel::Memory => &mut self.memory,
            AckLevel::Stored => &mut self.stored,
        };
        channel.get_or_insert_with(|| AppendChannel::new(Arc::clone(&context.api.appends), level))
    }

    async fn replies(&mut self) -> Vec<Reply> {
        tokio::select! {
            replies = replies_of(&mut self.memory) => replies,
            replies = replies_of(&mut self.stored) => replies,
        }
    }
}

async fn replies_of(channel: &mut Option<AppendChannel>) -> Vec<Reply> {
    match channel {
        Some(channel) => channel.replies().await,
        None => std::future::pending().await,
    }
}

async fn find_topic(
    context: &RequestContext<'_>,
    name: &TopicName,
    topic_id: bmq_kafka::Uuid,
) -> Result<Arc<TopicRecord>, ResponseError> {
    let topic = if context.version >= BY_ID {
        let known = context.api.directory.topic_by_id(TopicId(topic_id.into_bytes()));
        known.ok_or(ResponseError::UnknownTopicId)?
    } else {
        places::topic(context, name).await?
    };
    // What an internal topic holds is its service's own.
    if topic.is_internal() { Err(ResponseError::InvalidTopicException) } else { Ok(topic) }
}

/// Nobody waits for what has no acks; with acks=1 the topic decides.
fn ack_level(acks: i16, topic: &TopicRecord) -> AckLevel {
    match acks {
        ACKS_NONE => AckLevel::Memory,
        // Settings that a newer version wrote may be unknown here: the safer answer.
        ACKS_LEADER => TopicSettings::parse(&topic.config).map_or(AckLevel::Stored, |settings| settings.ack_one),
        _ => AckLevel::Stored,
    }
}

/// Checks a partition's records as far as the edge must: one v2 batch, whole, and not too large. Its owner checks the
/// checksum and the rest.
fn check(topic: &TopicRecord, data: PartitionProduceData, max_bytes: usize, version: i16) -> Result<Checked, Refusal> {
    let place = places::partition(topic, data.index)?;
    let batch = data.records.unwrap_or_default();
    let corrupt = |needed: usize| {
        let error = BatchError::Truncated { needed, have: batch.len() };
        Refusal::new(ResponseError::CorruptMessage, error)
    };
    if batch.is_empty() {
        return Err(Refusal::new(ResponseError::InvalidRecord, "a partition without a record batch"));
    }
    let header = BatchHeader::parse(&batch).map_err(|error| match error {
        BatchError::Truncated { needed, .. } => corrupt(needed),
        error => Refusal::new(ResponseError::InvalidRecord, error),
    })?;
    let size = header.total_len();
    if size > max_bytes {
        return Err(Refusal::new(ResponseError::MessageTooLarge, BatchError::TooLarge { size, max: max_bytes }));
    }
    if size > batch.len() {
        return Err(corrupt(size));
    }
    if size < batch.len() {
        return Err(Refusal::new(ResponseError::InvalidRecord, "more than one record batch for a partition"));
    }
    if header.is_transactional() {
        return Err(ResponseError::TransactionalIdAuthorizationFailed.into());
    }
    // zstd came with version 7.
    if header.codec() == Codec::Zstd && version < 7 {
        return Err(ResponseError::UnsupportedCompressionType.into());
    }
    Ok(Checked { place, batch, idempotent: header.producer().is_some() })
}

fn with_error(
    answer: PartitionProduceResponse,
    version: i16,
    error: ResponseError,
    message: Option<String>,
) -> PartitionProduceResponse {
    let answer = answer.with_error_code(error.code());
    if version < ERROR_MESSAGE {
        return answer;
    }
    let message = message.map(StrBytes::from_string);
    // Java clients tell their user which records were at fault only if they are named; the first stands for its batch.
    let at_fault = (error == ResponseError::InvalidRecord).then(|| {
        BatchIndexAndErrorMessage::default().with_batch_index(0).with_batch_index_error_message(message.clone())
    });
    answer.with_error_message(message).with_record_errors(at_fault.into_iter().collect())
}
