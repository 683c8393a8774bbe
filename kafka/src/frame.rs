//! Cuts length-prefixed frames from the bytes of a connection.
//!
//! ```text
//!  ┌────────────┬──────────────────────┐
//!  │ length i32 │ length bytes: a frame │  …the next
//!  └────────────┴──────────────────────┘
//! ```
//!
//! A length is judged when its four bytes are there, before room is made for what it promises; and a connection gets
//! room only in proportion to what it has sent.

use bytes::{Buf, Bytes, BytesMut};

const PREFIX_LEN: usize = size_of::<i32>();

/// The least room to make for a read.
const READ_LEN: usize = 16 << 10;

/// Why a connection has to be closed: where its next frame begins cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame claims a negative length, {0}")]
    Negative(i32),
    #[error("a frame of {len} bytes where at most {max_frame_bytes} are allowed")]
    TooLarge { len: usize, max_frame_bytes: usize },
}

/// Cuts frames of at most a given size. Holds no bytes itself: the caller's buffer is the state.
#[derive(Debug, Clone, Copy)]
pub struct FrameDecoder {
    max_frame_bytes: usize,
}

impl FrameDecoder {
    /// `max_frame_bytes` counts the frame without its length.
    pub fn new(max_frame_bytes: usize) -> Self {
        Self { max_frame_bytes }
    }

    /// Takes the first frame off `buffer`, without its length, if all of it is there. The frame shares the buffer's
    /// memory. After an error the connection is of no more use.
    pub fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        match self.frame_len(buffer)? {
            Some(len) if buffer.len() - PREFIX_LEN >= len => {
                buffer.advance(PREFIX_LEN);
                Ok(Some(buffer.split_to(len).freeze()))
            }
            _ => Ok(None),
        }
    }

    /// How many bytes of room to make in `buffer` before the next read: what the frame still lacks, but no more than
    /// has arrived of it, so that the cost of a claim is what was paid for it.
    pub fn room_wanted(&self, buffer: &BytesMut) -> usize {
        let missing = match self.frame_len(buffer) {
            Ok(Some(len)) => (PREFIX_LEN + len).saturating_sub(buffer.len()),
            Ok(None) | Err(_) => 0,
        };
        missing.min(buffer.len()).max(READ_LEN)
    }

    /// How long the first frame in `buffer` is, without its length, if that much is known.
    pub fn frame_len(&self, buffer: &BytesMut) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = buffer.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let claimed = i32::from_be_bytes(*prefix);
        let len = usize::try_from(claimed).map_err(|_| FrameError::Negative(claimed))?;
        if len > self.max_frame_bytes {
            return Err(FrameError::TooLarge { len, max_frame_bytes: self.max_frame_bytes });
        }
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECODER: FrameDecoder = FrameDecoder { max_frame_bytes: 100 };

    #[test]
    fn frames_come_out_whole_wherever_the_bytes_are_cut() {
        let wire = [&[0, 0, 0, 3][..], b"one", &[0, 0, 0, 0], &[0, 0, 0, 5], b"three"].concat();
        for piece in 1..=wire.len() {
            let mut buffer = BytesMut::new();
            let mut frames = Vec::new();
            for bytes in wire.chunks(piece) {
                buffer.extend_from_slice(bytes);
                while let Some(frame) = DECODER.decode(&mut buffer).unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [&b"one"[..], b"", b"three"], "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_at_once() {
        let refuse = |prefix: i32| DECODER.decode(&mut BytesMut::from(&prefix.to_be_bytes()[..])).unwrap_err();
        assert_eq!(refuse(-1), FrameError::Negative(-1));
        assert_eq!(refuse(i32::MIN), FrameError::Negative(i32::MIN));
        assert_eq!(refuse(101), FrameError::TooLarge { len: 101, max_frame_bytes: 100 });
        assert_eq!(DECODER.decode(&mut BytesMut::from(&100_i32.to_be_bytes()[..])), Ok(None));
    }

    #[test]
    fn room_is_made_for_what_was_paid_for() {
        let decoder = FrameDecoder::new(1 << 30);
        let mut buffer = BytesMut::from(&(1_i32 << 30).to_be_bytes()[..]);
        assert_eq!(decoder.room_wanted(&buffer), READ_LEN);
        buffer.resize(1 << 20, 0);
        assert_eq!(decoder.room_wanted(&buffer), 1 << 20);
        let mut buffer = BytesMut::from(&100_000_i32.to_be_bytes()[..]);
        buffer.resize(80_000, 0);
        assert_eq!(decoder.room_wanted(&buffer), 20_004);
    }
}
