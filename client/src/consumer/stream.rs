//! One fetch stream: opened with positions, then batches one way and credit the other.

use std::time::Duration;

use bmq_proto::ErrorCode;
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::v1::{self, fetch_request, fetch_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::Error;

/// How long the opening may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames that wait for the connection.
const QUEUED_FRAMES: usize = 4;

/// An open stream.
pub(super) struct FetchStream {
    requests: mpsc::Sender<v1::FetchRequest>,
    responses: Streaming<v1::FetchResponse>,
    /// Bytes consumed that the server does not know of yet.
    owed: u64,
    /// Bytes that are worth a frame while there are batches to be read.
    worth_a_frame: u64,
}

impl FetchStream {
    /// Opens a stream.
    pub async fn open(stub: MessagingClient<Channel>, open: v1::FetchOpen) -> Result<Self, Error> {
        Self::try_open(stub, open).await.map_err(Error::of_a_read)
    }

    async fn try_open(mut stub: MessagingClient<Channel>, open: v1::FetchOpen) -> Result<Self, Error> {
        let worth_a_frame = open.credit_bytes / 8;
        let (requests, queue) = mpsc::channel(QUEUED_FRAMES);
        let first = v1::FetchRequest { frame: Some(fetch_request::Frame::Open(open)) };
        requests.try_send(first).expect("the queue is new and has room");
        match tokio::time::timeout(OPEN_TIMEOUT, stub.fetch(ReceiverStream::new(queue))).await {
            Ok(Ok(response)) => Ok(Self { requests, responses: response.into_inner(), owed: 0, worth_a_frame }),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => {
                let text = format!("the server did not open the fetch stream within {OPEN_TIMEOUT:?}");
                Err(Error::unknown(ErrorCode::Timeout, text))
            }
        }
    }

    /// Bytes were consumed.
    pub fn give_back(&mut self, bytes: u64) {
        self.owed += bytes;
    }

    /// The next frame. Gives credit back while it waits, or before if there is much to give. May be cancelled.
    pub async fn next(&mut self) -> Result<fetch_response::Frame, Error> {
        self.try_next().await.map_err(Error::of_a_read)
    }

    async fn try_next(&mut self) -> Result<fetch_response::Frame, Error> {
        loop {
            tokio::select! {
                biased;
                Ok(room) = self.requests.reserve(), if self.owed > self.worth_a_frame => {
                    room.send(credit(&mut self.owed));
                }
                response = self.responses.message() => {
                    let ended = || Error::unknown(ErrorCode::Unavailable, "the server ended the fetch stream");
                    let frame = response?.ok_or_else(ended)?.frame;
                    return frame.ok_or_else(|| Error::protocol("the server sent an empty frame"));
                }
                // A batch may need all the credit there is.
                Ok(room) = self.requests.reserve(), if self.owed > 0 => {
                    room.send(credit(&mut self.owed));
                }
            }
        }
    }
}

fn credit(owed: &mut u64) -> v1::FetchRequest {
    let bytes = std::mem::take(owed);
    v1::FetchRequest { frame: Some(fetch_request::Frame::Credit(v1::FetchCredit { bytes })) }
}
