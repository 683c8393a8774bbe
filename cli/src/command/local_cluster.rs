//! `bmq local-cluster`: a whole cluster on this machine, each service a process of its own.
//!
//! The parent writes a file of settings for each service, starts them in the order in which they need each other, and
//! then only waits: nothing is started again when it dies, so that what a death does can be looked at.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bmq_common::config;
use bmq_common::{HumanDuration, wait_for_signal};
use bmq_meta::config::StoreConfig;
use clap::Args;
use futures::future::select_all;
use serde::Serialize;

use crate::command::broker::BrokerProcess;
use crate::command::controller::ControllerProcess;
use crate::command::coordinator::CoordinatorProcess;
use crate::command::meta::MetaProcess;
use crate::command::proxy::ProxyProcess;
use crate::exit::{Interrupted, UsageError};
use crate::output::{Answer, OutputArguments, or_dash, table};
use crate::process::announcement::Kind;
use crate::process::child::Service;
use crate::process::settings::{ListenerSettings, META_PORT, Settings, loopback, parse_pair};

/// Run a whole cluster on this machine: one metadata service over etcd, one controller, brokers, coordinators, proxies
///
/// Needs a running etcd and HDFS. Prints where everything is once all of it is ready, and stops it all on Ctrl-C.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  bmq local-cluster --etcd 127.0.0.1:2379 --store hdfs://127.0.0.1:8020/bmq
  bmq local-cluster --brokers 3 --proxies 2 --etcd 127.0.0.1:2379 --store hdfs://127.0.0.1:8020/bmq
  bmq local-cluster … -o json --set broker.partition.segment_bytes=16MiB --set log.filter=debug")]
pub struct Arguments {
    /// How many brokers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    brokers: u32,
    /// How many coordinators
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
    coordinators: u32,
    /// How many proxies
    #[arg(long, default_value_t = 1, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=64))]
    proxies: u32,
    /// Members of the etcd to use, `host:port`, separated by commas
    #[arg(long, value_name = "ADDRS", value_delimiter = ',', required = true)]
    etcd: Vec<String>,
    /// What stands before every key in etcd, so that several clusters can share one
    #[arg(long, value_name = "PREFIX", default_value = "/bmq/")]
    etcd_prefix: String,
    /// Where segments are kept: `hdfs://host:port/root`
    #[arg(long, value_name = "URL")]
    store: String,
    /// How long a session outlives its last keep-alive
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    session_ttl: HumanDuration,
    /// Where settings and logs of the services go
    #[arg(long, value_name = "DIR", default_value = "bmq-local-cluster")]
    dir: PathBuf,
    /// Set one setting of the services that it concerns, by its first word: meta, controller, broker, coordinator or
    /// proxy for those, store for the last three, meta_client for all but meta, log for all; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    overrides: Vec<(String, String)>,
    #[command(flatten)]
    output: OutputArguments,
}

/// What is running, for people and scripts.
#[derive(Debug, Serialize)]
struct RunningCluster {
    /// What to give to `--server`.
    server: String,
    dir: PathBuf,
    processes: Vec<RunningProcess>,
}

#[derive(Debug, Serialize)]
struct RunningProcess {
    kind: Kind,
    id: u32,
    pid: u32,
    grpc: Option<String>,
    /// Where Kafka clients connect, if they do.
    kafka: Option<String>,
    http: String,
    config: PathBuf,
    log: PathBuf,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if !arguments.store.starts_with("hdfs://") {
        let text = "a cluster needs a store that all its processes can reach: give --store hdfs://host:port/root, \
            or use `bmq standalone` for a local folder";
        bail!(UsageError(text.to_owned()));
    }
    refuse_overrides(&arguments.overrides)?;
    Plan { arguments: &arguments }.check()?;
    let dir = std::path::absolute(&arguments.dir)?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut cluster = Cluster { dir, services: Vec::new() };
    let outcome = tokio::select! {
        outcome = cluster.start_and_watch(&arguments) => outcome,
        signal = wait_for_signal() => signal.map(drop).context("cannot wait for signals"),
    };
    let stopped = tokio::select! {
        stopped = cluster.stop() => stopped,
        // The second signal: what still runs is killed as `cluster` is dropped.
        _ = wait_for_signal() => Err(Interrupted.into()),
    };
    outcome.and(stopped)
}

/// The processes, in the order in which they were started.
struct Cluster {
    dir: PathBuf,
    services: Vec<Service>,
}

impl Cluster {
    async fn start_and_watch(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        self.start(arguments).await?;
        arguments.output.print(&self.describe())?;
        self.watch().await
    }

    async fn start(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let plan = Plan { arguments };
        self.start_one(Kind::Meta, 1, plan.meta()?).await?;
        let meta = self.services[0].announcement.grpc.clone().context("the metadata service has no address")?;
        self.start_one(Kind::Controller, 1, plan.controller(&meta)?).await?;
        for id in 1..=arguments.brokers {
            self.start_one(Kind::Broker, id, plan.broker(id, &meta)?).await?;
        }
        for id in 1..=arguments.coordinators {
            self.start_one(Kind::Coordinator, id, plan.coordinator(id, &meta)?).await?;
        }
        for id in 1..=arguments.proxies {
            self.start_one(Kind::Proxy, id, plan.proxy(id, &meta)?).await?;
        }
        for service in &mut self.services {
            service.wait_until_ready().await?;
        }
        Ok(())
    }

    async fn start_one(&mut self, kind: Kind, id: u32, settings: String) -> anyhow::Result<()> {
        let config = self.dir.join(format!("{}-{id}.toml", kind.name()));
        std::fs::write(&config, settings).with_context(|| format!("cannot write {}", config.display()))?;
        self.services.push(Service::start(kind, &config).await?);
        Ok(())
    }

    fn describe(&self) -> RunningCluster {
        let of_proxy = self.services.iter().filter(|service| service.announcement.kind == Kind::Proxy);
        let server = of_proxy.filter_map(|service| service.announcement.grpc.clone()).next().unwrap_or_default();
        let processes = self.services.iter().map(RunningProcess::of).collect();
        RunningCluster { server, dir: self.dir.clone(), processes }
    }

    /// Reports each process that ends, and goes on without it, until none is left.
    async fn watch(&mut self) -> anyhow::Result<()> {
        let mut left: Vec<&mut Service> = self.services.iter_mut().collect();
        while !left.is_empty() {
            let (status, index) = {
                let ends = left.iter_mut().map(|service| Box::pin(service.ended()));
                let (status, index, _) = select_all(ends).await;
                (status?, index)
            };
            let dead = left.swap_remove(index);
            eprintln!("bmq: {} ended with {status}, see {}", dead.title(), dead.log.display());
        }
        bail!("all processes have ended");
    }

    /// Stops in the reverse order, so that brokers and coordinators can still release what they own. Goes on after a
    /// failure.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for kind in [Kind::Proxy, Kind::Coordinator, Kind::Broker, Kind::Controller, Kind::Meta] {
            let of_kind = self.services.iter_mut().filter(|service| service.announcement.kind == kind);
            for stopped in futures::future::join_all(of_kind.map(Service::stop)).await {
                outcome = outcome.and(stopped);
            }
        }
        outcome
    }
}

impl RunningProcess {
    fn of(service: &Service) -> Self {
        let announcement = service.announcement.clone();
        RunningProcess {
            kind: announcement.kind,
            id: announcement.id,
            pid: service.pid,
            grpc: announcement.grpc,
            kafka: announcement.kafka.into_values().next(),
            http: announcement.http.to_string(),
            config: service.config.clone(),
            log: service.log.clone(),
        }
    }
}

impl Answer for RunningCluster {
    fn table(&self) -> String {
        let row = |process: &RunningProcess| {
            let (kind, id, pid) = (process.kind.name().to_owned(), process.id.to_string(), process.pid.to_string());
            vec![kind, id, pid, or_dash(process.grpc.as_ref()), or_dash(process.kafka.as_ref()), process.http.clone()]
        };
        let processes = table(&["KIND", "ID", "PID", "GRPC", "KAFKA", "HTTP"], self.processes.iter().map(row));
        let (dir, server) = (self.dir.display(), &self.server);
        format!(
            "{processes}\n\nSettings and logs: {dir}\nTry:  bmq --server {server} topic create hello --partitions 3\n\
             Stop with Ctrl-C."
        )
    }
}

/// The sections that `--set` can reach, and whom they concern.
const SECTIONS: [(&str, &[Kind]); 8] = [
    ("meta", &[Kind::Meta]),
    ("meta_client", &[Kind::Controller, Kind::Broker, Kind::Coordinator, Kind::Proxy]),
    ("controller", &[Kind::Controller]),
    ("broker", &[Kind::Broker]),
    ("coordinator", &[Kind::Coordinator]),
    ("proxy", &[Kind::Proxy]),
    ("store", &[Kind::Broker, Kind::Coordinator, Kind::Proxy]),
    ("log", &[Kind::Meta, Kind::Controller, Kind::Broker, Kind::Coordinator, Kind::Proxy]),
];

/// What the command sets by itself: `--set` would be overruled.
const SET_BY_THE_COMMAND: [(&str, &str); 12] = [
    ("meta.store", "it is etcd"),
    ("meta.etcd.endpoints", "use --etcd"),
    ("meta.etcd.prefix", "use --etcd-prefix"),
    ("meta_client.endpoints", "it is where the metadata service listens"),
    ("store.url", "use --store"),
    ("broker.node_id", "brokers are numbered"),
    ("coordinator.node_id", "coordinators are numbered"),
    ("proxy.node_id", "proxies are numbered"),
    ("controller.session_ttl", "use --session-ttl"),
    ("broker.session_ttl", "use --session-ttl"),
    ("coordinator.session_ttl", "use --session-ttl"),
    ("proxy.session_ttl", "use --session-ttl"),
];

fn section_of(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

fn refuse_overrides(overrides: &[(String, String)]) -> anyhow::Result<()> {
    let is_known = |key: &str| SECTIONS.iter().any(|(section, _)| *section == section_of(key));
    if let Some((key, _)) = overrides.iter().find(|(key, _)| !is_known(key)) {
        let known: Vec<_> = SECTIONS.iter().map(|(section, _)| *section).collect();
        bail!(UsageError(format!("--set {key}: must begin with one of {}", known.join(", "))));
    }
    for (key, reason) in SET_BY_THE_COMMAND {
        if overrides.iter().any(|(found, _)| found == key) {
            bail!(UsageError(format!("--set {key}: it is set by the command, {reason}")));
        }
    }
    Ok(())
}

/// What the services' settings are made from.
struct Plan<'a> {
    arguments: &'a Arguments,
}

impl Plan<'_> {
    /// The defaults, with `change` and what `--set` says of this kind on top.
    fn settings<T: Settings>(&self, kind: Kind, change: impl FnOnce(&mut T)) -> anyhow::Result<String> {
        let concerns =
            |key: &str| SECTIONS.iter().any(|(name, kinds)| *name == section_of(key) && kinds.contains(&kind));
        let overrides = self.arguments.overrides.iter().filter(|(key, _)| concerns(key));
        let overrides: Vec<_> = overrides.cloned().collect();
        let mut settings: T = config::load(None, std::iter::empty(), &overrides)?;
        change(&mut settings);
        settings.validate().map_err(UsageError).with_context(|| format!("the settings of a {}", kind.name()))?;
        Ok(config::effective_toml(&settings))
    }

    /// Checks the settings of every kind, before anything is started. They differ from those in use only by numbers and
    /// by the metadata service's port, which is not known yet.
    fn check(&self) -> anyhow::Result<()> {
        let meta = loopback(META_PORT).to_string();
        self.meta()?;
        self.controller(&meta)?;
        self.broker(1, &meta)?;
        self.coordinator(1, &meta)?;
        self.proxy(1, &meta)?;
        Ok(())
    }

    fn meta(&self) -> anyhow::Result<String> {
        self.settings(Kind::Meta, |settings: &mut MetaProcess| {
            (settings.grpc.address, settings.http.address) = (loopback(0), loopback(0));
            settings.meta.store = StoreConfig::Etcd;
            settings.meta.etcd.endpoints.clone_from(&self.arguments.etcd);
            settings.meta.etcd.prefix.clone_from(&self.arguments.etcd_prefix);
        })
    }

    fn controller(&self, meta: &str) -> anyhow::Result<String> {
        self.settings(Kind::Controller, |settings: &mut ControllerProcess| {
            settings.http.address = loopback(0);
            settings.meta_client.endpoints = vec![meta.to_owned()];
            settings.controller.session_ttl = self.arguments.session_ttl;
        })
    }

    fn broker(&self, id: u32, meta: &str) -> anyhow::Result<String> {
        self.settings(Kind::Broker, |settings: &mut BrokerProcess| {
            (settings.grpc.address, settings.http.address) = (loopback(0), loopback(0));
            settings.meta_client.endpoints = vec![meta.to_owned()];
            settings.store.url.clone_from(&self.arguments.store);
            settings.broker.node_id = id;
            settings.broker.session_ttl = self.arguments.session_ttl;
        })
    }

    fn coordinator(&self, id: u32, meta: &str) -> anyhow::Result<String> {
        self.settings(Kind::Coordinator, |settings: &mut CoordinatorProcess| {
            (settings.grpc.address, settings.http.address) = (loopback(0), loopback(0));
            settings.meta_client.endpoints = vec![meta.to_owned()];
            settings.store.url.clone_from(&self.arguments.store);
            settings.coordinator.node_id = id;
            settings.coordinator.session_ttl = self.arguments.session_ttl;
        })
    }

    fn proxy(&self, id: u32, meta: &str) -> anyhow::Result<String> {
        self.settings(Kind::Proxy, |settings: &mut ProxyProcess| {
            (settings.grpc.address, settings.http.address) = (loopback(0), loopback(0));
            settings.meta_client.endpoints = vec![meta.to_owned()];
            settings.listeners = vec![ListenerSettings::on_port(0)];
            settings.store.url.clone_from(&self.arguments.store);
            settings.proxy.node_id = id;
            settings.proxy.session_ttl = self.arguments.session_ttl;
        })
    }
}
