//! `bmq broker`: owns partitions.

use anyhow::Context;
use bmq_broker::{BrokerComponents, BrokerConfig, Server};
use bmq_common::telemetry::LogConfig;
use bmq_proto::rpc::broker_server;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::process::announcement::{Announcement, Kind};
use crate::process::settings::{
    BROKER_PORT, GrpcSettings, HttpSettings, MetaClientSettings, Settings, SettingsArguments,
};
use crate::process::store::StoreSettings;
use crate::process::{Process, bind_grpc, unfailing};

/// The settings of `bmq broker`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerProcess {
    pub log: LogConfig,
    pub grpc: GrpcSettings,
    pub http: HttpSettings,
    pub meta_client: MetaClientSettings,
    pub store: StoreSettings,
    pub broker: BrokerConfig,
}

impl Default for BrokerProcess {
    fn default() -> Self {
        BrokerProcess {
            log: LogConfig::default(),
            grpc: GrpcSettings::on_port(BROKER_PORT),
            http: HttpSettings::on_port(BROKER_PORT + 1),
            meta_client: MetaClientSettings::default(),
            store: StoreSettings::default(),
            broker: BrokerConfig::default(),
        }
    }
}

impl Settings for BrokerProcess {
    fn validate(&self) -> Result<(), String> {
        self.grpc.validate()?;
        self.meta_client.validate()?;
        self.store.validate()?;
        self.broker.validate().map_err(|error| format!("broker.{error}"))
    }
}

pub async fn run(arguments: SettingsArguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.load::<BrokerProcess>(Vec::new())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

async fn start(process: &mut Process, settings: &BrokerProcess) -> anyhow::Result<()> {
    process.begin_stage("operations");
    let http = process.serve_http(settings.http.address).await?;
    let store = settings.store.open().await?;
    process.settle_at_end(store.clone());
    process.begin_stage("broker");
    let (listener, bound) = bind_grpc(settings.grpc.address).await?;
    let advertised = settings.grpc.advertised(bound);
    let components = BrokerComponents {
        meta: settings.meta_client.connect()?,
        store: store.segments,
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let config = BrokerConfig { advertised_address: advertised.clone(), ..settings.broker.clone() };
    let server = Server::build(config, components).await.context("cannot reach the metadata service")?;
    let service = server.service();
    process.run_grpc(listener, |shutdown| Routes::new(broker_server(service, shutdown)));
    process.run("broker", |shutdown| unfailing(server.run(shutdown)));
    Announcement {
        kind: Kind::Broker,
        id: settings.broker.node_id,
        grpc: Some(advertised),
        kafka: Default::default(),
        http,
    }
    .print()
}
