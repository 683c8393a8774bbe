//! The producer against a server that fails as it is told.

use std::collections::BTreeSet;
use std::time::Duration;

use bmq_common::Random;
use bmq_proto::{ErrorCode, v1};

use super::*;
use crate::testing::{FakeServer, Fault};

fn small_batches() -> ProducerConfig {
    ProducerConfig { batch_bytes: 150, linger: Duration::from_millis(1), ..ProducerConfig::default() }
}

/// Sends numbered records to three partitions in turn, and tells what became of each.
async fn send_numbered(producer: &Producer, count: u64) -> Vec<Result<RecordMetadata, Error>> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = Record::value(number.to_string()).to_partition((number % 3) as u32);
        deliveries.push(producer.send("orders", record).await.unwrap());
    }
    futures::future::join_all(deliveries).await
}

fn assert_all_in_order(server: &FakeServer, count: u64) {
    for partition in 0..3 {
        let expected: Vec<_> =
            (0..count).filter(|number| number % 3 == u64::from(partition)).map(|number| number.to_string()).collect();
        assert_eq!(server.values("orders", partition), expected, "partition {partition}");
    }
    server.assert_no_violations();
}

#[tokio::test]
async fn records_get_their_offsets() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    let producer = server.client().await.producer(small_batches()).unwrap();
    for (number, delivered) in (0..).zip(send_numbered(&producer, 1_000).await) {
        let expected = RecordMetadata { partition: (number % 3) as u32, offset: number / 3, deduplicated: false };
        assert_eq!(delivered, Ok(expected));
    }
    assert!(server.batch_count("orders", 0) > 10);
    assert_all_in_order(&server, 1_000);
}

/// Every kind of fault but those that fail records of an idempotent producer.
fn random_fault(random: &Random) -> Option<Fault> {
    let faults = [
        Fault::Refuse(ErrorCode::Busy),
        Fault::Refuse(ErrorCode::NotOwner),
        Fault::Refuse(ErrorCode::OutOfTurn),
        Fault::Doubt,
        Fault::WriteAndDoubt,
        Fault::BreakBefore,
        Fault::BreakAfter,
    ];
    random.chance(1, 10).then(|| faults[random.below(faults.len() as u64) as usize])
}

#[tokio::test]
async fn whatever_happens_an_idempotent_producer_writes_each_record_once_and_in_order() {
    for seed in 0..8 {
        let server = FakeServer::start(&[("orders", 3)]).await;
        let random = Random::from_seed(seed);
        server.shared.faults.lock().extend((0..300).map(|_| random_fault(&random)));
        let producer = server.client().await.producer(small_batches()).unwrap();
        let delivered = send_numbered(&producer, 1_000).await;
        for (number, delivered) in (0..).zip(&delivered) {
            assert_eq!(delivered.as_ref().unwrap().offset, number / 3, "seed {seed}");
        }
        assert_all_in_order(&server, 1_000);
        producer.close().await.unwrap();
    }
}

#[tokio::test]
async fn without_idempotence_nothing_is_written_twice_or_out_of_order() {
    for seed in 0..4 {
        let server = FakeServer::start(&[("orders", 3)]).await;
        let random = Random::from_seed(seed);
        server.shared.faults.lock().extend((0..100).map(|_| random_fault(&random)));
        let config = ProducerConfig { idempotent: false, ..small_batches() };
        let producer = server.client().await.producer(config).unwrap();
        let delivered = send_numbered(&producer, 500).await;
        let written: Vec<u64> = (0..3)
            .flat_map(|partition| {
                let values = server.values("orders", partition).into_iter();
                let values: Vec<u64> = values.map(|value| value.parse().unwrap()).collect();
                assert!(values.is_sorted_by(|a, b| a < b), "seed {seed}: {values:?}");
                values
            })
            .collect();
        let written: BTreeSet<u64> = written.into_iter().collect();
        for (number, delivered) in (0..).zip(delivered) {
            match delivered {
                Ok(_) => assert!(written.contains(&number), "seed {seed}: {number} was acknowledged"),
                Err(error) if error.may_have_been_applied => {}
                Err(error) => assert!(!written.contains(&number), "seed {seed}: {number}: {error}"),
            }
        }
        server.assert_no_violations();
    }
}

#[tokio::test]
async fn a_batch_that_fails_for_good_leaves_no_trace() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    server.shared.faults.lock().extend([None, None, None, Some(Fault::Refuse(ErrorCode::Damaged))]);
    let producer = server.client().await.producer(small_batches()).unwrap();
    let delivered = send_numbered(&producer, 1_000).await;
    let written: BTreeSet<String> = (0..3).flat_map(|partition| server.values("orders", partition)).collect();
    let mut failed = 0;
    for (number, delivered) in (0..1_000).zip(delivered) {
        if let Err(error) = &delivered {
            assert_eq!((error.code, error.may_have_been_applied), (ErrorCode::Damaged, false));
            failed += 1;
        }
        assert_eq!(written.contains(&number.to_string()), delivered.is_ok(), "{number}");
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn the_buffer_bounds_what_is_not_answered() {
    let server = FakeServer::start(&[("orders", 1)]).await;
    server.shared.answers.send_replace(false);
    let config = ProducerConfig { buffer_bytes: 64 << 10, batch_bytes: 4 << 10, ..ProducerConfig::default() };
    let producer = server.client().await.producer(config).unwrap();
    let send = || producer.send("orders", Record::value(vec![0; 1_000]));
    let mut deliveries = Vec::new();
    let blocked = loop {
        let mut sending = Box::pin(send());
        match tokio::time::timeout(Duration::from_millis(200), &mut sending).await {
            Ok(delivery) => deliveries.push(delivery.unwrap()),
            Err(_) => break sending,
        }
    };
    assert_eq!(deliveries.len(), (64 << 10) / (1_000 + RECORD_OVERHEAD_BYTES));
    server.shared.answers.send_replace(true);
    blocked.await.unwrap().await.unwrap();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

#[tokio::test]
async fn credit_is_respected() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    *server.shared.credit.lock() = v1::Credit { bytes: 1_100, batches: 3 };
    let producer = server.client().await.producer(small_batches()).unwrap();
    send_numbered(&producer, 1_000).await.into_iter().for_each(|delivered| assert!(delivered.is_ok()));
    assert_all_in_order(&server, 1_000);

    let error = producer.send("orders", Record::value(vec![0; 2_000])).await.unwrap().await.unwrap_err();
    assert_eq!((error.code, error.may_have_been_applied), (ErrorCode::MessageTooLarge, false), "{error}");
}

#[tokio::test]
async fn flush_waits_for_what_was_sent_and_lingers_no_longer() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    let config = ProducerConfig { linger: Duration::from_secs(40), ..ProducerConfig::default() };
    let producer = server.client().await.producer(config).unwrap();
    producer.flush().await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..100 {
        let record = Record::value(number.to_string()).with_key(number.to_string());
        deliveries.push(producer.send("orders", record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for mut delivery in deliveries {
        assert!(delivery.answer.try_recv().expect("answered before the flush was").is_ok());
    }

    let other = producer.clone();
    let delivery = producer.send("orders", Record::value("last")).await.unwrap();
    producer.close().await.unwrap();
    delivery.await.unwrap();
    let error = other.send("orders", Record::value("late")).await.unwrap_err();
    assert_eq!((error.code, error.may_have_been_applied), (ErrorCode::Unavailable, false));
    assert!(other.flush().await.is_err());
}

#[tokio::test]
async fn keyless_records_fill_one_batch_after_the_other() {
    let server = FakeServer::start(&[("orders", 8)]).await;
    let config = ProducerConfig { linger: Duration::from_secs(40), ..ProducerConfig::default() };
    let producer = server.client().await.producer(config).unwrap();
    for _ in 0..3 {
        for _ in 0..50 {
            producer.send("orders", Record::value("v")).await.unwrap();
        }
        producer.flush().await.unwrap();
    }
    let batches: usize = (0..8).map(|partition| server.batch_count("orders", partition)).sum();
    let partitions = (0..8).filter(|partition| server.batch_count("orders", *partition) > 0).count();
    assert_eq!(batches, 3);
    assert!(partitions >= 2);
}

#[tokio::test]
async fn compressed_batches_hold_the_same() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let server = FakeServer::start(&[("orders", 3)]).await;
        let producer = server.client().await.producer(ProducerConfig { compression, ..small_batches() }).unwrap();
        send_numbered(&producer, 300).await;
        assert_all_in_order(&server, 300);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_at_once() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    let client = server.client().await;
    let config = ProducerConfig { buffer_bytes: 10_000, batch_bytes: 10_000, ..ProducerConfig::default() };
    let producer = client.producer(config).unwrap();
    let code = |sent: Result<Delivery, Error>| sent.unwrap_err().code;
    assert_eq!(code(producer.send("none", Record::value("v")).await), ErrorCode::UnknownTopic);
    assert_eq!(code(producer.send("orders", Record::value("v").to_partition(3)).await), ErrorCode::UnknownPartition);
    assert_eq!(code(producer.send("orders", Record::value(vec![0; 10_000])).await), ErrorCode::MessageTooLarge);
    assert!(client.producer(ProducerConfig { batch_bytes: 0, ..ProducerConfig::default() }).is_err());
    let negative = Record { timestamp_ms: Some(-2), ..Record::value("v") };
    assert_eq!(producer.send("orders", negative).await.unwrap().await.unwrap_err().code, ErrorCode::InvalidBatch);
}

#[tokio::test]
async fn without_a_server_records_fail_when_their_time_is_over() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    let config = ProducerConfig { delivery_timeout: Duration::from_millis(300), ..small_batches() };
    let producer = server.client().await.producer(config).unwrap();
    send_numbered(&producer, 3).await.into_iter().for_each(|delivered| assert!(delivered.is_ok()));
    drop(server);
    let error = producer.send("orders", Record::value("v")).await.unwrap().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "{error}");
}

#[tokio::test]
async fn dropping_the_producer_gives_up_what_waits() {
    let server = FakeServer::start(&[("orders", 3)]).await;
    server.shared.answers.send_replace(false);
    let producer = server.client().await.producer(small_batches()).unwrap();
    let delivery = producer.send("orders", Record::value("v")).await.unwrap();
    drop(producer);
    assert!(delivery.await.unwrap_err().may_have_been_applied);
}
