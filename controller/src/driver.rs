//! Runs the state machine: feeds it what happens, does what it decides, one loop and no lock.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::{SharedClock, Shutdown, with_deadline};
use bmq_proto::broker::BrokerConnector;
use bmq_proto::meta::{MetaService, SessionRecord};
use bmq_proto::{ErrorCode, ServiceError, Term, TopicId};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use crate::deletion::PurgeOutcome;
use crate::metrics::ControllerMetrics;
use crate::planner::IntentChange;
use crate::state::{Action, Event, State, WriteId};
use crate::watcher::Watched;

/// A topic's folder may hold many files.
const DELETE_DATA_DEADLINE: Duration = Duration::from_secs(60);

/// The longest sleep when nothing is to be done at a known time.
const IDLE: Duration = Duration::from_secs(3_600);

/// Owns the state and everything in flight for it.
pub struct Driver {
    pub meta: Arc<dyn MetaService>,
    pub brokers: Arc<dyn BrokerConnector>,
    pub clock: SharedClock,
    pub metrics: ControllerMetrics,
    pub state: State,
    /// Notified to have the leadership ask for the term.
    pub ask_for_term: Arc<Notify>,
    /// The number of the list wanted.
    pub wanted_list: watch::Sender<u64>,
}

/// What is being done; each ends in an event.
type Work = FuturesUnordered<BoxFuture<'static, Event>>;

impl Driver {
    /// Runs until the shutdown. What is in flight then is dropped: each step may be repeated by the next controller.
    pub async fn run(self, term_events: mpsc::Receiver<Event>, watched: mpsc::Receiver<Watched>, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            never = self.decide(term_events, watched) => match never {},
        }
    }

    async fn decide(
        mut self,
        mut term_events: mpsc::Receiver<Event>,
        mut watched: mpsc::Receiver<Watched>,
    ) -> Infallible {
        let mut work = Work::new();
        loop {
            let event = tokio::select! {
                Some(event) = term_events.recv() => event,
                Some(told) = watched.recv() => match self.younger(told) {
                    Some(event) => event,
                    None => continue,
                },
                Some(event) = work.next() => self.finish(event),
                () = tokio::time::sleep(self.idle_time()) => Event::Tick,
            };
            self.observe(&event);
            for action in self.state.step(event, self.clock.now()) {
                self.begin(action, &work);
            }
            self.metrics.decided(self.state.figures());
        }
    }

    /// What was told before the list that is wanted counts for nothing.
    fn younger(&self, watched: Watched) -> Option<Event> {
        (watched.list >= *self.wanted_list.borrow()).then_some(Event::Watched(watched.events))
    }

    fn idle_time(&self) -> Duration {
        let now = self.clock.now();
        self.state.next_wake(now).map_or(IDLE, |wake| wake.saturating_since(now))
    }

    /// A refusal for the term's sake means that leadership believes in a term that is gone: have it ask again.
    fn finish(&self, event: Event) -> Event {
        if matches!(event, Event::TermLost) {
            self.ask_for_term.notify_one();
        }
        event
    }

    fn observe(&self, event: &Event) {
        match event {
            Event::TermTaken(term) => self.metrics.term_changed(Some(*term)),
            Event::TermLost => self.metrics.term_changed(None),
            Event::IntentsWritten { success: false, .. }
            | Event::DataDeleted { success: false, .. }
            | Event::Purged { outcome: PurgeOutcome::Failed, .. } => self.metrics.step_failed(),
            _ => {}
        }
    }

    fn begin(&self, action: Action, work: &Work) {
        match action {
            Action::ListAgain => self.wanted_list.send_modify(|list| *list += 1),
            Action::TryForTerm => self.ask_for_term.notify_one(),
            Action::WriteIntents { term, write, changes } => work.push(self.write_intents(term, write, changes)),
            Action::DeleteData { topic, broker } => work.push(self.delete_data(topic, broker)),
            Action::Purge { term, topic } => work.push(self.purge(term, topic)),
        }
    }

    fn write_intents(&self, term: Term, write: WriteId, changes: Vec<IntentChange>) -> BoxFuture<'static, Event> {
        let (meta, metrics) = (Arc::clone(&self.meta), self.metrics.clone());
        let writing = async move {
            let count = changes.len();
            match meta.set_intents(term, changes).await {
                Ok(()) => {
                    info!(count, %term, "wrote intents");
                    metrics.intents_written(count);
                    Event::IntentsWritten { write, success: true }
                }
                Err(error) => after_failure(&error, "write intents", Event::IntentsWritten { write, success: false }),
            }
        };
        writing.boxed()
    }

    fn delete_data(&self, topic: TopicId, broker: SessionRecord) -> BoxFuture<'static, Event> {
        let service = self.brokers.connect(&broker);
        let delete = async move {
            let answer = with_deadline("the broker", DELETE_DATA_DEADLINE, service.delete_topic_data(topic)).await;
            let answer = answer.unwrap_or_else(|late| Err(ServiceError::unknown(ErrorCode::Timeout, late.to_string())));
            let success = answer.is_ok();
            match answer {
                Ok(()) => {}
                // Such as a partition that was released and is not gone yet: to be expected, and soon over.
                Err(error) if error.is_retriable() => {
                    info!(%error, %topic, broker = %broker.node, "a topic's data cannot be deleted yet");
                }
                Err(error) => warn!(%error, %topic, broker = %broker.node, "could not delete a topic's data"),
            }
            Event::DataDeleted { topic, success }
        };
        delete.boxed()
    }

    fn purge(&self, term: Term, topic: TopicId) -> BoxFuture<'static, Event> {
        let meta = Arc::clone(&self.meta);
        let purge = async move {
            match meta.purge_topic(term, topic).await {
                Ok(true) => {
                    info!(%topic, "deleted a topic");
                    Event::Purged { topic, outcome: PurgeOutcome::NothingLeft }
                }
                Ok(false) => Event::Purged { topic, outcome: PurgeOutcome::MoreLeft },
                Err(error) => {
                    after_failure(&error, "purge a topic", Event::Purged { topic, outcome: PurgeOutcome::Failed })
                }
            }
        };
        purge.boxed()
    }
}

/// A refusal for the term's sake ends the term; anything else is tried again.
fn after_failure(error: &ServiceError, what: &'static str, failed: Event) -> Event {
    if error.code == ErrorCode::Fenced {
        info!("a newer term exists");
        return Event::TermLost;
    }
    warn!(%error, "could not {what}");
    failed
}
