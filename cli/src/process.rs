//! A process that runs services: stages that are stopped one after another, each with a bound on how long it may take.
//!
//! Invariants:
//! * the process stops when a signal comes, when a service ends before it was told to, or when a task panics;
//! * stages stop in the reverse of the order in which they were begun, so that what others need outlives them;
//! * the second signal ends the process at once.

pub mod announcement;
pub mod brokers;
pub mod child;
pub mod coordinators;
mod kept_clients;
pub mod settings;
pub mod store;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bmq_common::telemetry::{LogConfig, init_logs};
use bmq_common::{Metrics, OpsServer, Random, Readiness, SharedClock, Shutdown, SystemClock, Tasks, wait_for_signal};
use bmq_proto::rpc::{Limits, serve};
use bmq_proxy::KafkaListener;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::{error, info, warn};

use self::settings::ListenerSettings;
use self::store::OpenStore;
use crate::exit::Interrupted;

/// How long one stage may take to stop before its tasks are cut off. What takes longest is a broker that releases its
/// partitions, whose own limits add up to less than this.
const STAGE_DEADLINE: Duration = Duration::from_secs(20);

/// How long a process that talks to a person waits to be ready before it says that it runs.
const READY_DEADLINE: Duration = Duration::from_secs(10);
const READY_POLL: Duration = Duration::from_millis(10);

/// What all services of a process share, and the stages that run them.
pub struct Process {
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
    health: Health,
    stages: Vec<Stage>,
    store: Option<OpenStore>,
}

/// Whether the process goes on, and whether it ended as it should.
#[derive(Clone)]
struct Health {
    shutdown: Shutdown,
    failed: Arc<AtomicBool>,
}

/// Services that are stopped together.
struct Stage {
    name: &'static str,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Process {
    /// Sets up the logs.
    pub fn begin(log: LogConfig) -> anyhow::Result<Self> {
        init_logs(log).context("cannot set up the logs")?;
        Ok(Process {
            clock: SystemClock::shared(),
            random: Random::from_os(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            health: Health { shutdown: Shutdown::new(), failed: Arc::default() },
            stages: Vec::new(),
            store: None,
        })
    }

    /// Begins a stage: what is run from now on is stopped before everything that was run until now.
    pub fn begin_stage(&mut self, name: &'static str) {
        let tasks = Tasks::new(self.health.shutdown.clone());
        self.stages.push(Stage { name, shutdown: Shutdown::new(), tasks });
    }

    /// Runs a service in the present stage. It gets the stage's shutdown, and must not end before that has begun.
    pub fn run<F, E>(&self, name: &'static str, service: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let stage = self.stages.last().expect("a stage is begun before anything is run");
        let (health, shutdown) = (self.health.clone(), stage.shutdown.clone());
        // A child: a service that begins it by itself, after a panic, must not look as if it had been told to.
        let service = service(shutdown.child());
        stage.tasks.spawn(name, async move {
            match service.await.map_err(Into::into) {
                Ok(()) if shutdown.is_begun() => {}
                Ok(()) => health.fail(name, "it ended by itself"),
                Err(error) => health.fail(name, &format!("{error:#}")),
            }
        });
    }

    /// Serves the operators' port, until the end of the process. Port 0 takes a free one.
    pub async fn serve_http(&self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let server = OpsServer::bind(address, self.readiness.clone(), self.metrics.clone()).await?;
        let bound = server.local_addr();
        self.run("operators' http", |shutdown| server.run(shutdown));
        Ok(bound)
    }

    /// Serves gRPC in the present stage. The routes get the shutdown too, since their streams end by it.
    pub fn run_grpc(&self, listener: TcpListener, routes: impl FnOnce(Shutdown) -> Routes) {
        self.run("grpc", |shutdown| serve(listener, routes(shutdown.clone()), shutdown, Limits::default()));
    }

    /// Waits until everything is ready; gives up after a while, or when the process has to stop.
    pub async fn wait_until_ready(&self) {
        let ready = async {
            while !self.readiness.is_ready() {
                tokio::time::sleep(READY_POLL).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(READY_DEADLINE, ready) => {}
            () = self.health.shutdown.begun() => {}
        }
    }

    /// Has the store finish what it still cleans up, once no stage uses it any more.
    pub fn settle_at_end(&mut self, store: OpenStore) {
        self.store = Some(store);
    }

    /// Runs to the end if the start succeeded; stops what was begun otherwise.
    pub async fn run_after(mut self, started: anyhow::Result<()>) -> anyhow::Result<()> {
        match started {
            Ok(()) => self.run_to_end().await,
            Err(error) => {
                self.stop().await;
                Err(error)
            }
        }
    }

    /// Waits for the end: a signal, or a failure. Then stops stage after stage, the last begun first.
    async fn run_to_end(mut self) -> anyhow::Result<()> {
        tokio::select! {
            signal = wait_for_signal() => {
                let signal = signal.context("cannot wait for signals")?;
                info!(signal, "stopping");
            }
            () = self.health.shutdown.begun() => warn!("stopping after a failure"),
        }
        tokio::select! {
            () = self.stop() => {}
            _ = wait_for_signal() => bail!(Interrupted),
        }
        if self.health.failed.load(Ordering::Relaxed) {
            bail!("a service failed, see the log");
        }
        info!("stopped");
        Ok(())
    }

    async fn stop(&mut self) {
        while let Some(stage) = self.stages.pop() {
            stage.shutdown.begin();
            if let Err(stragglers) = stage.tasks.join(STAGE_DEADLINE).await {
                error!(stage = stage.name, ?stragglers, "cut off what did not stop in time");
                self.health.failed.store(true, Ordering::Relaxed);
            }
        }
        if let Some(store) = self.store.take() {
            store.settle().await;
        }
    }
}

impl Health {
    fn fail(&self, name: &str, reason: &str) {
        error!(service = name, reason, "a service failed");
        self.failed.store(true, Ordering::Relaxed);
        self.shutdown.begin();
    }
}

/// A service that reports its failures itself, in the form that [`Process::run`] takes.
pub async fn unfailing(service: impl Future<Output = ()>) -> Result<(), Infallible> {
    service.await;
    Ok(())
}

/// Binds the ports for Kafka clients.
pub async fn bind_kafka(listeners: &[ListenerSettings]) -> anyhow::Result<Vec<KafkaListener>> {
    let mut bound = Vec::with_capacity(listeners.len());
    for ListenerSettings { name, address, advertised } in listeners {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for Kafka clients"))?;
        let advertised = match advertised {
            Some(advertised) => advertised.clone(),
            None => socket.local_addr()?.to_string(),
        };
        bound.push(KafkaListener { name: name.clone(), socket, advertised });
    }
    Ok(bound)
}

/// Binds a port for gRPC; port 0 takes a free one.
pub async fn bind_grpc(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bind = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, bound))
    };
    bind.await.with_context(|| format!("cannot listen on {address} for gRPC"))
}
