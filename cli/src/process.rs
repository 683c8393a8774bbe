//! A process that runs services: stages that are stopped one after another, each with a bound on how long it may take.
//!
//! Invariants:
//! * the process stops when a signal comes, when a service ends before it was told to, or when a task panics;
//! * stages stop in the reverse of the order in which they were begun, so that what others need outlives them;
//! * the second signal ends the process at once.

pub mod brokers;
pub mod settings;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bmq_common::telemetry::{LogConfig, init_logs};
use bmq_common::{
    Clock, Metrics, OpsServer, Random, Readiness, SharedClock, Shutdown, SystemClock, Tasks, wait_for_signal,
};
use bmq_proto::rpc::{Limits, serve};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tracing::{error, info, warn};

/// How long one stage may take to stop before its tasks are cut off. What takes longest is a broker's drain, whose own
/// limit is below this.
const STAGE_DEADLINE: Duration = Duration::from_secs(10);

/// What all services of a process share, and the stages that run them.
pub struct Process {
    pub clock: SharedClock,
    pub random: Random,
    pub metrics: Metrics,
    pub readiness: Readiness,
    shutdown: Shutdown,
    failed: Arc<AtomicBool>,
    stages: Vec<Stage>,
}

/// Services that are stopped together.
struct Stage {
    name: &'static str,
    shutdown: Shutdown,
    tasks: Tasks,
}

impl Process {
    /// Sets up the logs, and from now on takes signals.
    pub fn begin(log: LogConfig) -> anyhow::Result<Self> {
        init_logs(log).context("cannot set up the logs")?;
        let shutdown = Shutdown::new();
        let process = Process {
            clock: SystemClock::shared(),
            random: Random::from_os(),
            metrics: Metrics::new(),
            readiness: Readiness::new(),
            shutdown,
            failed: Arc::default(),
            stages: Vec::new(),
        };
        Ok(process)
    }
}
