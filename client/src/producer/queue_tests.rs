//! One queue against a partition that is played by hand.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::ErrorCode;
use bmq_proto::record_batch::{BatchHeader, Codec, ProducerKey, verify_crc};
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::RecordMetadata;
use super::batch::Taken;
use super::queue::{Queue, Rules};
use crate::{Error, Record};

type Received = oneshot::Receiver<Result<RecordMetadata, Error>>;

const LONG: Duration = Duration::from_secs(1);

struct Bench {
    queue: Queue,
    rules: Rules,
    now: Instant,
    next: u64,
    resolved: Vec<u64>,
    random: Random,
    space: Arc<Semaphore>,
}

impl Bench {
    fn new(idempotent: bool) -> Self {
        Self {
            queue: Queue::new(7),
            rules: Rules {
                linger: Duration::from_millis(5),
                delivery_timeout: Duration::from_secs(60),
                // Each record makes a batch of its own.
                batch_bytes: 1,
                codec: Codec::None,
                idempotent,
            },
            now: Instant::now(),
            next: 0,
            resolved: Vec::new(),
            random: Random::from_seed(1),
            space: Arc::new(Semaphore::new(1_000)),
        }
    }

    /// Adds a record, in a batch of its own.
    fn add(&mut self) -> Received {
        let (answer, received) = oneshot::channel();
        let taken = Taken {
            topic: "t".into(),
            partition_count: 8,
            record: Record::value("v"),
            timestamp_ms: 0,
            answer,
            space: Arc::clone(&self.space).try_acquire_many_owned(10).unwrap(),
        };
        self.queue.add(taken, self.next, &self.rules, self.now);
        self.queue.close_last();
        self.next += 1;
        received
    }

    fn add_all(&mut self, count: usize) -> Vec<Received> {
        (0..count).map(|_| self.add()).collect()
    }

    fn is_ready(&self) -> bool {
        self.queue.ready_at(&self.rules).is_some_and(|at| at <= self.now)
    }

    /// Sends what may be sent under numbers from `wire` on, and tells (epoch, sequence) of each batch.
    fn send(&mut self, mut wire: u64) -> Vec<(i16, i32)> {
        self.now += LONG;
        let producer = self.rules.idempotent.then_some(ProducerKey { id: 9, epoch: 0 });
        let mut sent = Vec::new();
        while self.is_ready() {
            let bytes = self.queue.send(wire, producer, &mut self.resolved).unwrap();
            sent.push(identity(&bytes));
            wire += 1;
        }
        sent
    }

    fn refuse(&mut self, wire: u64, code: ErrorCode) {
        let error = Error::not_applied(code, "refused");
        self.queue.refuse(wire, &error, &self.rules, self.now, &self.random, &mut self.resolved);
    }

    fn doubt(&mut self, wire: u64) {
        let error = Error::unknown(ErrorCode::Timeout, "nobody knows");
        self.queue.refuse(wire, &error, &self.rules, self.now, &self.random, &mut self.resolved);
    }

    fn succeed(&mut self, wire: u64) {
        self.queue.succeed(wire, 100 + wire, false, &mut self.resolved);
    }

    fn disconnect(&mut self) {
        let error = Error::unknown(ErrorCode::Unavailable, "lost");
        self.queue.disconnect(&error, &self.rules, &mut self.resolved);
    }
}

fn identity(bytes: &Bytes) -> (i16, i32) {
    verify_crc(bytes).unwrap();
    let header = BatchHeader::parse(bytes).unwrap();
    (header.producer().map_or(-1, |producer| producer.epoch), header.base_sequence())
}

fn failure(received: &mut Received) -> Error {
    received.try_recv().expect("answered").expect_err("failed")
}

#[test]
fn at_most_five_are_in_flight() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(7);
    assert_eq!(bench.send(0), [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]);
    bench.succeed(0);
    assert_eq!(bench.send(5), [(0, 5)]);
    let written = RecordMetadata { partition: 7, offset: 100, deduplicated: false };
    assert_eq!(received[0].try_recv().unwrap(), Ok(written));
    assert_eq!(bench.resolved, [0]);
    assert_eq!(bench.space.available_permits(), 1_000 - 60);
}

#[test]
fn refused_batches_come_again_in_order_under_their_sequences() {
    let mut bench = Bench::new(true);
    let _received = bench.add_all(4);
    bench.send(0);
    bench.refuse(0, ErrorCode::Busy);
    assert_eq!(bench.send(10), [], "nothing is sent before all are answered");
    bench.refuse(1, ErrorCode::OutOfOrderSequence);
    bench.refuse(2, ErrorCode::OutOfTurn);
    assert_eq!(bench.send(10), []);
    bench.refuse(3, ErrorCode::OutOfTurn);
    assert_eq!(bench.send(10), [(0, 0), (0, 1), (0, 2), (0, 3)]);
}

#[test]
fn after_a_lost_connection_all_come_again() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(4);
    bench.send(0);
    bench.succeed(0);
    bench.disconnect();
    assert_eq!(bench.send(10), [(0, 1)], "alone, as it may have been written");
    // An answer of the stream that is gone means nothing.
    bench.succeed(1);
    assert!(received[1].try_recv().is_err());
    bench.succeed(10);
    assert_eq!(received[1].try_recv().unwrap().unwrap().offset, 110);
    assert_eq!(bench.send(20), [(0, 2)]);
    bench.succeed(20);
    assert_eq!(bench.send(30), [(0, 3)]);
    bench.succeed(30);
    let _later = bench.add_all(2);
    assert_eq!(bench.send(40), [(0, 4), (0, 5)]);
}

#[test]
fn nothing_overtakes_a_batch_in_doubt_for_long() {
    let mut bench = Bench::new(true);
    let _received = bench.add_all(9);
    bench.send(0);
    bench.doubt(0);
    (1..5).for_each(|wire| bench.succeed(wire));
    for wire in [10, 20, 30] {
        assert_eq!(bench.send(wire), [(0, 0)], "later ones would make the server forget it");
        bench.doubt(wire);
    }
    bench.send(40);
    bench.succeed(40);
    assert_eq!(bench.send(50), [(0, 5), (0, 6), (0, 7), (0, 8)]);
}

#[test]
fn behind_a_batch_that_failed_for_good_a_new_epoch_begins() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(4);
    bench.send(0);
    bench.succeed(0);
    bench.refuse(1, ErrorCode::Damaged);
    assert_eq!(failure(&mut received[1]).code, ErrorCode::Damaged);
    bench.refuse(2, ErrorCode::OutOfOrderSequence);
    bench.refuse(3, ErrorCode::OutOfOrderSequence);
    assert_eq!(bench.send(10), [(1, 0), (1, 1)]);
}

#[test]
fn a_batch_in_doubt_never_gets_another_sequence() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(3);
    bench.send(0);
    bench.refuse(0, ErrorCode::Damaged);
    bench.doubt(1);
    bench.refuse(2, ErrorCode::OutOfOrderSequence);
    assert_eq!(bench.send(10), [(0, 1)], "under its old identity, and alone");
    bench.refuse(10, ErrorCode::OutOfOrderSequence);
    let error = failure(&mut received[1]);
    assert!(error.may_have_been_applied, "{error:?}");
    assert_eq!(bench.send(20), [(1, 0)]);
}

#[test]
fn when_the_server_has_forgotten_what_came_before_a_new_epoch_begins() {
    let mut bench = Bench::new(true);
    let _received = bench.add_all(2);
    bench.send(0);
    bench.refuse(0, ErrorCode::OutOfOrderSequence);
    bench.refuse(1, ErrorCode::OutOfOrderSequence);
    assert_eq!(bench.send(10), [(1, 0), (1, 1)]);
}

#[test]
fn without_idempotence_doubt_is_reported_and_refusals_are_retried() {
    let mut bench = Bench::new(false);
    let mut received = bench.add_all(3);
    assert_eq!(bench.send(0), [(-1, -1)], "one at a time");
    bench.refuse(0, ErrorCode::Busy);
    assert_eq!(bench.send(10).len(), 1);
    bench.doubt(10);
    assert!(failure(&mut received[0]).may_have_been_applied);
    assert_eq!(bench.send(20).len(), 1);
    bench.disconnect();
    assert!(failure(&mut received[1]).may_have_been_applied);
    assert_eq!(bench.send(30).len(), 1);
    bench.succeed(30);
    assert!(received[2].try_recv().unwrap().is_ok());
    assert!(bench.queue.is_empty());
}

#[test]
fn what_waits_too_long_fails_and_says_whether_it_was_sent() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(6);
    bench.send(0);
    bench.refuse(0, ErrorCode::Busy);
    bench.now += bench.rules.delivery_timeout;
    let busy = Error::not_applied(ErrorCode::Busy, "the queue is full");
    bench.queue.expire(&bench.rules, bench.now, Some(&busy), &mut bench.resolved);
    let may_have_been_applied: Vec<_> =
        received.iter_mut().map(|received| failure(received).may_have_been_applied).collect();
    assert_eq!(may_have_been_applied, [false, true, true, true, true, false]);
    assert!(bench.queue.is_empty());
    assert_eq!(bench.resolved, [0, 1, 2, 3, 4, 5]);

    let mut last = bench.add();
    assert_eq!(bench.send(20), [(1, 0)], "answers that may still come cannot confuse the new epoch");
    bench.succeed(4);
    bench.succeed(20);
    assert_eq!(last.try_recv().unwrap().unwrap().offset, 120);
}

#[test]
fn batches_linger_until_they_are_closed() {
    let mut bench = Bench::new(true);
    bench.rules.batch_bytes = 1_000;
    let _received = bench.add();
    assert!(bench.is_ready(), "closed");
    bench.send(0);
    let (answer, _open) = oneshot::channel();
    let taken = Taken {
        topic: "t".into(),
        partition_count: 8,
        record: Record::value("v"),
        timestamp_ms: 0,
        answer,
        space: Arc::clone(&bench.space).try_acquire_many_owned(10).unwrap(),
    };
    bench.queue.add(taken, 1, &bench.rules, bench.now);
    assert!(bench.queue.has_open_batch());
    assert_eq!(bench.queue.ready_at(&bench.rules), Some(bench.now + bench.rules.linger));
}

#[test]
fn epochs_may_run_out() {
    let mut bench = Bench::new(true);
    let mut received = bench.add_all(2);
    let last = Some(ProducerKey { id: 9, epoch: i16::MAX });
    bench.queue.send(0, last, &mut bench.resolved).unwrap();
    bench.refuse(0, ErrorCode::Damaged);
    assert_eq!(bench.queue.send(1, last, &mut bench.resolved), None);
    assert_eq!(failure(&mut received[1]).code, ErrorCode::ProducerFenced);
}
