//! Reading from a file that is not closed, where the store can: whole batches below the high watermark.

use bmq_proto::record_batch::split_batches;
use bmq_proto::{BytePosition, Offset, ServiceError};
use bmq_storage::{SegmentPath, SegmentStore};
use bytes::Bytes;

/// What is read beyond what was asked for, to find the batch and to end with a whole one.
const MARGIN: u64 = 1 << 20;

/// Reads about `max_bytes` of whole batches, the first of which holds `offset` and begins in `start..end`.
pub async fn read(
    store: &dyn SegmentStore,
    path: SegmentPath,
    start: BytePosition,
    end: BytePosition,
    offset: Offset,
    max_bytes: usize,
) -> Result<Bytes, ServiceError> {
    let mut window = max_bytes as u64 + MARGIN;
    loop {
        let stop = start.plus(window).min(end);
        let bytes = store.read(path, start, stop).await.map_err(|error| ServiceError::from(&error))?;
        let batches = cut(&bytes, offset, max_bytes).map_err(|reason| {
            let message = format!("{path} is damaged after byte {start}: {reason}");
            ServiceError::not_applied(bmq_proto::ErrorCode::Damaged, message)
        })?;
        if !batches.is_empty() || stop == end {
            return Ok(batches);
        }
        window *= 2;
    }
}

/// The whole batches in `bytes` from the one that holds `offset` on, about `max_bytes` of them and at least one.
fn cut(bytes: &Bytes, offset: Offset, max_bytes: usize) -> Result<Bytes, String> {
    let mut position = 0;
    let mut taken = None;
    for batch in split_batches(bytes) {
        let (header, batch) = match batch {
            Ok(batch) => batch,
            Err(error) if error.is_corrupt() => return Err(error.to_string()),
            Err(_) => break,
        };
        let next = position + batch.len();
        if header.next_offset() > offset {
            let first = *taken.get_or_insert(position);
            if first < position && next - first > max_bytes {
                break;
            }
        }
        position = next;
    }
    Ok(taken.map_or_else(Bytes::new, |first| bytes.slice(first..position)))
}
