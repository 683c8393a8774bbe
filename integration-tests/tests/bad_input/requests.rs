//! Requests that make no sense, through the tools and through the API.

use anyhow::{Result, ensure};
use bmq_proto::rpc::status::detail_from_public_status;
use bmq_proto::v1;
use bytes::Bytes;

use super::{TOPIC, Target};

#[test]
fn topics_that_cannot_be_are_refused() -> Result<()> {
    let target = Target::start()?;
    let long = "x".repeat(300);
    let cases: &[(&[&str], &str)] = &[
        (&[&long], "the topic name has 300 bytes, at most 249 are allowed"),
        (&[""], "`` is not a topic name"),
        (&["a/b"], "topic name `a/b` holds '/', allowed are letters, digits"),
        (&[".."], "`..` is not a topic name"),
        (&["Grüße"], "topic name `Grüße` holds 'ü'"),
        (&["line\nbreak"], "holds '\\n'"),
        (&["none", "--partitions", "0"], "a topic has 1 to 10000 partitions, not 0"),
        (&["many", "--partitions", "10000000"], "a topic has 1 to 10000 partitions, not 10000000"),
        (&["set", "--config", "segment.byte=1"], "no topic setting is called `segment.byte`"),
        (&["set", "--config", "segment.bytes=huge"], "it must be a number from"),
        (&["set", "--config", "segment.bytes=-1"], "it must be a number from"),
        (&[TOPIC], "events"),
    ];
    for (arguments, words) in cases {
        let (code, said) = target.standalone.refused(&[&["topic", "create"], *arguments].concat())?;
        ensure!(code == 5 && said.contains(words), "{arguments:?}: {code}: {said}");
    }
    target.assert_well(200)
}

fn detail(status: tonic::Status) -> v1::ErrorDetail {
    detail_from_public_status(&status)
}

#[tokio::test]
async fn calls_that_cannot_be_answered_are_refused() -> Result<()> {
    let target = Target::start()?;
    let mut client = target.messaging()?;
    let poll = |topic: &str, partition, at| v1::PollRequest {
        topic: topic.to_owned(),
        partition,
        position: at,
        ..Default::default()
    };
    let at = |offset| Some(v1::Position { at: Some(v1::position::At::Offset(offset)) });
    let long = "y".repeat(300);
    let cases = [
        (poll("absent", 0, at(0)), "UNKNOWN_TOPIC", "absent"),
        (poll(&long, 0, at(0)), "INVALID_ARGUMENT", "the topic name has 300 bytes, at most 249 are allowed"),
        (poll(TOPIC, 9, at(0)), "UNKNOWN_PARTITION", "9"),
        (poll(TOPIC, 0, at(1)), "OUT_OF_RANGE", "offset 1 lies outside"),
        (poll(TOPIC, 0, at(u64::MAX)), "INVALID_ARGUMENT", "is not an offset"),
        (poll(TOPIC, 0, None), "INVALID_ARGUMENT", "a position is missing"),
    ];
    for (request, code, words) in cases {
        let error = detail(client.poll(request).await.expect_err(code));
        ensure!(error.code == code && error.message.contains(words), "{code}: {error:?}");
    }
    let empty = v1::SendRequest { topic: TOPIC.to_owned(), ack: v1::Ack::Stored.into(), ..Default::default() };
    let error = detail(client.send(empty).await.expect_err("there is nothing to send"));
    ensure!(error.code == "INVALID_ARGUMENT" && error.message.contains("at least one record"), "{error:?}");
    target.assert_well(200)
}

#[tokio::test]
async fn messages_beyond_the_limit_are_refused_unread() -> Result<()> {
    let target = Target::start()?;
    let mut client = target.messaging()?;
    let value = Some(Bytes::from(vec![7; 40 << 20]));
    let send = v1::SendRequest {
        topic: TOPIC.to_owned(),
        ack: v1::Ack::Stored.into(),
        records: vec![v1::Record { value, ..Default::default() }],
        ..Default::default()
    };
    for _ in 0..5 {
        let error = detail(client.send(send.clone()).await.expect_err("40 MiB are too many"));
        ensure!(error.code == "MESSAGE_TOO_LARGE" && error.message.contains("too large"), "{error:?}");
    }
    // One within the limit of messages, and beyond that of batches.
    let value = Some(Bytes::from(vec![7; 20 << 20]));
    let send = v1::SendRequest { records: vec![v1::Record { value, ..Default::default() }], ..send };
    let error = detail(client.send(send).await.expect_err("20 MiB are too many"));
    ensure!(error.code == "MESSAGE_TOO_LARGE", "{error:?}");
    target.assert_well(300)
}
