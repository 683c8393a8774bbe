//! One produce stream: opened with its first frames, then frames both ways.

use std::future::Future;
use std::time::Duration;

use bmq_proto::ErrorCode;
use bmq_proto::record_batch::ProducerKey;
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::v1::{self, produce_request, produce_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::Ack;
use crate::Error;

/// How long the opening may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames that wait for the connection. Few: what waits here has left the control of credit and order.
const QUEUED_FRAMES: usize = 8;

/// An open stream.
pub(super) struct ProduceStream {
    pub requests: mpsc::Sender<v1::ProduceRequest>,
    responses: Streaming<v1::ProduceResponse>,
}

/// What the server said at the beginning.
pub(super) struct Opened {
    pub producer: Option<ProducerKey>,
    pub credit: v1::Credit,
}

/// What may come of a stream.
pub(super) enum StreamEvent {
    Result(v1::ProduceResult),
    Credit(v1::Credit),
    /// There is room for another frame.
    Room,
}

/// Opens a stream; asks for a producer id if that is wanted.
pub(super) async fn open(
    mut stub: MessagingClient<Channel>,
    ack: Ack,
    wants_producer_id: bool,
) -> Result<(ProduceStream, Opened), Error> {
    let opening = async move {
        let (requests, queue) = mpsc::channel(QUEUED_FRAMES);
        let open = v1::ProduceOpen { ack: v1::Ack::from(ack).into(), idempotent: wants_producer_id };
        let first = v1::ProduceRequest { frame: Some(produce_request::Frame::Open(open)) };
        requests.try_send(first).expect("the queue is new and has room");
        let mut responses = stub.produce(ReceiverStream::new(queue)).await?.into_inner();
        let opened = match next_frame(&mut responses).await? {
            produce_response::Frame::Opened(opened) => read_opened(opened, wants_producer_id)?,
            frame => return Err(Error::protocol(format!("the server began a produce stream with {frame:?}"))),
        };
        Ok((ProduceStream { requests, responses }, opened))
    };
    within(OPEN_TIMEOUT, opening).await
}

async fn within<T>(time: Duration, opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(time, opening).await.unwrap_or_else(|_| {
        let text = format!("the server did not open the produce stream within {time:?}");
        Err(Error::not_applied(ErrorCode::Timeout, text))
    })
}

fn read_opened(opened: v1::ProduceOpened, wants_producer_id: bool) -> Result<Opened, Error> {
    let producer = match opened.producer_id {
        Some(id) => {
            let epoch = i16::try_from(opened.producer_epoch).ok();
            let key = epoch.filter(|_| id >= 0).map(|epoch| ProducerKey { id, epoch });
            Some(key.ok_or_else(|| Error::protocol("the server gave a producer id that is none"))?)
        }
        None if wants_producer_id => return Err(Error::protocol("the server gave no producer id")),
        None => None,
    };
    let credit = opened.credit.ok_or_else(|| Error::protocol("the server gave no credit"))?;
    Ok(Opened { producer, credit })
}

impl ProduceStream {
    /// The next event; `Room` only if `wants_room`. May be cancelled. An error ends the stream.
    pub async fn next(&mut self, wants_room: bool) -> Result<StreamEvent, Error> {
        tokio::select! {
            event = next_event(&mut self.responses) => event,
            room = self.requests.reserve(), if wants_room => match room {
                Ok(_) => Ok(StreamEvent::Room),
                // The connection is gone; what still comes from the other side ends with the reason.
                Err(_) => next_event(&mut self.responses).await,
            },
        }
    }
}

async fn next_event(responses: &mut Streaming<v1::ProduceResponse>) -> Result<StreamEvent, Error> {
    match next_frame(responses).await? {
        produce_response::Frame::Result(result) => Ok(StreamEvent::Result(result)),
        produce_response::Frame::Credit(credit) => Ok(StreamEvent::Credit(credit)),
        frame => Err(Error::protocol(format!("unexpected frame in a produce stream: {frame:?}"))),
    }
}

async fn next_frame(responses: &mut Streaming<v1::ProduceResponse>) -> Result<produce_response::Frame, Error> {
    let ended = || Error::unknown(ErrorCode::Unavailable, "the server ended the produce stream");
    let response = responses.message().await?.ok_or_else(ended)?;
    response.frame.ok_or_else(|| Error::protocol("the server sent an empty frame"))
}
