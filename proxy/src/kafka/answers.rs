//! Answers on their way to the socket: parts of many places, written together without a copy.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bmq_kafka::ResponseFrame;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::connection::ConnectionError;

/// A client that reads slower than this for long is cut off.
const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;

/// The writing half of a connection.
pub struct Answers<W> {
    stream: W,
    patience: Duration,
}

impl<W: AsyncWrite + Unpin> Answers<W> {
    pub fn new(stream: W, patience: Duration) -> Self {
        Self { stream, patience }
    }

    /// Writes the frames one after the other and returns how many bytes they had. Must not be cancelled.
    pub async fn send(&mut self, frames: impl IntoIterator<Item = ResponseFrame>) -> Result<usize, ConnectionError> {
        let mut parts = Parts(frames.into_iter().flat_map(|frame| frame.parts).collect());
        let bytes = parts.remaining();
        if bytes == 0 {
            return Ok(0);
        }
        let time = self.patience + Duration::from_secs(bytes as u64 / LEAST_BYTES_PER_SECOND);
        match tokio::time::timeout(time, self.stream.write_all_buf(&mut parts)).await {
            Ok(written) => written?,
            Err(_) => return Err(ConnectionError::NotReading),
        }
        Ok(bytes)
    }
}

/// Bytes that follow one another, none of them empty.
struct Parts(VecDeque<Bytes>);

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let count = out.len().min(self.0.len());
        out.iter_mut().zip(&self.0).for_each(|(slot, part)| *slot = IoSlice::new(part));
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.0.front_mut().expect("no more is written than there is");
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(parts: &[&'static str]) -> ResponseFrame {
        ResponseFrame { parts: parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect() }
    }

    #[tokio::test]
    async fn parts_arrive_in_order_however_little_the_socket_takes() {
        for room in [1, 2, 3, 7, 100] {
            let (ours, mut theirs) = tokio::io::duplex(room);
            let mut answers = Answers::new(ours, Duration::from_secs(5));
            let sending = async {
                let bytes = answers.send([frame(&["one", "two"]), frame(&["three"])]).await.unwrap();
                drop(answers);
                bytes
            };
            let mut text = String::new();
            let (bytes, _) = tokio::join!(sending, theirs.read_to_string(&mut text));
            assert_eq!((bytes, text.as_str()), (11, "onetwothree"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut answers = Answers::new(ours, Duration::from_secs(5));
        let sent = answers.send([frame(&["hello"])]).await;
        assert!(matches!(sent, Err(ConnectionError::NotReading)));
    }
}
