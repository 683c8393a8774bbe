//! `bmq controller`: liveness, assignment, the end of deleted topics.

use std::sync::Arc;

use bmq_common::telemetry::LogConfig;
use bmq_controller::{ControllerComponents, ControllerConfig, Server};
use serde::{Deserialize, Serialize};

use crate::process::announcement::{Announcement, Kind};
use crate::process::brokers::RemoteBrokers;
use crate::process::settings::{CONTROLLER_HTTP_PORT, HttpSettings, MetaClientSettings, Settings, SettingsArguments};
use crate::process::{Process, unfailing};

/// The settings of `bmq controller`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControllerProcess {
    pub log: LogConfig,
    pub http: HttpSettings,
    pub meta_client: MetaClientSettings,
    pub controller: ControllerConfig,
}

impl Default for ControllerProcess {
    fn default() -> Self {
        ControllerProcess {
            log: LogConfig::default(),
            http: HttpSettings::on_port(CONTROLLER_HTTP_PORT),
            meta_client: MetaClientSettings::default(),
            controller: ControllerConfig::default(),
        }
    }
}

impl Settings for ControllerProcess {
    fn validate(&self) -> Result<(), String> {
        self.meta_client.validate()?;
        self.controller.validate().map_err(|error| format!("controller.{error}"))
    }
}

pub async fn run(arguments: SettingsArguments) -> anyhow::Result<()> {
    let Some(settings) = arguments.load::<ControllerProcess>(Vec::new())? else {
        return Ok(());
    };
    let mut process = Process::begin(settings.log.clone())?;
    let started = start(&mut process, &settings).await;
    process.run_after(started).await
}

async fn start(process: &mut Process, settings: &ControllerProcess) -> anyhow::Result<()> {
    process.begin_stage("operations");
    let http = process.serve_http(settings.http.address).await?;
    process.begin_stage("controller");
    let components = ControllerComponents {
        meta: settings.meta_client.connect()?,
        brokers: Arc::new(RemoteBrokers::default()),
        clock: process.clock.clone(),
        random: process.random.clone(),
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let server = Server::build(settings.controller.clone(), components)?;
    process.run("controller", |shutdown| unfailing(server.run(shutdown)));
    Announcement {
        kind: Kind::Controller,
        id: settings.controller.node_id,
        grpc: None,
        kafka: Default::default(),
        http,
    }
    .print()
}
