//! All bmq processes of a cluster: `bmq local-cluster` and what it started, and brokers that a test started again.
//!
//! Whatever is left is killed when the value goes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bmq_binary;
use crate::process::{Process, die_with_this_thread};

/// What to start, and over what.
pub struct BmqPlan {
    pub brokers: u32,
    pub proxies: u32,
    /// `host:port`.
    pub etcd: String,
    /// `hdfs://host:port/root`.
    pub store: String,
    /// Where settings and logs go.
    pub folder: PathBuf,
    /// Settings as `--set` takes them.
    pub settings: Vec<String>,
}

/// The running processes.
pub struct BmqCluster {
    parent: Child,
    services: Vec<Service>,
    /// Brokers that were started again, by this process.
    restarted: Vec<Child>,
    folder: PathBuf,
}

/// One service process.
pub struct Service {
    pub kind: String,
    pub id: u32,
    pub process: Process,
    /// `host:port`; the controller has none.
    pub grpc: Option<String>,
    config: PathBuf,
    /// All its logs, those of earlier processes first.
    logs: Vec<PathBuf>,
}

/// What `local-cluster -o json` prints.
#[derive(Deserialize)]
struct Announced {
    processes: Vec<AnnouncedProcess>,
}

#[derive(Deserialize)]
struct AnnouncedProcess {
    kind: String,
    id: u32,
    pid: u32,
    grpc: Option<String>,
    config: PathBuf,
    log: PathBuf,
}

/// What a service prints once it listens.
#[derive(Deserialize)]
struct AnnouncedService {
    grpc: Option<String>,
}

impl BmqCluster {
    /// Starts everything, and returns when all of it is ready.
    pub fn start(plan: &BmqPlan) -> Result<Self> {
        std::fs::create_dir_all(&plan.folder)?;
        let mut command = Command::new(bmq_binary::path()?);
        command.args(["local-cluster", "-o", "json"]);
        command.args(["--brokers", &plan.brokers.to_string(), "--proxies", &plan.proxies.to_string()]);
        command.args(["--etcd", &plan.etcd, "--store", &plan.store]).arg("--dir").arg(&plan.folder);
        command.args(plan.settings.iter().flat_map(|setting| ["--set", setting]));
        let log = plan.folder.join("local-cluster.log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut parent = die_with_this_thread(&mut command).spawn()?;
        let stdout = parent.stdout.take().context("the output is piped")?;
        // From here on the value kills what was started if anything fails.
        let mut cluster = Self { parent, services: Vec::new(), restarted: Vec::new(), folder: plan.folder.clone() };
        let announced = serde_json::Deserializer::from_reader(stdout).into_iter::<Announced>().next();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        let announced = announced.with_context(|| format!("bmq local-cluster did not start: {}", said().trim()))??;
        cluster.services = announced.processes.into_iter().map(Service::of).collect::<Result<_>>()?;
        Ok(cluster)
    }

    /// `host:port` of every proxy.
    pub fn servers(&self) -> Vec<String> {
        self.of_kind("proxy").filter_map(|service| service.grpc.clone()).collect()
    }

    pub fn broker(&self, id: u32) -> Result<&Service> {
        self.of_kind("broker").find(|broker| broker.id == id).with_context(|| format!("there is no broker {id}"))
    }

    /// Every log of the services of a kind, with the service's number.
    pub fn logs(&self, kind: &str) -> Vec<(u32, PathBuf)> {
        self.of_kind(kind).flat_map(|service| service.logs.iter().map(|log| (service.id, log.clone()))).collect()
    }

    /// Starts a killed broker again with the settings it had, and returns when it listens.
    pub fn start_broker(&mut self, id: u32) -> Result<()> {
        let broker = self.services.iter_mut().find(|service| service.kind == "broker" && service.id == id);
        let broker = broker.with_context(|| format!("there is no broker {id}"))?;
        ensure!(!broker.process.is_running(), "broker {id} still runs");
        let log = self.folder.join(format!("broker-{id}.again-{}.log", broker.logs.len()));
        let mut command = Command::new(bmq_binary::path()?);
        command.arg("broker").arg("--config").arg(&broker.config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = die_with_this_thread(&mut command).spawn()?;
        let stdout = child.stdout.take().context("the output is piped")?;
        let pid = child.id();
        self.restarted.push(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let said: AnnouncedService =
            serde_json::from_str(&line).with_context(|| format!("broker {id} did not start, see {}", log.display()))?;
        broker.process = Process::find(pid)?;
        broker.grpc = said.grpc;
        broker.logs.push(log);
        Ok(())
    }

    /// Kills every process of it with SIGKILL, services first.
    pub fn kill_all(&mut self) -> Result<()> {
        for service in self.services.iter().filter(|service| service.process.is_running()) {
            service.process.kill()?;
        }
        for child in self.restarted.iter_mut().chain([&mut self.parent]) {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ctrl-C: returns when `local-cluster` has ended, which stops what it started.
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        Process::find(self.parent.id())?.interrupt()?;
        Ok(self.parent.wait()?)
    }

    /// Services whose process still runs.
    pub fn running(&self) -> Vec<String> {
        let running = self.services.iter().filter(|service| service.process.is_running());
        running.map(|service| format!("{} {}", service.kind, service.id)).collect()
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(move |service| service.kind == kind)
    }
}

impl Drop for BmqCluster {
    fn drop(&mut self) {
        if let Err(error) = self.kill_all() {
            eprintln!("a bmq process may be left running: {error:#}");
        }
    }
}

impl Service {
    fn of(announced: AnnouncedProcess) -> Result<Self> {
        let AnnouncedProcess { kind, id, pid, grpc, config, log } = announced;
        Ok(Self { kind, id, process: Process::find(pid)?, grpc, config, logs: vec![log] })
    }
}
