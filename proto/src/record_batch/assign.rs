//! The only bytes of a batch that ever change: base offset and leader epoch, written when offsets are assigned.
//!
//! Both lie outside the CRC, so the batch stays valid and the records stay closed.

use bytes::{Bytes, BytesMut};

use super::{HEADER_LEN, field};
use crate::ids::{Epoch, Offset};

/// Writes the base offset and the leader epoch into `batch`, in place.
///
/// # Panics
/// If `batch` is shorter than a header, or a number is outside Kafka's range. Batches come here validated.
pub fn patch_assigned(batch: &mut [u8], base_offset: Offset, leader_epoch: Epoch) {
    assert!(batch.len() >= HEADER_LEN, "a validated batch has a header, this has {} bytes", batch.len());
    let base_offset = i64::try_from(base_offset.0).expect("offsets stay at or below i64::MAX");
    let leader_epoch = i32::try_from(leader_epoch.0).expect("epochs stay at or below i32::MAX");
    batch[field::BASE_OFFSET..field::LENGTH].copy_from_slice(&base_offset.to_be_bytes());
    batch[field::LEADER_EPOCH..field::MAGIC].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Like [`patch_assigned`], on shared bytes: in place if nobody else holds their buffer, else in one copy.
///
/// # Panics
/// As [`patch_assigned`].
pub fn assign(batch: Bytes, base_offset: Offset, leader_epoch: Epoch) -> Bytes {
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    patch_assigned(&mut batch, base_offset, leader_epoch);
    batch.freeze()
}
