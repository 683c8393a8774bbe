//! How a producer behaves.

use std::time::Duration;

use bmq_proto::ErrorCode;
use bmq_proto::record_batch::Codec;
use bmq_proto::v1;

use crate::Error;

/// When a record counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// When the owner of the partition has buffered it. Fast; lost if that process dies.
    Memory,
    /// When it is durable in storage and visible to consumers.
    #[default]
    Stored,
}

impl From<Ack> for v1::Ack {
    fn from(ack: Ack) -> Self {
        match ack {
            Ack::Memory => v1::Ack::Memory,
            Ack::Stored => v1::Ack::Stored,
        }
    }
}

/// How batches are compressed. Consumers see no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Widely known, slow.
    Gzip,
    /// Fast.
    Snappy,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        }
    }
}

/// The configuration of a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// When a record counts as written.
    pub ack: Ack,
    /// Whether the server recognises batches that are sent again. Without it a batch whose fate is unknown (after a
    /// lost connection, say) is reported as failed instead of being sent again, and each partition has only one batch
    /// under way at a time.
    pub idempotent: bool,
    /// How long a batch waits for more records. It goes at once when it is full, and waits longer only while earlier
    /// batches of its partition do. At zero, records gather only while the connection is busy.
    pub linger: Duration,
    /// Size at which a batch is full, before compression. A larger record travels in a batch of its own.
    pub batch_bytes: usize,
    /// Bytes of records that have no answer yet; `send` waits while there are as many.
    pub buffer_bytes: usize,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record may go without an answer, retries included, before it counts as failed.
    pub delivery_timeout: Duration,
}

impl Default for ProducerConfig {
    /// Stored acks, idempotent, batches of 256 KiB that wait 5 ms, 32 MiB of buffer, 60 s to deliver.
    ///
    /// Large batches: the cost of a sync is shared by all records in it, and a batch grows only as fast as records
    /// come, so that a slow producer sends small ones anyway.
    fn default() -> Self {
        Self {
            ack: Ack::Stored,
            idempotent: true,
            linger: Duration::from_millis(5),
            batch_bytes: 256 << 10,
            buffer_bytes: 32 << 20,
            compression: Compression::None,
            delivery_timeout: Duration::from_secs(60),
        }
    }
}

impl ProducerConfig {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |text: String| Err(Error::not_applied(ErrorCode::InvalidArgument, text));
        let Self { batch_bytes, buffer_bytes, linger, delivery_timeout, .. } = self;
        if *batch_bytes == 0 || *batch_bytes > MAX_BATCH_BYTES {
            return refuse(format!("batch_bytes is {batch_bytes}, must be 1 to {MAX_BATCH_BYTES}"));
        }
        if buffer_bytes < batch_bytes || *buffer_bytes > MAX_BUFFER_BYTES {
            return refuse(format!("buffer_bytes is {buffer_bytes}, must be {batch_bytes} to {MAX_BUFFER_BYTES}"));
        }
        if delivery_timeout <= linger {
            return refuse(format!("delivery_timeout is {delivery_timeout:?}, must be above linger, {linger:?}"));
        }
        Ok(())
    }
}

/// Half of what a server reads as one message.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// As much as one permit of the buffer's semaphore can count.
const MAX_BUFFER_BYTES: usize = u32::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_that_make_no_sense_are_refused() {
        let check = |spoil: fn(&mut ProducerConfig), valid: bool| {
            let mut config = ProducerConfig::default();
            spoil(&mut config);
            assert_eq!(config.validate().is_ok(), valid, "{config:?}");
        };
        check(|_| {}, true);
        check(|config| config.batch_bytes = 0, false);
        check(|config| config.batch_bytes = MAX_BATCH_BYTES + 1, false);
        check(|config| config.buffer_bytes = config.batch_bytes - 1, false);
        check(|config| config.buffer_bytes = MAX_BUFFER_BYTES + 1, false);
        check(|config| config.linger = Duration::ZERO, true);
        check(|config| config.delivery_timeout = config.linger, false);
    }
}
