//! Record batches that are not what they say.

use anyhow::{Context, Result, bail, ensure};
use bmq_integration_tests::one_partition::batch_of;
use bmq_proto::v1::{self, produce_batch, produce_request, produce_response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::{TOPIC, Target};

/// A produce stream, one batch at a time.
struct Stream {
    frames: mpsc::Sender<v1::ProduceRequest>,
    answers: Streaming<v1::ProduceResponse>,
    sequence: u64,
}

impl Stream {
    async fn open(target: &Target) -> Result<Self> {
        let (frames, receiver) = mpsc::channel(16);
        let open = v1::ProduceOpen { ack: v1::Ack::Stored.into(), idempotent: false };
        frames.send(v1::ProduceRequest { frame: Some(produce_request::Frame::Open(open)) }).await?;
        let answers = target.messaging()?.produce(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { frames, answers, sequence: 0 })
    }

    async fn send(&mut self, topic: &str, partition: u32, batch: impl Into<Bytes>) -> Result<v1::ProduceResult> {
        self.sequence += 1;
        let payload = Some(produce_batch::Payload::Batch(batch.into()));
        let batch = v1::ProduceBatch { sequence: self.sequence, topic: topic.to_owned(), partition, payload };
        self.frames.send(v1::ProduceRequest { frame: Some(produce_request::Frame::Batch(batch)) }).await?;
        while let Some(answer) = self.answers.message().await? {
            match answer.frame.context("an answer without a frame")? {
                produce_response::Frame::Result(result) => {
                    ensure!(result.sequence == self.sequence, "an answer to another batch");
                    return Ok(result);
                }
                produce_response::Frame::Opened(_) | produce_response::Frame::Credit(_) => {}
            }
        }
        bail!("the stream ended")
    }

    async fn assert_refused(&mut self, batch: &[u8], code: &str, words: &str) -> Result<()> {
        let result = self.send(TOPIC, 0, batch.to_vec()).await.with_context(|| words.to_owned())?;
        let error = result.error.with_context(|| format!("it was taken: {words}"))?;
        let is_clear = error.code == code && error.message.contains(words);
        ensure!(is_clear && !error.may_have_been_applied && !error.retriable, "{words}: {error:?}");
        Ok(())
    }
}

fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch_of("a value").to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    batch
}

/// With a checksum that fits.
fn resealed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[tokio::test]
async fn batches_that_lie_are_refused_and_the_stream_goes_on() -> Result<()> {
    let target = Target::start()?;
    let mut stream = Stream::open(&target).await?;
    let good = batch_of("a value");
    let length = |length: i32| changed(8, &length.to_be_bytes());
    let flip_last = changed(good.len() - 1, &[good[good.len() - 1] ^ 1]);
    let records = |count: i32| resealed(changed(57, &count.to_be_bytes()));

    stream.assert_refused(b"", "INVALID_BATCH", "").await?;
    stream.assert_refused(b"garbage", "INVALID_BATCH", "").await?;
    stream.assert_refused(&[0xff; 300], "INVALID_BATCH", "").await?;
    stream.assert_refused(&flip_last, "INVALID_BATCH", "checksum").await?;
    stream.assert_refused(&good[..good.len() - 1], "INVALID_BATCH", "").await?;
    stream.assert_refused(&[&good[..], b"x"].concat(), "INVALID_BATCH", "1 bytes follow the batch").await?;
    stream.assert_refused(&[&good[..], &good[..]].concat(), "INVALID_BATCH", "one batch at a time").await?;
    stream.assert_refused(&length(-1), "INVALID_BATCH", "length").await?;
    stream.assert_refused(&length(0), "INVALID_BATCH", "length").await?;
    stream.assert_refused(&length(i32::MAX), "MESSAGE_TOO_LARGE", "").await?;
    stream.assert_refused(&changed(16, &[1]), "INVALID_BATCH", "magic").await?;
    stream.assert_refused(&records(0), "INVALID_BATCH", "record").await?;
    stream.assert_refused(&records(-5), "INVALID_BATCH", "record").await?;
    stream.assert_refused(&records(i32::MAX), "INVALID_BATCH", "record").await?;
    let large = batch_of(&"x".repeat(2 << 20));
    stream.assert_refused(&large, "MESSAGE_TOO_LARGE", "").await?;

    for (topic, partition, code) in
        [("absent", 0, "UNKNOWN_TOPIC"), (TOPIC, 2, "UNKNOWN_PARTITION"), (TOPIC, u32::MAX, "UNKNOWN_PARTITION")]
    {
        let error = stream.send(topic, partition, good.clone()).await?.error.context("it was taken")?;
        ensure!(error.code == code && error.message.contains(topic), "{error:?}");
    }
    let taken = stream.send(TOPIC, 0, good).await?;
    ensure!(taken.error.is_none() && taken.base_offset == 0, "nothing before was taken: {taken:?}");
    drop(stream);
    target.assert_well(250)
}
