//! A server in this process that keeps its logs in memory, and fails as it is told.
//!
//! It keeps the rules of the real one: sequences are checked, duplicates recognised, and older epochs fenced.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bmq_common::Shutdown;
use bmq_proto::record_batch::{BatchHeader, assign, records, validate_produced, verify_crc};
use bmq_proto::rpc::status::{error_detail, to_public_status};
use bmq_proto::rpc::{Limits, serve};
use bmq_proto::v1::admin_server::AdminServer;
use bmq_proto::v1::messaging_server::{Messaging, MessagingServer};
use bmq_proto::v1::{self, fetch_request, fetch_response, position, produce_batch, produce_request, produce_response};
use bmq_proto::{Epoch, ErrorCode, Offset, ServiceError};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

mod admin;

/// What shall become of a batch that the server receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused, without effect.
    Refuse(ErrorCode),
    /// Written, and answered as unknown.
    WriteAndDoubt,
    /// Not written, and answered as unknown.
    Doubt,
    /// The stream breaks before the batch is written.
    BreakBefore,
    /// The stream breaks after the batch was written, without an answer.
    BreakAfter,
}

/// What the tests see and set.
pub struct Shared {
    logs: Mutex<HashMap<(String, u32), Log>>,
    /// Of the topics: how many partitions they have.
    topics: Mutex<HashMap<String, u32>>,
    /// For each batch that comes, what becomes of it; written when the list is used up.
    pub faults: Mutex<VecDeque<Option<Fault>>>,
    /// Whether batches are answered now.
    pub answers: watch::Sender<bool>,
    /// Grows with every write.
    written: watch::Sender<u64>,
    pub credit: Mutex<v1::Credit>,
    /// Batches of each answer to a fetch, before the stream breaks; never if empty.
    pub fetch_breaks: Mutex<VecDeque<usize>>,
    /// What clients did against the rules.
    pub violations: Mutex<Vec<String>>,
    pub produce_streams: Mutex<i64>,
    pub max_fetch_outstanding: Mutex<u64>,
}

#[derive(Default)]
struct Log {
    batches: Vec<(BatchHeader, Bytes)>,
    next_offset: u64,
    producers: HashMap<i64, ProducerState>,
}

#[derive(Default)]
struct ProducerState {
    epoch: i16,
    next_sequence: i32,
    last: VecDeque<(i32, u64)>,
}

/// A server on a free port; stopped when dropped.
pub struct FakeServer {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl FakeServer {
    /// A server with these topics and numbers of partitions.
    pub async fn start(topics: &[(&str, u32)]) -> Self {
        let shared = Arc::new(Shared {
            logs: Mutex::default(),
            topics: Mutex::new(topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()),
            faults: Mutex::default(),
            answers: watch::Sender::new(true),
            written: watch::Sender::new(0),
            credit: Mutex::new(v1::Credit { bytes: 8 << 20, batches: 100 }),
            fetch_breaks: Mutex::default(),
            violations: Mutex::default(),
            produce_streams: Mutex::default(),
            max_fetch_outstanding: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let routes = Routes::new(MessagingServer::new(Glue(Arc::clone(&shared))))
            .add_service(AdminServer::new(admin::Glue(Arc::clone(&shared))));
        let serving = serve(listener, routes, shutdown.clone(), Limits::default());
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, shared, shutdown, task }
    }

    pub async fn client(&self) -> crate::Client {
        crate::Client::connect(&self.address.to_string()).await.unwrap()
    }

    /// The values in a partition, in order.
    pub fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        let logs = self.shared.logs.lock();
        let Some(log) = logs.get(&(topic.to_owned(), partition)) else { return Vec::new() };
        let all = log.batches.iter().flat_map(|(_, batch)| records(batch, &Default::default()).unwrap());
        all.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
    }

    /// How many batches a partition has.
    pub fn batch_count(&self, topic: &str, partition: u32) -> usize {
        self.shared.logs.lock().get(&(topic.to_owned(), partition)).map_or(0, |log| log.batches.len())
    }

    /// Writes a batch of such values, as a producer without an id does.
    pub fn write(&self, topic: &str, partition: u32, values: std::ops::Range<u64>) {
        let mut builder = bmq_proto::record_batch::BatchBuilder::new(Default::default(), 0);
        for value in values {
            builder.append(0, None, Some(value.to_string().as_bytes()), &[]).unwrap();
        }
        self.shared.append(topic, partition, builder.build()).unwrap();
    }

    pub fn assert_no_violations(&self) {
        assert_eq!(*self.shared.violations.lock(), Vec::<String>::new());
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shutdown.begin();
        self.task.abort();
    }
}

impl Shared {
    fn count_produce_stream(&self) -> i64 {
        let mut streams = self.produce_streams.lock();
        *streams += 1;
        *streams
    }

    fn partition_count(&self, topic: &str) -> Result<u32, ServiceError> {
        let unknown = || ServiceError::not_applied(ErrorCode::UnknownTopic, format!("there is no topic {topic}"));
        self.topics.lock().get(topic).copied().ok_or_else(unknown)
    }

    fn bounds(&self, topic: &str, partition: u32) -> v1::PartitionBounds {
        let high_watermark = self.logs.lock().get(&(topic.to_owned(), partition)).map_or(0, |log| log.next_offset);
        v1::PartitionBounds { topic: topic.to_owned(), partition, log_start: 0, high_watermark, epoch: 1 }
    }

    /// Appends as the owner of a partition does; true with the offset of an earlier append if it is a duplicate.
    fn append(&self, topic: &str, partition: u32, batch: Bytes) -> Result<(u64, bool), ServiceError> {
        let header = validate_produced(&batch, &bmq_proto::record_batch::BatchLimits { max_batch_bytes: 1 << 20 })
            .map_err(|error| ServiceError::not_applied(error.code(), error.to_string()))?;
        verify_crc(&batch).unwrap();
        let mut logs = self.logs.lock();
        let log = logs.entry((topic.to_owned(), partition)).or_default();
        let base_offset = log.next_offset;
        if let Some(producer) = header.producer() {
            let state = log.producers.entry(producer.id).or_default();
            if producer.epoch > state.epoch {
                *state = ProducerState { epoch: producer.epoch, ..ProducerState::default() };
            }
            let sequence = header.base_sequence();
            if producer.epoch < state.epoch {
                return Err(ServiceError::not_applied(ErrorCode::ProducerFenced, "a newer epoch has taken over"));
            }
            if let Some((_, offset)) = state.last.iter().find(|(known, _)| *known == sequence) {
                return Ok((*offset, true));
            }
            if sequence != state.next_sequence {
                let text = format!("sequence {sequence}, expected {}", state.next_sequence);
                return Err(ServiceError::not_applied(ErrorCode::OutOfOrderSequence, text));
            }
            state.next_sequence += header.record_count() as i32;
            state.last.push_back((sequence, base_offset));
            if state.last.len() > 5 {
                state.last.pop_front();
            }
        }
        let assigned = assign(batch, Offset(base_offset), Epoch(1));
        log.batches.push((BatchHeader::parse(&assigned).unwrap(), assigned));
        log.next_offset += header.offset_count();
        self.written.send_modify(|count| *count += 1);
        Ok((base_offset, false))
    }

    /// Batches of a partition from the one that holds `offset` on, and where they end.
    fn read(&self, topic: &str, partition: u32, offset: u64, max_bytes: usize) -> (Bytes, u64) {
        let logs = self.logs.lock();
        let mut bytes = BytesMut::new();
        let mut next = offset;
        let Some(log) = logs.get(&(topic.to_owned(), partition)) else { return (Bytes::new(), next) };
        for (header, batch) in log.batches.iter().filter(|(header, _)| header.next_offset().0 > offset) {
            if !bytes.is_empty() && bytes.len() + batch.len() > max_bytes {
                break;
            }
            bytes.extend_from_slice(batch);
            next = header.next_offset().0;
        }
        (bytes.freeze(), next)
    }
}

struct Glue(Arc<Shared>);

/// One produce stream on the server's side.
struct ProduceSide {
    shared: Arc<Shared>,
    responses: mpsc::Sender<Result<v1::ProduceResponse, Status>>,
    credit: v1::Credit,
}

impl ProduceSide {
    async fn run(mut self, mut requests: Streaming<v1::ProduceRequest>) {
        let mut answers = self.shared.answers.subscribe();
        while let Some(Ok(request)) = requests.next().await {
            match request.frame.unwrap() {
                produce_request::Frame::Open(open) => {
                    let stream = self.shared.count_produce_stream();
                    let opened = v1::ProduceOpened {
                        producer_id: open.idempotent.then_some(1_000 + stream),
                        producer_epoch: 0,
                        credit: Some(self.credit),
                    };
                    self.respond(produce_response::Frame::Opened(opened)).await;
                }
                produce_request::Frame::Batch(batch) => {
                    let Some(produce_batch::Payload::Batch(bytes)) = batch.payload.clone() else { panic!("no batch") };
                    self.take_credit(bytes.len() as u64);
                    answers.wait_for(|answer| *answer).await.unwrap();
                    let returned = v1::Credit { bytes: bytes.len() as u64, batches: 1 };
                    let Some(result) = self.handle(batch, bytes) else {
                        let broken = Status::unavailable("broken on purpose, in a test");
                        let _ = self.responses.send(Err(broken)).await;
                        return;
                    };
                    self.credit.bytes += returned.bytes;
                    self.credit.batches += returned.batches;
                    self.respond(produce_response::Frame::Result(result)).await;
                    self.respond(produce_response::Frame::Credit(returned)).await;
                }
            }
        }
    }

    async fn respond(&self, frame: produce_response::Frame) {
        // The client may be gone.
        let _ = self.responses.send(Ok(v1::ProduceResponse { frame: Some(frame) })).await;
    }

    fn take_credit(&mut self, bytes: u64) {
        if self.credit.batches == 0 || self.credit.bytes < bytes {
            self.shared.violations.lock().push(format!("{bytes} bytes sent with {:?}", self.credit));
        }
        self.credit.batches = self.credit.batches.saturating_sub(1);
        self.credit.bytes = self.credit.bytes.saturating_sub(bytes);
    }

    /// `None`: the stream breaks.
    fn handle(&mut self, batch: v1::ProduceBatch, bytes: Bytes) -> Option<v1::ProduceResult> {
        let fault = self.shared.faults.lock().pop_front().flatten();
        let shared = Arc::clone(&self.shared);
        let append = || shared.append(&batch.topic, batch.partition, bytes);
        let doubt = || ServiceError::unknown(ErrorCode::Timeout, "nobody knows");
        let result = match fault {
            None => append(),
            Some(Fault::Refuse(code)) => Err(ServiceError::not_applied(code, "refused on purpose, in a test")),
            Some(Fault::WriteAndDoubt) => append().and(Err(doubt())),
            Some(Fault::Doubt) => Err(doubt()),
            Some(Fault::BreakBefore) => return None,
            Some(Fault::BreakAfter) => {
                let _ = append();
                return None;
            }
        };
        let mut answer = v1::ProduceResult { sequence: batch.sequence, ..Default::default() };
        match result {
            Ok((base_offset, deduplicated)) => (answer.base_offset, answer.deduplicated) = (base_offset, deduplicated),
            Err(error) => answer.error = Some(error_detail(&error)),
        }
        Some(answer)
    }
}

/// One fetch stream on the server's side.
struct FetchSide {
    shared: Arc<Shared>,
    responses: mpsc::Sender<Result<v1::FetchResponse, Status>>,
    positions: Vec<(String, u32, u64)>,
    max_bytes: usize,
    credit: i64,
    initial_credit: i64,
    break_after: usize,
}

impl FetchSide {
    async fn run(mut self, mut requests: Streaming<v1::FetchRequest>) {
        let mut written = self.shared.written.subscribe();
        loop {
            written.mark_unchanged();
            while let Some(frame) = self.next_batches() {
                if self.break_after == 0 {
                    let _ = self.responses.send(Err(Status::unavailable("broken on purpose, in a test"))).await;
                    return;
                }
                self.break_after -= 1;
                let frame = Some(fetch_response::Frame::Batches(frame));
                let _ = self.responses.send(Ok(v1::FetchResponse { frame })).await;
            }
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(v1::FetchRequest { frame: Some(fetch_request::Frame::Credit(credit)) })) => {
                        self.credit += credit.bytes as i64;
                    }
                    _ => return,
                },
                _ = written.changed() => {}
            }
        }
    }

    fn next_batches(&mut self) -> Option<v1::FetchedBatches> {
        for (topic, partition, offset) in &mut self.positions {
            let (batches, next_offset) = self.shared.read(topic, *partition, *offset, self.max_bytes);
            if batches.is_empty() || self.credit < batches.len() as i64 {
                continue;
            }
            self.credit -= batches.len() as i64;
            let outstanding = (self.initial_credit - self.credit) as u64;
            let mut max = self.shared.max_fetch_outstanding.lock();
            *max = outstanding.max(*max);
            *offset = next_offset;
            let bounds = self.shared.bounds(topic, *partition);
            return Some(v1::FetchedBatches {
                topic: topic.clone(),
                partition: *partition,
                batches,
                next_offset,
                high_watermark: bounds.high_watermark,
                log_start: 0,
            });
        }
        None
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Messaging for Glue {
    type ProduceStream = Responses<v1::ProduceResponse>;
    type FetchStream = Responses<v1::FetchResponse>;

    async fn produce(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStream>, Status> {
        let (responses, queue) = mpsc::channel(16);
        let credit = *self.0.credit.lock();
        tokio::spawn(ProduceSide { shared: Arc::clone(&self.0), responses, credit }.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn fetch(
        &self,
        request: Request<Streaming<v1::FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let mut requests = request.into_inner();
        let Some(fetch_request::Frame::Open(open)) = requests.next().await.unwrap()?.frame else { panic!("no open") };
        let mut positions = Vec::new();
        for wanted in open.positions {
            let bounds = self.0.bounds(&wanted.topic, wanted.partition);
            let offset = match wanted.position.unwrap().at.unwrap() {
                position::At::Offset(offset) => offset,
                position::At::Earliest(_) => bounds.log_start,
                position::At::Latest(_) => bounds.high_watermark,
                position::At::TimestampMs(_) => panic!("the SDK asks for offsets first"),
            };
            if offset > bounds.high_watermark {
                let error = ServiceError::not_applied(ErrorCode::OutOfRange, "above the high watermark");
                return Ok(Response::new(fail(wanted.topic, wanted.partition, &error)));
            }
            positions.push((wanted.topic, wanted.partition, offset));
        }
        let (responses, queue) = mpsc::channel(1);
        let credit = open.credit_bytes as i64;
        let break_after = self.0.fetch_breaks.lock().pop_front().unwrap_or(usize::MAX);
        let side = FetchSide {
            shared: Arc::clone(&self.0),
            responses,
            positions,
            max_bytes: open.max_bytes as usize,
            credit,
            initial_credit: credit,
            break_after,
        };
        tokio::spawn(side.run(requests));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn send(&self, _: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        Err(Status::unimplemented("not used by the SDK"))
    }

    async fn poll(&self, _: Request<v1::PollRequest>) -> Result<Response<v1::PollResponse>, Status> {
        Err(Status::unimplemented("not used by the SDK"))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let v1::ListOffsetsRequest { topic, partitions } = request.into_inner();
        let count = self.0.partition_count(&topic).map_err(|error| to_public_status(&error))?;
        let partitions = if partitions.is_empty() { (0..count).collect() } else { partitions };
        let partitions = partitions.into_iter().map(|partition| self.0.bounds(&topic, partition)).collect();
        Ok(Response::new(v1::ListOffsetsResponse { partitions }))
    }

    /// Every record is as old as its offset says.
    async fn find_offsets(
        &self,
        request: Request<v1::FindOffsetsRequest>,
    ) -> Result<Response<v1::FindOffsetsResponse>, Status> {
        let v1::FindOffsetsRequest { topic, partitions, timestamp_ms } = request.into_inner();
        let find = |partition| {
            let end = self.0.bounds(&topic, partition).high_watermark;
            let offset = u64::try_from(timestamp_ms).unwrap_or(0).min(end);
            v1::FoundOffset { partition, offset, timestamp_ms: (offset < end).then_some(timestamp_ms) }
        };
        Ok(Response::new(v1::FindOffsetsResponse { partitions: partitions.into_iter().map(find).collect() }))
    }
}

/// A stream on which one partition fails, and nothing else comes.
fn fail(topic: String, partition: u32, error: &ServiceError) -> Responses<v1::FetchResponse> {
    let failed = v1::FetchFailed { topic, partition, error: Some(error_detail(error)) };
    let response = v1::FetchResponse { frame: Some(fetch_response::Frame::Failed(failed)) };
    Box::pin(futures::stream::iter([Ok(response)]).chain(futures::stream::pending()))
}
