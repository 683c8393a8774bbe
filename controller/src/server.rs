//! A controller, put together and run.

use std::sync::Arc;

use bmq_common::{Metrics, Random, Readiness, SharedClock, Shutdown};
use bmq_proto::broker::BrokerConnector;
use bmq_proto::meta::MetaService;
use tokio::sync::{Notify, mpsc, watch};

use crate::config::{ControllerConfig, InvalidConfig};
use crate::driver::Driver;
use crate::leadership::Leadership;
use crate::metrics::ControllerMetrics;
use crate::state::{Event, State};
use crate::watcher::{Watched, Watcher};

/// Enough that nobody waits for the decision before, few enough to bound what is kept.
const QUEUE: usize = 8;

/// What a controller needs of its process.
pub struct ControllerComponents {
    pub meta: Arc<dyn MetaService>,
    pub brokers: Arc<dyn BrokerConnector>,
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
}

/// A controller that is ready to run. Of several in a cluster, one holds the term and decides; the others watch, so
/// that they know what there is to know when the term becomes theirs.
pub struct Server {
    leadership: Leadership,
    watcher: Watcher,
    driver: Driver,
    term_events: mpsc::Receiver<Event>,
    watched: mpsc::Receiver<Watched>,
}

impl Server {
    pub fn build(config: ControllerConfig, components: ControllerComponents) -> Result<Self, InvalidConfig> {
        config.validate()?;
        let ControllerComponents { meta, brokers, clock, random, metrics, readiness } = components;
        let (term_sender, term_events) = mpsc::channel(QUEUE);
        let (watched_sender, watched) = mpsc::channel(QUEUE);
        let (wanted_list, wanted) = watch::channel(0);
        let ask_for_term = Arc::new(Notify::new());
        let leadership = Leadership {
            meta: Arc::clone(&meta),
            node: config.node(),
            session_time: config.session_ttl.get(),
            random: random.clone(),
            ready: readiness.register("controller session"),
            events: term_sender,
            ask_for_term: Arc::clone(&ask_for_term),
        };
        let ready = readiness.register("controller watch");
        let watcher = Watcher { meta: Arc::clone(&meta), random, ready, wanted, watched: watched_sender };
        let state = State::new(config.session_ttl.get(), config.retry_delay.get());
        let metrics = ControllerMetrics::register(&metrics);
        let driver = Driver { meta, brokers, clock, metrics, state, ask_for_term, wanted_list };
        Ok(Server { leadership, watcher, driver, term_events, watched })
    }

    /// Runs until the shutdown; returns when the session is closed.
    pub async fn run(self, shutdown: Shutdown) {
        let driver = self.driver.run(self.term_events, self.watched, shutdown.clone());
        tokio::join!(self.leadership.run(shutdown.clone()), self.watcher.run(shutdown.clone()), driver);
    }
}
