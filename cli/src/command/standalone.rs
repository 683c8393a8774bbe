//! `bmq standalone`: every service in one process, on a folder of this machine.
//!
//! ```text
//!   gRPC ─▶ proxy ─▶ broker ─▶ DATA/segments
//!             ├──▶ coordinator ─▶ DATA/segments
//!             └──▶ metadata ◀──┴── controller        each arrow a trait object, no port in between
//!                     └─▶ DATA/meta.redb
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bmq_broker::{BrokerComponents, BrokerConfig};
use bmq_common::HumanDuration;
use bmq_common::telemetry::LogConfig;
use bmq_controller::{ControllerComponents, ControllerConfig};
use bmq_coordinator::{CoordinatorComponents, CoordinatorConfig};
use bmq_meta::config::EmbeddedConfig;
use bmq_meta::{MetaConfig, MetaServer};
use bmq_proto::meta::MetaService;
use bmq_proxy::{ProxyComponents, ProxyConfig};
use bmq_storage::{LocalStore, SegmentStore};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::output::print_text;
use crate::process::brokers::LocalBroker;
use crate::process::coordinators::LocalCoordinator;
use crate::process::settings::{
    GrpcSettings, HttpSettings, KAFKA_PORT, ListenerSettings, STANDALONE_PORT, Settings, SettingsArguments,
    check_reachable, quiet_log,
};
use crate::process::{Process, bind_grpc, bind_kafka, unfailing};

/// Run everything in one process, on a folder of this machine
///
/// Takes connections from this machine only, since there is no authentication yet; `--insecure` lifts that.
/// Ctrl-C stops it in order, and what was produced is there when it starts again.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  bmq standalone
  bmq standalone --data-dir /var/lib/bmq
  bmq standalone --kafka 127.0.0.1:9192
  bmq standalone --grpc 0.0.0.0:9640 --set grpc.advertised=myhost:9640 --insecure")]
pub struct Arguments {
    /// Where everything is kept; made if it is missing [default: ./bmq-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients connect to [default: 127.0.0.1:9640]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
    /// Where Kafka clients connect to [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    kafka: Option<SocketAddr>,
    /// Where /livez, /readyz and /metrics are [default: 127.0.0.1:9641]
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
    /// Allow addresses that other machines can reach, although anybody there can read and write everything
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// The settings of `bmq standalone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct StandaloneProcess {
    data_dir: PathBuf,
    /// There is no authentication yet: addresses that other machines can reach are refused without this.
    insecure: bool,
    log: LogConfig,
    grpc: GrpcSettings,
    kafka: GrpcSettings,
    http: HttpSettings,
    controller: ControllerConfig,
    broker: BrokerConfig,
    coordinator: CoordinatorConfig,
    proxy: ProxyConfig,
}

impl Default for StandaloneProcess {
    fn default() -> Self {
        StandaloneProcess {
            data_dir: PathBuf::from("bmq-data"),
            insecure: false,
            log: quiet_log(),
            grpc: GrpcSettings::on_port(STANDALONE_PORT),
            kafka: GrpcSettings::on_port(KAFKA_PORT),
            http: HttpSettings::on_port(STANDALONE_PORT + 1),
            controller: ControllerConfig::default(),
            broker: BrokerConfig::default(),
            coordinator: coordinator_of_one_machine(),
            proxy: proxy_of_one_machine(),
        }
    }
}

/// Topics are made as clients ask for them, as is best where things are tried out.
fn proxy_of_one_machine() -> ProxyConfig {
    let mut config = ProxyConfig::default();
    config.kafka.auto_create_topics = true;
    config
}

/// Few shards, since each has syncs of its own on the same disk; and nobody waits for more members of a new group, as
/// is best where things are tried out.
fn coordinator_of_one_machine() -> CoordinatorConfig {
    let mut config = CoordinatorConfig { shards: 4, ..CoordinatorConfig::default() };
    config.groups.initial_rebalance_delay = HumanDuration::millis(0);
    config
}

impl Settings for StandaloneProcess {
    fn validate(&self) -> Result<(), String> {
        for (name, address) in [("grpc", self.grpc.address), ("kafka", self.kafka.address), ("http", self.http.address)]
        {
            if !address.ip().is_loopback() && !self.insecure {
                return Err(format!(
                    "{name} address {address} can be reached from other machines, and there is no authentication yet: \
                     anybody there could read and write everything; use 127.0.0.1, or say --insecure"
                ));
            }
        }
        self.grpc.validate()?;
        check_reachable("kafka", self.kafka.address, self.kafka.advertised.as_deref())?;
        self.controller.validate().map_err(|error| format!("controller.{error}"))?;
        self.broker.validate().map_err(|error| format!("broker.{error}"))?;
        self.coordinator.validate().map_err(|error| format!("coordinator.{error}"))?;
        self.proxy.validate().map_err(|error| format!("proxy.{error}"))
    }
}

impl Arguments {
    /// The flags as the uppermost layer of the settings.
    fn as_settings(&self) -> Vec<(String, String)> {
        let data_dir = self.data_dir.as_ref().map(|dir| ("data_dir", dir.display().to_string()));
        let grpc = self.grpc.map(|address| ("grpc.address", address.to_string()));
        let kafka = self.kafka.map(|address| ("kafka.address", address.to_string()));
        let http = self.http.map(|address| ("http.address", address.to_string()));
        let insecure = self.insecure.then(|| ("insecure", "true".to_owned()));
        let given = [data_dir, grpc, kafka, http, insecure].into_iter().flatten();
        given.map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.settings.load::<StandaloneProcess>(arguments.as_settings())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

/// What the services of this process stand on.
struct Foundation {
    meta: Arc<dyn MetaService>,
    store: Arc<dyn SegmentStore>,
}

async fn start(process: &mut Process, settings: &StandaloneProcess) -> anyhow::Result<()> {
    let data_dir = std::path::absolute(&settings.data_dir)?;
    process.begin_stage("operations");
    let foundation = open_data(process, &data_dir).await?;
    let http = process.serve_http(settings.http.address).await?;
    let (listener, grpc) = bind_grpc(settings.grpc.address).await?;
    let GrpcSettings { address, advertised } = settings.kafka.clone();
    let kafka = bind_kafka(&[ListenerSettings { address, advertised, ..ListenerSettings::default() }]).await?;
    let kafka_address = kafka[0].advertised.clone();

    let broker = build_broker(process, settings, &foundation).await?;
    let coordinator = build_coordinator(process, settings, &foundation).await?;
    let coordinators = Arc::new(LocalCoordinator(coordinator.service()));
    let connector = Arc::new(LocalBroker(broker.service()));
    process.begin_stage("controller");
    let components = ControllerComponents {
        meta: Arc::clone(&foundation.meta),
        brokers: Arc::clone(&connector) as _,
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let controller = bmq_controller::Server::build(settings.controller.clone(), components)?;
    process.run("controller", |shutdown| unfailing(controller.run(shutdown)));
    process.begin_stage("broker");
    process.run("broker", |shutdown| unfailing(broker.run(shutdown)));
    process.begin_stage("coordinator");
    process.run("coordinator", |shutdown| unfailing(coordinator.run(shutdown)));
    process.begin_stage("proxy");
    let components = ProxyComponents {
        meta: foundation.meta,
        store: foundation.store,
        brokers: connector,
        coordinators,
        address: settings.grpc.advertised(grpc),
        kafka,
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let proxy = bmq_proxy::Server::build(settings.proxy.clone(), components).await?;
    process.run_grpc(listener, |_shutdown| proxy.grpc_routes());
    process.run("proxy", |shutdown| unfailing(proxy.run(shutdown)));
    process.wait_until_ready().await;
    welcome(&data_dir, grpc, &kafka_address, http, settings.insecure)
}

async fn build_broker(
    process: &Process,
    settings: &StandaloneProcess,
    foundation: &Foundation,
) -> anyhow::Result<bmq_broker::Server> {
    let components = BrokerComponents {
        meta: Arc::clone(&foundation.meta),
        store: Arc::clone(&foundation.store),
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    Ok(bmq_broker::Server::build(settings.broker.clone(), components).await?)
}

async fn build_coordinator(
    process: &Process,
    settings: &StandaloneProcess,
    foundation: &Foundation,
) -> anyhow::Result<bmq_coordinator::Server> {
    let components = CoordinatorComponents {
        meta: Arc::clone(&foundation.meta),
        store: Arc::clone(&foundation.store),
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    Ok(bmq_coordinator::Server::build(settings.coordinator.clone(), components).await?)
}

/// Opens the folder, which one process can have at a time.
async fn open_data(process: &Process, data_dir: &Path) -> anyhow::Result<Foundation> {
    let unusable = || format!("cannot use the data folder {}", data_dir.display());
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
    let store = LocalStore::open(data_dir.join("segments")).await.with_context(unusable)?;
    let embedded = EmbeddedConfig { path: data_dir.join("meta.redb") };
    let config = MetaConfig { embedded, ..MetaConfig::default() };
    let records = config.open_store().await.with_context(unusable)?;
    let meta = MetaServer::start(records, config.server(), process.random.clone()).await?;
    Ok(Foundation { meta: Arc::new(meta.with_metrics(&process.metrics)), store: Arc::new(store) })
}

/// Tells where everything is and what to type next.
fn welcome(data_dir: &Path, grpc: SocketAddr, kafka: &str, http: SocketAddr, insecure: bool) -> anyhow::Result<()> {
    let bmq = std::env::args().next().unwrap_or_else(|| "bmq".to_owned());
    let server = if grpc.port() == STANDALONE_PORT { String::new() } else { format!(" --server {grpc}") };
    let reach = if insecure {
        "There is no authentication: whoever reaches these addresses can read and write everything."
    } else {
        "There is no authentication yet, so only this machine can connect."
    };
    let version = env!("CARGO_PKG_VERSION");
    print_text(&format!(
        "\
bmq {version} is running.

  clients     {grpc}
  Kafka       {kafka}
  operators   http://{http}/readyz  /livez  /metrics
  data        {data}

{reach} Stop it with Ctrl-C.

Try, in another terminal:
  {bmq}{server} topic create hello --partitions 3
  echo 'the first record' | {bmq}{server} produce hello
  {bmq}{server} consume hello --from earliest --until-end
",
        data = data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_others_reach_need_a_word() {
        let open = |insecure| {
            let grpc = GrpcSettings { address: ([192, 0, 2, 1], 9640).into(), advertised: None };
            StandaloneProcess { grpc, insecure, ..StandaloneProcess::default() }.validate()
        };
        let refusal = open(false).unwrap_err();
        assert!(refusal.contains("192.0.2.1:9640") && refusal.contains("no authentication"), "{refusal}");
        assert_eq!(open(true), Ok(()));
        assert_eq!(StandaloneProcess::default().validate(), Ok(()));
    }
}
