//! `bmq meta`: the metadata service.

use std::sync::Arc;

use anyhow::Context;
use bmq_common::telemetry::LogConfig;
use bmq_meta::{MetaConfig, MetaServer};
use bmq_proto::rpc::meta_server;
use serde::{Deserialize, Serialize};
use tonic::service::Routes;

use crate::process::announcement::{Announcement, Kind};
use crate::process::settings::{GrpcSettings, HttpSettings, META_PORT, Settings, SettingsArguments};
use crate::process::{Process, bind_grpc};

/// The settings of `bmq meta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaProcess {
    pub node_id: u32,
    pub log: LogConfig,
    pub grpc: GrpcSettings,
    pub http: HttpSettings,
    pub meta: MetaConfig,
}

impl Default for MetaProcess {
    fn default() -> Self {
        MetaProcess {
            node_id: 1,
            log: LogConfig::default(),
            grpc: GrpcSettings::on_port(META_PORT),
            http: HttpSettings::on_port(META_PORT + 1),
            meta: MetaConfig::default(),
        }
    }
}

impl Settings for MetaProcess {
    fn validate(&self) -> Result<(), String> {
        self.grpc.validate()?;
        self.meta.validate().map_err(|error| error.to_string())
    }
}

pub async fn run(arguments: SettingsArguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.load::<MetaProcess>(Vec::new())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

async fn start(process: &mut Process, settings: &MetaProcess) -> anyhow::Result<()> {
    process.begin_stage("operations");
    let http = process.serve_http(settings.http.address).await?;
    let ready = process.readiness.register("metadata store");
    let store = settings.meta.open_store().await.context("cannot open the metadata store")?;
    let server = MetaServer::start(store, settings.meta.server(), process.random.clone()).await?;
    let server = server.with_metrics(&process.metrics);
    process.begin_stage("metadata service");
    let (listener, bound) = bind_grpc(settings.grpc.address).await?;
    process.run_grpc(listener, |shutdown| Routes::new(meta_server(Arc::new(server), shutdown)));
    ready.set(true, "");
    let grpc = Some(settings.grpc.advertised(bound));
    Announcement { kind: Kind::Meta, id: settings.node_id, grpc, kafka: Default::default(), http }.print()
}
