//! Batches in, over moves and breaks.

use bmq_proto::meta::NodeKind;
use bmq_proto::v1::{self, produce_batch::Payload, produce_request, produce_response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::{Cluster, TOPIC, batch, in_time};

/// A produce stream of a test.
struct Producer {
    frames: mpsc::Sender<v1::ProduceRequest>,
    answers: Streaming<v1::ProduceResponse>,
    opened: v1::ProduceOpened,
    next_sequence: u64,
}

impl Producer {
    async fn open(cluster: &Cluster, idempotent: bool) -> Self {
        let (frames, stream) = mpsc::channel(64);
        let open = v1::ProduceOpen { ack: v1::Ack::Stored.into(), idempotent };
        frames.send(frame(produce_request::Frame::Open(open))).await.unwrap();
        let mut client = cluster.messaging.clone();
        let mut answers = in_time(client.produce(ReceiverStream::new(stream))).await.unwrap().into_inner();
        let Some(produce_response::Frame::Opened(opened)) = next(&mut answers).await.unwrap() else {
            panic!("the first answer is `opened`");
        };
        Self { frames, answers, opened, next_sequence: 0 }
    }

    async fn send(&mut self, payload: Bytes) {
        self.send_to(TOPIC, 0, Some(Payload::Batch(payload))).await;
    }

    async fn send_to(&mut self, topic: &str, partition: u32, payload: Option<Payload>) {
        let (sequence, topic) = (self.next_sequence, topic.to_owned());
        self.next_sequence += 1;
        let batch = v1::ProduceBatch { sequence, topic, partition, payload };
        self.frames.send(frame(produce_request::Frame::Batch(batch))).await.unwrap();
    }

    async fn result(&mut self) -> v1::ProduceResult {
        loop {
            match next(&mut self.answers).await.unwrap() {
                Some(produce_response::Frame::Result(result)) => return result,
                Some(produce_response::Frame::Credit(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn error_code(&mut self) -> String {
        self.result().await.error.expect("an error").code
    }
}

fn frame(frame: produce_request::Frame) -> v1::ProduceRequest {
    v1::ProduceRequest { frame: Some(frame) }
}

async fn next(answers: &mut Streaming<v1::ProduceResponse>) -> Result<Option<produce_response::Frame>, tonic::Status> {
    Ok(in_time(answers.message()).await?.and_then(|answer| answer.frame))
}

fn numbered(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("value {number}")).collect()
}

#[tokio::test]
async fn order_is_kept_over_a_move_with_five_in_flight() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, false).await;
    let old = &cluster.brokers[0];
    old.taking.send_replace(false);
    for value in numbered(5) {
        producer.send(batch(value.as_bytes(), None)).await;
    }
    in_time(old.received.subscribe().wait_for(|received| *received > 0)).await.unwrap();
    cluster.depose(1);
    old.taking.send_replace(true);
    for value in numbered(8).split_off(5) {
        producer.send(batch(value.as_bytes(), None)).await;
    }
    cluster.announce(1);
    for sequence in 0..8 {
        let result = producer.result().await;
        assert_eq!((result.sequence, result.base_offset, result.error), (sequence, sequence, None));
    }
    assert_eq!(cluster.values(), numbered(8));
}

#[tokio::test]
async fn a_lost_answer_is_unknown_without_a_producer_id() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, false).await;
    let broker = &cluster.brokers[0];
    broker.answering.send_replace(false);
    producer.send(batch(b"value 0", None)).await;
    in_time(broker.received.subscribe().wait_for(|received| *received == 1)).await.unwrap();
    broker.break_streams();
    let error = producer.result().await.error.unwrap();
    assert!(error.may_have_been_applied && error.retriable, "{error:?}");
    broker.answering.send_replace(true);
    producer.send(batch(b"value 1", None)).await;
    assert_eq!(producer.result().await.error, None);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_with_a_producer_id() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, true).await;
    let id = producer.opened.producer_id.unwrap();
    let broker = &cluster.brokers[0];
    broker.answering.send_replace(false);
    for (sequence, value) in numbered(5).iter().enumerate() {
        producer.send(batch(value.as_bytes(), Some((id, sequence as i32)))).await;
    }
    // The first was taken for certain; of the others, some or none.
    let mut log_changes = broker.received.subscribe();
    in_time(log_changes.wait_for(|received| *received > 0)).await.unwrap();
    while cluster.values().is_empty() {
        tokio::task::yield_now().await;
    }
    broker.break_streams();
    while cluster.metric("bmq_proxy_broker_links") > 0 {
        tokio::task::yield_now().await;
    }
    broker.answering.send_replace(true);
    let first = producer.result().await;
    assert_eq!((first.base_offset, first.deduplicated, first.error), (0, true, None));
    for sequence in 1..5 {
        let result = producer.result().await;
        assert_eq!((result.sequence, result.base_offset, result.error), (sequence, sequence, None));
    }
    assert_eq!(cluster.values(), numbered(5));
}

#[tokio::test]
async fn what_a_hanging_broker_holds_goes_to_the_next_once_its_session_has_ended() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, true).await;
    let id = producer.opened.producer_id.unwrap();
    let broker = &cluster.brokers[0];
    broker.answering.send_replace(false);
    producer.send(batch(b"value 0", Some((id, 0)))).await;
    in_time(broker.received.subscribe().wait_for(|received| *received == 1)).await.unwrap();
    cluster.meta.end_session(NodeKind::Broker, broker.node);
    cluster.give_to(1);
    // Its connection stays open all the time.
    let result = producer.result().await;
    assert_eq!((result.base_offset, result.error), (0, None));
    assert_eq!(cluster.values(), numbered(1));
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_in_turn_and_the_rest_goes_on() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, false).await;
    producer.send(batch(b"value 0", None)).await;
    producer.send(Bytes::from_static(b"garbage")).await;
    producer.send(batch(&vec![0; 1 << 20], None)).await;
    producer.send_to(TOPIC, 0, None).await;
    producer.send(batch(b"value 1", None)).await;
    assert_eq!(producer.result().await.error, None);
    for (sequence, code) in [(1, "INVALID_BATCH"), (2, "MESSAGE_TOO_LARGE"), (3, "INVALID_ARGUMENT")] {
        let result = producer.result().await;
        assert_eq!((result.sequence, result.error.unwrap().code.as_str()), (sequence, code));
    }
    assert_eq!(producer.result().await.base_offset, 1);

    let payload = || Some(Payload::Batch(batch(b"x", None)));
    producer.send_to("absent", 0, payload()).await;
    assert_eq!(producer.error_code().await, "UNKNOWN_TOPIC");
    producer.send_to(TOPIC, 7, payload()).await;
    assert_eq!(producer.error_code().await, "UNKNOWN_PARTITION");
    producer.send_to(&"x".repeat(300), 0, payload()).await;
    assert_eq!(producer.error_code().await, "INVALID_ARGUMENT");
    assert_eq!(cluster.values(), numbered(2));
}

#[tokio::test]
async fn a_stream_must_begin_with_open_and_keep_to_its_credit() {
    let cluster = Cluster::start().await;
    let (frames, stream) = mpsc::channel(4);
    let payload = Some(Payload::Batch(batch(b"x", None)));
    let early = v1::ProduceBatch { sequence: 0, topic: TOPIC.into(), partition: 0, payload };
    frames.send(frame(produce_request::Frame::Batch(early))).await.unwrap();
    let mut client = cluster.messaging.clone();
    let mut answers = in_time(client.produce(ReceiverStream::new(stream))).await.unwrap().into_inner();
    let status = next(&mut answers).await.unwrap_err();
    assert!(status.message().contains("first frame"), "{status}");

    let mut greedy = Producer::open(&cluster, false).await;
    let credit = greedy.opened.credit.unwrap();
    assert_eq!(credit.bytes, 4 << 20);
    cluster.brokers[0].taking.send_replace(false);
    for _ in 0..9 {
        greedy.send(batch(&vec![0; 512 << 10], None)).await;
    }
    let status = next(&mut greedy.answers).await.unwrap_err();
    assert!(status.message().contains("credit"), "{status}");
    cluster.brokers[0].taking.send_replace(true);
}

#[tokio::test]
async fn a_client_that_stops_sending_gets_all_its_answers() {
    let cluster = Cluster::start().await;
    let mut producer = Producer::open(&cluster, false).await;
    for value in numbered(20) {
        producer.send(batch(value.as_bytes(), None)).await;
    }
    let Producer { frames, mut answers, .. } = producer;
    drop(frames);
    let mut results = 0;
    while let Some(answer) = next(&mut answers).await.unwrap() {
        results += u32::from(matches!(answer, produce_response::Frame::Result(_)));
    }
    assert_eq!(results, 20);
    assert_eq!(cluster.values(), numbered(20));
}
