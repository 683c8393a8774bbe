//! The Kafka wire protocol without IO: bytes in, bytes out.
//!
//! ```text
//!  socket ─▶ FrameDecoder ─▶ parse_request: header, walk, decode ─▶ Request ─▶ (a handler, elsewhere)
//!  socket ◀─ ResponseFrame ◀─ encode_response ◀──────────────────── ResponseKind ◀───┘
//! ```
//!
//! * Nothing here panics or allocates more than a small multiple of the frame, whatever the bytes are.
//! * Record batches are never copied nor looked into: those of a Produce request are slices of its frame, those of a
//!   Fetch response are parts of its frame. A slice keeps its whole frame alive: copy a name that is to be kept.
//! * What is done is in one table, [`supported`]. What is not there is not advertised and not accepted.

pub mod error;
mod fetch_response;
pub mod frame;
pub mod request;
pub mod response;
mod schema;
pub mod supported;
mod walk;

pub use frame::{FrameDecoder, FrameError};
pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::messages;
pub use kafka_protocol::messages::{ApiKey, RequestKind, ResponseKind};
pub use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
pub use request::{Request, RequestError, parse_request};
pub use response::{EncodeError, ResponseFrame, encode_response};
pub use uuid::Uuid;
pub use walk::{Flaw, WalkError};
