//! `bmq proxy`: the edge that serves clients.

use std::sync::Arc;

use bmq_common::telemetry::LogConfig;
use bmq_proxy::{ProxyComponents, ProxyConfig, Server};
use serde::{Deserialize, Serialize};

use crate::process::announcement::{Announcement, Kind};
use crate::process::brokers::RemoteBrokers;
use crate::process::coordinators::RemoteCoordinators;
use crate::process::settings::{
    GrpcSettings, HttpSettings, ListenerSettings, MetaClientSettings, STANDALONE_PORT, Settings, SettingsArguments,
};
use crate::process::store::StoreSettings;
use crate::process::{Process, bind_grpc, bind_kafka, unfailing};

/// The settings of `bmq proxy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyProcess {
    pub log: LogConfig,
    pub grpc: GrpcSettings,
    /// Where Kafka clients connect.
    pub listeners: Vec<ListenerSettings>,
    pub http: HttpSettings,
    pub meta_client: MetaClientSettings,
    pub store: StoreSettings,
    pub proxy: ProxyConfig,
}

impl Default for ProxyProcess {
    fn default() -> Self {
        ProxyProcess {
            log: LogConfig::default(),
            // The port that the tools ask where nothing else is said.
            grpc: GrpcSettings::on_port(STANDALONE_PORT),
            listeners: vec![ListenerSettings::default()],
            http: HttpSettings::on_port(STANDALONE_PORT + 1),
            meta_client: MetaClientSettings::default(),
            store: StoreSettings::default(),
            proxy: ProxyConfig::default(),
        }
    }
}

impl Settings for ProxyProcess {
    fn validate(&self) -> Result<(), String> {
        self.grpc.validate()?;
        ListenerSettings::validate_all(&self.listeners)?;
        self.meta_client.validate()?;
        self.store.validate()?;
        self.proxy.validate().map_err(|error| format!("proxy.{error}"))
    }
}

pub async fn run(arguments: SettingsArguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.load::<ProxyProcess>(Vec::new())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

async fn start(process: &mut Process, settings: &ProxyProcess) -> anyhow::Result<()> {
    process.begin_stage("operations");
    let http = process.serve_http(settings.http.address).await?;
    let store = settings.store.open().await?;
    process.settle_at_end(store.clone());
    process.begin_stage("proxy");
    let (listener, bound) = bind_grpc(settings.grpc.address).await?;
    let advertised = settings.grpc.advertised(bound);
    let kafka = bind_kafka(&settings.listeners).await?;
    let told = kafka.iter().map(|listener| (listener.name.clone(), listener.advertised.clone())).collect();
    let components = ProxyComponents {
        meta: settings.meta_client.connect()?,
        store: store.segments,
        brokers: Arc::new(RemoteBrokers::default()),
        coordinators: Arc::new(RemoteCoordinators::default()),
        address: advertised.clone(),
        kafka,
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let server = Server::build(settings.proxy.clone(), components).await?;
    process.run_grpc(listener, |_shutdown| server.grpc_routes());
    process.run("proxy", |shutdown| unfailing(server.run(shutdown)));
    let (kind, id) = (Kind::Proxy, settings.proxy.node_id);
    Announcement { kind, id, grpc: Some(advertised), kafka: told, http }.print()
}
