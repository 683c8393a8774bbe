//! Reads many partitions for one answer: what is there, up to a limit; and if that is not enough, what comes.

use std::time::Duration;

use bmq_common::Shutdown;
use bmq_proto::{Offset, ServiceError};
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::fetch::Reader;

/// Partitions read at the same time.
const READ_AT_ONCE: usize = 8;

/// Less than this is read on until there is more, at the price of copying it together.
const COPY_BELOW_BYTES: usize = 256 << 10;

/// How long partitions without an owner may keep the others waiting. They have another try at the next fetch.
const PATIENCE: Duration = Duration::from_millis(200);

/// A pause after a wake-up that brought nothing.
const SPURIOUS_PAUSE: Duration = Duration::from_millis(5);

/// One partition that is read for an answer.
pub struct Part {
    pub reader: Reader,
    pub max_bytes: usize,
    /// Where to read on.
    pub next_offset: Offset,
    pub error: Option<ServiceError>,
    /// Where it began.
    start: Offset,
    batches: Vec<Bytes>,
    bytes: usize,
}

/// How much to read, and how long to wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Appetite {
    pub min_bytes: usize,
    pub max_bytes: usize,
    pub wait_until: Instant,
}

impl Part {
    pub fn new(reader: Reader, offset: Offset, max_bytes: usize) -> Self {
        let max_bytes = max_bytes.max(1);
        Self { reader, max_bytes, next_offset: offset, error: None, start: offset, batches: Vec::new(), bytes: 0 }
    }

    /// Where what was read ends; the first offset of all if nothing was.
    pub fn next_offset_read(&self) -> Offset {
        if self.bytes > 0 { self.next_offset } else { Offset::ZERO }
    }

    /// All batches read, back to back; one slice is not copied.
    pub fn take_batches(&mut self) -> Bytes {
        if self.batches.len() <= 1 {
            return self.batches.pop().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(self.bytes);
        self.batches.drain(..).for_each(|batches| whole.extend_from_slice(&batches));
        whole.freeze()
    }

    /// Reads what is there, until there are `max_bytes` in all: at least one batch, if there is any, and more than one
    /// slice only up to `wanted` or as long as copying is cheap. What only waiting mends is no error; `deadline` is for
    /// that.
    async fn read(&mut self, max_bytes: usize, wanted: usize, deadline: Instant) {
        let max_bytes = self.max_bytes.min(max_bytes);
        while self.error.is_none() && self.bytes < max_bytes.min(wanted.max(COPY_BELOW_BYTES)) {
            if self.reader.is_at_end(self.next_offset) {
                return;
            }
            let more = max_bytes - self.bytes;
            match self.reader.read(self.next_offset, more, deadline).await {
                Ok(slice) if slice.next_offset == self.next_offset => return,
                // Only the first batch may pass the limit.
                Ok(slice) if self.bytes > 0 && slice.batches.len() > more => return,
                Ok(slice) => {
                    self.next_offset = slice.next_offset;
                    self.bytes += slice.batches.len();
                    if !slice.batches.is_empty() {
                        self.batches.push(slice.batches);
                    }
                }
                // What was read is good, whatever comes after it.
                Err(_) if self.bytes > 0 => return,
                Err(error) if error.is_retriable() => return,
                Err(error) => self.error = Some(error),
            }
            if self.bytes > 0 && self.reader.bounds().high_watermark <= self.next_offset {
                return;
            }
        }
    }

    /// As if nothing had been read.
    fn forget(&mut self) {
        self.next_offset = self.start;
        self.batches.clear();
        self.bytes = 0;
    }
}

/// Reads until `min_bytes` are there, something fails, the time is over, or `gone` begins.
pub async fn gather(parts: &mut [&mut Part], appetite: Appetite, gone: &Shutdown) {
    let Appetite { min_bytes, max_bytes, wait_until } = appetite;
    let max_bytes = max_bytes.max(1);
    let mut total = read_all(parts, max_bytes).await;
    while total < min_bytes && !parts.iter().any(|part| part.error.is_some()) {
        let lacking = min_bytes - total;
        let woken = tokio::select! {
            woken = first_readable(parts, lacking, wait_until) => woken,
            () = gone.begun() => None,
        };
        let Some(woken) = woken else { return };
        let part = &mut parts[woken];
        let before = part.bytes;
        let (limit, wanted) = (before + max_bytes.saturating_sub(total).max(1), before + lacking);
        part.read(limit, wanted, Instant::now() + PATIENCE).await;
        let read = part.bytes - before;
        total += read;
        if read == 0 && part.error.is_none() {
            tokio::time::sleep(SPURIOUS_PAUSE).await;
        }
    }
}

/// Reads what is there now, in order, until the limit is reached.
async fn read_all(parts: &mut [&mut Part], max_bytes: usize) -> usize {
    let (mut total, deadline) = (0, Instant::now() + PATIENCE);
    for some in parts.chunks_mut(READ_AT_ONCE) {
        join_all(some.iter_mut().map(|part| part.read(max_bytes, 0, deadline).boxed())).await;
        total += some.iter().map(|part| part.bytes).sum::<usize>();
        if total >= max_bytes {
            break;
        }
    }
    // Those read at the same time did not know of each other.
    let mut kept = 0;
    for part in parts {
        if kept > 0 && kept + part.bytes > max_bytes {
            part.forget();
        }
        kept += part.bytes;
    }
    kept
}

/// Waits until a partition has something to read, or the time is over.
async fn first_readable(parts: &mut [&mut Part], lacking: usize, until: Instant) -> Option<usize> {
    // More bytes than one may be asked of a partition only if no other could bring them.
    let min_bytes = if parts.len() == 1 { lacking as u64 } else { 1 };
    let waits = parts.iter_mut().enumerate().filter(|(_, part)| part.bytes < part.max_bytes);
    let mut waits: FuturesUnordered<_> = waits
        .map(|(number, part)| async move {
            let is_woken = part.reader.wait(part.next_offset, min_bytes, Some(until)).await;
            is_woken.then_some(number)
        })
        .map(FutureExt::boxed)
        .collect();
    match waits.next().await {
        Some(woken) => woken,
        None => {
            tokio::time::sleep_until(until).await;
            None
        }
    }
}
