//! The frame of one response.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ResponseKind;

use crate::fetch_response::put_fetch_response;

/// A response as it goes to the socket, its length included: parts to be written one after the other, with one
/// vectored write where possible. Record batches are parts of their own, shared with whoever else holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseFrame {
    pub parts: Vec<Bytes>,
}

impl ResponseFrame {
    /// The bytes of all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Never: a frame begins with its length.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A response that its version cannot say: a bug of the handler that made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("a response cannot be encoded in version {version}: {reason}")]
    Unencodable { version: i16, reason: String },
    #[error("a response of {0} bytes is longer than a frame can be")]
    TooLong(usize),
}

/// Encodes the answer to the request of that number and version.
pub fn encode_response(
    correlation_id: i32,
    version: i16,
    response: ResponseKind,
) -> Result<ResponseFrame, EncodeError> {
    let mut frame = FrameBuilder::default();
    let bytes = frame.own();
    bytes.put_i32(0);
    bytes.put_i32(correlation_id);
    if response.header_version(version) >= 1 {
        bytes.put_u8(0);
    }
    match response {
        ResponseKind::Fetch(response) => put_fetch_response(&mut frame, version, &response)?,
        response => response
            .encode(frame.own(), version)
            .map_err(|error| EncodeError::Unencodable { version, reason: format!("{error:#}") })?,
    }
    frame.finish()
}

/// A frame in the making: bytes of its own, and foreign bytes to be put in between without a copy.
#[derive(Default)]
pub(crate) struct FrameBuilder {
    own: BytesMut,
    /// Foreign bytes, each with how much of `own` comes before it.
    foreign: Vec<(usize, Bytes)>,
}

impl FrameBuilder {
    pub(crate) fn own(&mut self) -> &mut BytesMut {
        &mut self.own
    }

    pub(crate) fn put_foreign(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.foreign.push((self.own.len(), bytes));
        }
    }

    /// Writes the length, which takes the first four bytes.
    fn finish(mut self) -> Result<ResponseFrame, EncodeError> {
        let foreign_len = self.foreign.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let len = self.own.len() - size_of::<i32>() + foreign_len;
        let prefix = i32::try_from(len).map_err(|_| EncodeError::TooLong(len))?;
        self.own[..size_of::<i32>()].copy_from_slice(&prefix.to_be_bytes());

        let own = self.own.freeze();
        let mut parts = Vec::with_capacity(2 * self.foreign.len() + 1);
        let mut done = 0;
        for (before, bytes) in self.foreign {
            parts.push(own.slice(done..before));
            parts.push(bytes);
            done = before;
        }
        parts.push(own.slice(done..));
        parts.retain(|part| !part.is_empty());
        Ok(ResponseFrame { parts })
    }
}
