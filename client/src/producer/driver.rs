//! The task that owns a producer's state and its stream: feeds events to the state, and sends what the state gives.

use std::time::Duration;

use bmq_common::{Backoff, Random};
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::v1::{self, produce_request};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{debug, info};

use super::batch::Taken;
use super::state::State;
use super::stream::{Opened, ProduceStream, StreamEvent, open};
use super::topics::Topics;
use super::{Ack, closed};
use crate::Error;

const FIRST_RECONNECT: Duration = Duration::from_millis(50);
const LAST_RECONNECT: Duration = Duration::from_secs(2);

/// Commands handled at once: enough to make the cost of a wake-up small, few enough to send between them.
const COMMANDS_AT_ONCE: usize = 256;

/// What the handles of a producer ask of it.
pub(super) enum Command {
    Take(Taken),
    Flush(oneshot::Sender<()>),
    /// Flush, and end.
    Close(oneshot::Sender<()>),
}

/// The producer's task.
pub(super) struct Driver {
    pub state: State,
    pub commands: mpsc::Receiver<Command>,
    pub stub: MessagingClient<Channel>,
    pub ack: Ack,
    pub topics: Topics,
    pub random: Random,
}

/// The state of the connection.
enum Link {
    Down { not_before: Instant },
    Opening(BoxFuture<'static, Result<(ProduceStream, Opened), Error>>),
    Up(Box<ProduceStream>),
}

enum LinkEvent {
    TimeToOpen,
    Opened(Result<(ProduceStream, Opened), Error>),
    Stream(Result<StreamEvent, Error>),
}

impl Link {
    /// May be cancelled.
    async fn next(&mut self, wants_room: bool) -> LinkEvent {
        match self {
            Link::Down { not_before } => {
                tokio::time::sleep_until(*not_before).await;
                LinkEvent::TimeToOpen
            }
            Link::Opening(opening) => LinkEvent::Opened(opening.await),
            Link::Up(stream) => LinkEvent::Stream(stream.next(wants_room).await),
        }
    }
}

impl Driver {
    /// Runs until closed, or until the last handle is gone.
    pub async fn run(mut self) {
        let mut link = Link::Down { not_before: Instant::now() };
        let mut backoff = Backoff::new(FIRST_RECONNECT, LAST_RECONNECT);
        let mut closing = None;
        let mut received = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            let wants_room = self.send_what_may_go(&mut link);
            if closing.is_some() && !self.state.has_work() {
                break;
            }
            let wants_link = matches!(link, Link::Opening(_) | Link::Up(_)) || self.state.has_work();
            tokio::select! {
                count = self.commands.recv_many(&mut received, COMMANDS_AT_ONCE), if closing.is_none() => {
                    if count == 0 {
                        return;
                    }
                    closing = self.handle_commands(&mut received);
                }
                event = link.next(wants_room), if wants_link => {
                    link = self.handle_link(link, event, &mut backoff);
                }
                () = sleep_until(self.state.wake_at()) => self.state.on_time(Instant::now()),
            }
        }
        // Everything has its answer, so nothing is lost with the stream. What came after the close is refused.
        drop(link);
        self.commands.close();
        while let Ok(late) = self.commands.try_recv() {
            refuse(late);
        }
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    /// Whether more would have gone if the connection had room.
    fn send_what_may_go(&mut self, link: &mut Link) -> bool {
        let Link::Up(stream) = link else { return false };
        let now = Instant::now();
        while let Ok(room) = stream.requests.try_reserve() {
            let Some(batch) = self.state.next(now) else { return false };
            room.send(v1::ProduceRequest { frame: Some(produce_request::Frame::Batch(batch)) });
        }
        true
    }

    /// Returns who waits for the close, if one was asked for; what comes after it is refused.
    fn handle_commands(&mut self, commands: &mut Vec<Command>) -> Option<oneshot::Sender<()>> {
        let now = Instant::now();
        let mut commands = commands.drain(..);
        while let Some(command) = commands.next() {
            match command {
                Command::Take(taken) => self.state.add(taken, now),
                Command::Flush(done) => self.state.flush(done, now),
                Command::Close(done) => {
                    let (flushed, _) = oneshot::channel();
                    self.state.flush(flushed, now);
                    commands.for_each(refuse);
                    return Some(done);
                }
            }
        }
        None
    }

    fn handle_link(&mut self, link: Link, event: LinkEvent, backoff: &mut Backoff) -> Link {
        match event {
            LinkEvent::TimeToOpen => {
                let opening = open(self.stub.clone(), self.ack, self.state.needs_producer_id());
                Link::Opening(Box::pin(opening))
            }
            LinkEvent::Opened(Ok((stream, opened))) => {
                debug!(producer = ?opened.producer, "produce stream open");
                self.state.open(opened.producer, opened.credit);
                Link::Up(Box::new(stream))
            }
            LinkEvent::Opened(Err(error)) => {
                debug!(%error, "cannot open a produce stream");
                let gives_up = !error.retriable;
                let not_before = self.disconnect(error.clone(), backoff);
                if gives_up {
                    self.state.fail_all(&error);
                }
                Link::Down { not_before }
            }
            LinkEvent::Stream(Ok(event)) => {
                backoff.reset();
                self.handle_stream(event);
                link
            }
            LinkEvent::Stream(Err(error)) => {
                info!(%error, "produce stream lost, opening another");
                Link::Down { not_before: self.disconnect(error, backoff) }
            }
        }
    }

    fn disconnect(&mut self, error: Error, backoff: &mut Backoff) -> Instant {
        let now = Instant::now();
        self.state.disconnect(error, now);
        now + backoff.next(&self.random)
    }

    fn handle_stream(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Result(result) => self.state.result(result, Instant::now()),
            StreamEvent::Credit(credit) => self.state.add_credit(credit),
            StreamEvent::Room => {}
        }
        for topic in self.state.take_stale_topics() {
            self.topics.forget(&topic);
        }
    }
}

/// Answers what comes after the close.
fn refuse(late: Command) {
    if let Command::Take(taken) = late {
        // Whoever dropped the future does not want to know.
        let _ = taken.answer.send(Err(closed()));
    }
    // Those who wait for a flush or a close see that nobody will answer.
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
