//! Concatenated batches, taken apart.

use std::iter::FusedIterator;

use bytes::Bytes;

use super::{BatchError, BatchHeader};

/// Walks the batches that stand one after another in `bytes`, without copying and without checking CRCs.
///
/// Ends after the last batch, or with one error. [`BatchError::Truncated`] means that the bytes end inside a batch
/// whose header, as far as it is there, is in order; a damaged length can look the same, so compare `needed` with the
/// largest batch that can exist.
pub fn split_batches(bytes: &Bytes) -> BatchIter {
    BatchIter { rest: bytes.clone() }
}

/// The iterator of [`split_batches`]; each batch is a slice of the bytes given.
#[derive(Debug, Clone)]
pub struct BatchIter {
    /// What is not yet walked; empty after an error.
    rest: Bytes,
}

impl BatchIter {
    fn split_first(&mut self) -> Result<(BatchHeader, Bytes), BatchError> {
        let header = BatchHeader::parse(&self.rest)?;
        if header.total_len() > self.rest.len() {
            return Err(BatchError::Truncated { needed: header.total_len(), have: self.rest.len() });
        }
        Ok((header, self.rest.split_to(header.total_len())))
    }
}

impl Iterator for BatchIter {
    type Item = Result<(BatchHeader, Bytes), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = self.split_first();
        if first.is_err() {
            self.rest.clear();
        }
        Some(first)
    }
}

impl FusedIterator for BatchIter {}
