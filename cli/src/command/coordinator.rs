//! `bmq coordinator`: owns consumer groups and their committed offsets.

use anyhow::Context;
use bmq_common::telemetry::LogConfig;
use bmq_coordinator::{CoordinatorComponents, CoordinatorConfig, Server};
use bmq_proto::rpc::coordinator_server;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::process::announcement::{Announcement, Kind};
use crate::process::settings::{
    COORDINATOR_PORT, GrpcSettings, HttpSettings, MetaClientSettings, Settings, SettingsArguments,
};
use crate::process::store::StoreSettings;
use crate::process::{Process, bind_grpc, unfailing};

/// The settings of `bmq coordinator`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoordinatorProcess {
    pub log: LogConfig,
    pub grpc: GrpcSettings,
    pub http: HttpSettings,
    pub meta_client: MetaClientSettings,
    pub store: StoreSettings,
    pub coordinator: CoordinatorConfig,
}

impl Default for CoordinatorProcess {
    fn default() -> Self {
        CoordinatorProcess {
            log: LogConfig::default(),
            grpc: GrpcSettings::on_port(COORDINATOR_PORT),
            http: HttpSettings::on_port(COORDINATOR_PORT + 1),
            meta_client: MetaClientSettings::default(),
            store: StoreSettings::default(),
            coordinator: CoordinatorConfig::default(),
        }
    }
}

impl Settings for CoordinatorProcess {
    fn validate(&self) -> Result<(), String> {
        self.grpc.validate()?;
        self.meta_client.validate()?;
        self.store.validate()?;
        self.coordinator.validate().map_err(|error| format!("coordinator.{error}"))
    }
}

pub async fn run(arguments: SettingsArguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.load::<CoordinatorProcess>(Vec::new())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

async fn start(process: &mut Process, settings: &CoordinatorProcess) -> anyhow::Result<()> {
    process.begin_stage("operations");
    let http = process.serve_http(settings.http.address).await?;
    let store = settings.store.open().await?;
    process.settle_at_end(store.clone());
    process.begin_stage("coordinator");
    let (listener, bound) = bind_grpc(settings.grpc.address).await?;
    let advertised = settings.grpc.advertised(bound);
    let components = CoordinatorComponents {
        meta: settings.meta_client.connect()?,
        store: store.segments,
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let config = CoordinatorConfig { advertised_address: advertised.clone(), ..settings.coordinator.clone() };
    let server = Server::build(config, components).await.context("cannot reach the metadata service")?;
    let service = server.service();
    process.run_grpc(listener, |_shutdown| Routes::new(coordinator_server(service)));
    process.run("coordinator", |shutdown| unfailing(server.run(shutdown)));
    Announcement {
        kind: Kind::Coordinator,
        id: settings.coordinator.node_id,
        grpc: Some(advertised),
        kafka: Default::default(),
        http,
    }
    .print()
}
