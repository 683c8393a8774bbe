//! Lines of an input, in blocks of whole lines, read by a thread of its own so that reading and sending overlap.
//!
//! Invariant: blocks back to back are the input, byte for byte; each but the last ends with a newline.

use std::io::{self, Read};
use std::thread;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// How much is read at once.
const READ_BYTES: usize = 1 << 20;

/// A line larger than any record can be.
const MAX_LINE_BYTES: usize = 32 << 20;

/// Blocks read ahead.
const AHEAD: usize = 4;

/// The blocks as they come.
pub struct Lines {
    blocks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Lines {
    /// Begins to read. The thread ends with the input, or at the next block after this was dropped.
    pub fn of(input: Box<dyn Read + Send>) -> Self {
        let (sender, blocks) = mpsc::channel(AHEAD);
        thread::spawn(move || read_blocks(input, &mut |block| sender.blocking_send(block).is_ok()));
        Lines { blocks }
    }

    /// The next block; none at the end. May be cancelled and called again.
    pub async fn next_block(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.blocks.recv().await.transpose().context("cannot read the input")
    }
}

/// The lines of a block, without their newlines.
pub fn split(block: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == block.len() {
            return None;
        }
        let end = block[start..].iter().position(|byte| *byte == b'\n').map_or(block.len(), |at| start + at);
        let line = block.slice(start..end);
        start = block.len().min(end + 1);
        Some(line)
    })
}

/// Gives blocks to `take` until that refuses, the input ends, or an error was given.
fn read_blocks(mut input: impl Read, take: &mut dyn FnMut(io::Result<Bytes>) -> bool) {
    let mut buffer = BytesMut::new();
    loop {
        let block = match fill(&mut input, &mut buffer) {
            Ok(0) if buffer.is_empty() => return,
            Ok(0) => Ok(buffer.split().freeze()),
            Ok(_) => match buffer.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => Ok(buffer.split_to(last + 1).freeze()),
                None if buffer.len() <= MAX_LINE_BYTES => continue,
                None => Err(io::Error::other(format!("a line is longer than {MAX_LINE_BYTES} bytes"))),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = block.is_err();
        if !take(block) || failed {
            return;
        }
    }
}

/// Reads once, behind what `buffer` holds.
fn fill(input: &mut impl Read, buffer: &mut BytesMut) -> io::Result<usize> {
    let held = buffer.len();
    buffer.resize(held + READ_BYTES, 0);
    let read = input.read(&mut buffer[held..]);
    buffer.truncate(held + *read.as_ref().unwrap_or(&0));
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces one by one.
    struct Pieces(Vec<&'static [u8]>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    fn check(pieces: &[&'static [u8]], expect: &[&[u8]]) {
        let mut lines = Vec::new();
        read_blocks(Pieces(pieces.to_vec()), &mut |block| {
            lines.extend(split(&block.unwrap()));
            true
        });
        assert_eq!(lines, expect);
    }

    #[test]
    fn lines_are_found_wherever_reads_end() {
        check(&[], &[]);
        check(&[b"one\ntwo\n"], &[b"one", b"two"]);
        check(&[b"o", b"ne\nt", b"wo\n"], &[b"one", b"two"]);
        check(&[b"one\n\n\r\n"], &[b"one", b"", b"\r"]);
        check(&[b"one\nla", b"st"], &[b"one", b"last"]);
        check(&[b"\n"], &[b""]);
        check(&[b"\0\xff\n"], &[b"\0\xff"]);
    }

    #[test]
    fn a_taker_that_refuses_ends_the_reading() {
        let mut taken = 0;
        read_blocks(Pieces(vec![b"one\n", b"two\n"]), &mut |_| {
            taken += 1;
            false
        });
        assert_eq!(taken, 1);
    }
}
