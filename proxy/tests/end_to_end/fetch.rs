//! Fetch streams: credit, heartbeats, moves.

use bmq_proto::v1::{self, fetch_request, fetch_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::{Cluster, TOPIC, at, in_time, latest, values_of};

struct Consumer {
    frames: mpsc::Sender<v1::FetchRequest>,
    answers: Streaming<v1::FetchResponse>,
}

impl Consumer {
    async fn open(cluster: &Cluster, positions: Vec<v1::PartitionPosition>, credit_bytes: u64) -> Self {
        let (frames, stream) = mpsc::channel(4);
        let open = v1::FetchOpen { positions, min_bytes: 0, max_wait_ms: 0, max_bytes: 0, credit_bytes };
        frames.send(v1::FetchRequest { frame: Some(fetch_request::Frame::Open(open)) }).await.unwrap();
        let mut client = cluster.messaging.clone();
        let answers = in_time(client.fetch(ReceiverStream::new(stream))).await.unwrap().into_inner();
        Self { frames, answers }
    }

    async fn frame(&mut self) -> Result<fetch_response::Frame, tonic::Status> {
        Ok(in_time(self.answers.message()).await?.expect("the stream goes on").frame.unwrap())
    }

    /// The next batches; heartbeats are passed over.
    async fn batches(&mut self) -> v1::FetchedBatches {
        loop {
            match self.frame().await.unwrap() {
                fetch_response::Frame::Batches(batches) => return batches,
                fetch_response::Frame::Heartbeat(_) => {}
                fetch_response::Frame::Failed(failed) => panic!("{failed:?}"),
            }
        }
    }

    async fn heartbeat(&mut self) -> Vec<v1::PartitionBounds> {
        loop {
            if let fetch_response::Frame::Heartbeat(heartbeat) = self.frame().await.unwrap() {
                return heartbeat.bounds;
            }
        }
    }
}

fn position(at: v1::position::At) -> v1::PartitionPosition {
    v1::PartitionPosition { topic: TOPIC.into(), partition: 0, position: Some(v1::Position { at: Some(at) }) }
}

#[tokio::test]
async fn a_stream_follows_the_log_over_a_move() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    let mut consumer = Consumer::open(&cluster, vec![position(at(0))], 1 << 20).await;
    assert_eq!(values_of(&consumer.batches().await.batches), ["a"]);
    for (number, value) in ["b", "c", "d", "e"].into_iter().enumerate() {
        cluster.give_to((number + 1) % 2);
        cluster.append(value).await;
        let batches = consumer.batches().await;
        assert_eq!(values_of(&batches.batches), [value]);
        assert_eq!((batches.next_offset, batches.high_watermark), (number as u64 + 2, number as u64 + 2));
    }
    cluster.meta.end_watches();
    cluster.append("f").await;
    assert_eq!(values_of(&consumer.batches().await.batches), ["f"]);
}

#[tokio::test]
async fn a_silent_stream_sends_heartbeats_with_the_bounds() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    let mut consumer = Consumer::open(&cluster, vec![position(latest())], 1 << 20).await;
    loop {
        if let [bounds] = &consumer.heartbeat().await[..] {
            assert_eq!(
                (bounds.topic.as_str(), bounds.log_start, bounds.high_watermark, bounds.epoch),
                (TOPIC, 0, 1, 1)
            );
            return;
        }
    }
}

#[tokio::test]
async fn a_client_that_gives_no_credit_is_sent_no_more() {
    let cluster = Cluster::start().await;
    for _ in 0..20 {
        cluster.append(&"x".repeat(1_000)).await;
    }
    let credit = 3_500;
    let mut consumer = Consumer::open(&cluster, vec![position(at(0))], credit).await;
    let mut received = 0;
    let mut next_offset = 0;
    while next_offset < 20 {
        let mut unpaid = 0;
        while let fetch_response::Frame::Batches(batches) = consumer.frame().await.unwrap() {
            unpaid += batches.batches.len();
            next_offset = batches.next_offset;
            assert!(unpaid <= credit as usize + 1_100, "{unpaid} bytes without credit");
        }
        received += unpaid;
        let credit = v1::FetchCredit { bytes: unpaid as u64 };
        consumer.frames.send(v1::FetchRequest { frame: Some(fetch_request::Frame::Credit(credit)) }).await.unwrap();
    }
    assert!(received > 20_000);
}

#[tokio::test]
async fn one_partition_that_fails_does_not_stop_the_others() {
    let cluster = Cluster::start().await;
    cluster.append("a").await;
    let absent = v1::PartitionPosition { topic: "absent".into(), ..position(at(0)) };
    let mut consumer = Consumer::open(&cluster, vec![absent, position(at(99)), position(at(0))], 1 << 20).await;
    let (mut failures, mut values) = (Vec::new(), Vec::new());
    while failures.len() < 2 || values.is_empty() {
        match consumer.frame().await.unwrap() {
            fetch_response::Frame::Failed(failed) => failures.push(failed.error.unwrap().code),
            fetch_response::Frame::Batches(batches) => values = values_of(&batches.batches),
            fetch_response::Frame::Heartbeat(_) => {}
        }
    }
    failures.sort();
    assert_eq!((failures, values), (vec!["OUT_OF_RANGE".into(), "UNKNOWN_TOPIC".into()], vec!["a".into()]));

    let request = v1::DeleteTopicRequest { name: TOPIC.into() };
    cluster.admin.clone().delete_topic(request).await.unwrap();
    loop {
        if let fetch_response::Frame::Failed(failed) = consumer.frame().await.unwrap() {
            assert_eq!(failed.error.unwrap().code, "UNKNOWN_TOPIC");
            break;
        }
    }
    assert!(in_time(consumer.answers.message()).await.unwrap().is_none(), "the stream ends with its last partition");
}

#[tokio::test]
async fn a_stream_without_open_or_positions_is_refused() {
    let cluster = Cluster::start().await;
    let mut consumer = Consumer::open(&cluster, Vec::new(), 1).await;
    assert!(consumer.frame().await.unwrap_err().message().contains("at least one position"));
}
