//! The working half of a connection: takes requests in order, has them done, writes the answers in order.

use bmq_kafka::messages::ProduceRequest;
use bmq_kafka::{ApiKey, Request, RequestKind, ResponseFrame, ResponseKind, encode_response, parse_request};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{debug, error};

use super::answers::Answers;
use super::connection::{Arrived, ConnectionError, Turn};
use super::context::{ClientConnection, RequestContext};
use super::dispatch::dispatch;
use super::produce::{Finished, Produces};
use crate::api::{Api, with_share};

/// See the head of the file.
pub struct Worker<'a> {
    api: &'a Api,
    client: ClientConnection,
    answers: Answers<OwnedWriteHalf>,
    produces: Produces,
}

/// A request that was read.
enum Job {
    Produce(Heading, ProduceRequest),
    Other(Heading, RequestKind),
    /// It is answered as it stands.
    Answered(Heading, ResponseFrame),
}

/// What of a request its answer needs.
pub struct Heading {
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: String,
    pub turn: Turn,
    /// Of a request whose bytes do not hold it themselves.
    _share: Option<OwnedSemaphorePermit>,
}

impl<'a> Worker<'a> {
    pub fn new(api: &'a Api, client: ClientConnection, answers: Answers<OwnedWriteHalf>) -> Self {
        Self { api, client, answers, produces: Produces::new() }
    }

    /// Works until intake has ended and everything is answered.
    pub async fn run(mut self, mut arrived: mpsc::Receiver<Arrived>) -> Result<(), ConnectionError> {
        let mut intake_goes_on = true;
        // A request that waits until those before it are answered.
        let mut held: Option<Job> = None;
        while intake_goes_on || held.is_some() || !self.produces.is_empty() {
            tokio::select! {
                () = self.produces.progress(), if !self.produces.is_empty() => self.send_finished().await?,
                request = arrived.recv(), if intake_goes_on && held.is_none() => match request {
                    Some(request) => held = Some(self.read(request)?),
                    None => intake_goes_on = false,
                },
            }
            if let Some(job) = held.take() {
                held = self.begin(job).await?;
            }
        }
        Ok(())
    }

    fn read(&self, arrived: Arrived) -> Result<Job, ConnectionError> {
        let Arrived { frame, share, turn } = arrived;
        // Batches may be held longer than until the answer, and their share with them.
        let is_produce = frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes());
        let (frame, share) = if is_produce { (with_share(frame, share), None) } else { (frame, Some(share)) };
        let heading = |api_key, version, correlation_id, client_id: Option<String>| Heading {
            api_key,
            version,
            correlation_id,
            client_id: client_id.unwrap_or_default(),
            turn,
            _share: share,
        };
        match parse_request(frame) {
            Ok(Request { api_key, version, correlation_id, client_id, body }) => {
                let heading = heading(api_key, version, correlation_id, client_id);
                Ok(match body {
                    RequestKind::Produce(request) => Job::Produce(heading, request),
                    other => Job::Other(heading, other),
                })
            }
            Err(error) => {
                self.api.kafka.metrics.request_refused();
                debug!(%error, host = %self.client.host, "a request cannot be served");
                match error.answer() {
                    Some(frame) => Ok(Job::Answered(heading(ApiKey::ApiVersions, 0, 0, None), frame)),
                    None => Err(error.into()),
                }
            }
        }
    }

    /// Begins a request, or hands it back if it has to wait for those under way.
    async fn begin(&mut self, job: Job) -> Result<Option<Job>, ConnectionError> {
        match job {
            Job::Produce(heading, request) if self.produces.may_begin(&request) => {
                self.client.client_id.clone_from(&heading.client_id);
                let context = RequestContext { api: self.api, client: &self.client, version: heading.version };
                self.produces.begin(&context, heading, request).await;
                self.send_finished().await?;
                Ok(None)
            }
            Job::Other(heading, request) if self.produces.is_empty() => {
                self.client.client_id.clone_from(&heading.client_id);
                self.serve(heading, request).await?;
                Ok(None)
            }
            Job::Answered(heading, frame) if self.produces.is_empty() => {
                self.send(vec![(heading, frame)]).await?;
                Ok(None)
            }
            waiting => Ok(Some(waiting)),
        }
    }

    async fn serve(&mut self, heading: Heading, request: RequestKind) -> Result<(), ConnectionError> {
        let context = RequestContext { api: self.api, client: &self.client, version: heading.version };
        // In a box, so that an idle connection is small.
        let answer = Box::pin(dispatch(&context, request));
        let response = tokio::select! {
            response = answer => response,
            () = cut_off(self.api) => return Err(ConnectionError::ShutDown),
        };
        let Some(response) = response else {
            error!(api = ?heading.api_key, "a request that is said to be supported has no handler");
            return Err(ConnectionError::NoHandler);
        };
        let frame = encode(&heading, response)?;
        self.send(vec![(heading, frame)]).await
    }

    /// Answers the produce requests that are complete, as far as the order allows.
    async fn send_finished(&mut self) -> Result<(), ConnectionError> {
        let mut frames = Vec::new();
        let mut has_failed_silently = false;
        while let Some(Finished { heading, response, is_silent, has_failed }) = self.produces.take_finished() {
            if is_silent {
                has_failed_silently |= has_failed;
                self.note(&heading);
                continue;
            }
            let frame = encode(&heading, ResponseKind::Produce(response))?;
            frames.push((heading, frame));
        }
        self.send(frames).await?;
        // As Kafka does: a client that wants no answers learns of a failure by losing its connection.
        if has_failed_silently { Err(ConnectionError::SilentFailure) } else { Ok(()) }
    }

    async fn send(&mut self, frames: Vec<(Heading, ResponseFrame)>) -> Result<(), ConnectionError> {
        let (headings, frames): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
        let bytes = self.answers.send(frames).await?;
        self.api.kafka.metrics.bytes_sent(bytes);
        headings.iter().for_each(|heading| self.note(heading));
        Ok(())
    }

    fn note(&self, heading: &Heading) {
        self.api.kafka.metrics.request_answered(heading.api_key, heading.turn.arrived_at.elapsed());
    }
}

/// Ends some time after the shutdown has begun: until then requests may be finished.
async fn cut_off(api: &Api) {
    api.shutdown().begun().await;
    tokio::time::sleep(api.config.drain_wait.get() / 2).await;
}

fn encode(heading: &Heading, response: ResponseKind) -> Result<ResponseFrame, ConnectionError> {
    let encoded = encode_response(heading.correlation_id, heading.version, response);
    if let Err(error) = &encoded {
        error!(%error, api = ?heading.api_key, version = heading.version, "an answer cannot be encoded");
    }
    Ok(encoded?)
}
