//! What can be typed, one file per subcommand.

mod bench;
mod broker;
mod cluster;
mod consume;
mod controller;
mod coordinator;
mod group;
mod local_cluster;
mod meta;
mod produce;
mod proxy;
mod standalone;
mod topic;

use bmq_common::telemetry::init_logs;
use clap::Subcommand;

use crate::process::settings::{SettingsArguments, quiet_log};

/// The subcommands, in the order in which a new user needs them.
#[derive(Debug, Subcommand)]
pub enum Command {
    Standalone(standalone::Arguments),
    #[command(subcommand)]
    Topic(topic::Command),
    Produce(produce::Arguments),
    Consume(consume::Arguments),
    #[command(subcommand)]
    Group(group::Command),
    #[command(subcommand)]
    Cluster(cluster::Command),
    #[command(subcommand)]
    Bench(bench::Command),
    LocalCluster(local_cluster::Arguments),
    /// Run a metadata service
    ///
    /// Keeps topics, sessions and partitions in etcd, or in a file of its own.
    Meta(SettingsArguments),
    /// Run a controller
    ///
    /// Decides which broker owns which partition. Of several, one decides and the others stand by.
    Controller(SettingsArguments),
    /// Run a broker
    ///
    /// Owns partitions: takes their records and writes them to the store.
    Broker(SettingsArguments),
    /// Run a coordinator
    ///
    /// Owns consumer groups and the offsets that they have committed.
    Coordinator(SettingsArguments),
    /// Run a proxy
    ///
    /// Serves clients: forwards what they produce to the brokers, and answers what they read.
    Proxy(SettingsArguments),
}

impl Command {
    pub async fn run(self, server: &str) -> anyhow::Result<()> {
        if !self.is_service() {
            init_logs(quiet_log())?;
        }
        match self {
            Command::Standalone(arguments) => standalone::run(arguments).await,
            Command::Topic(command) => topic::run(server, command).await,
            Command::Produce(arguments) => produce::run(server, arguments).await,
            Command::Consume(arguments) => consume::run(server, arguments).await,
            Command::Group(command) => group::run(server, command).await,
            Command::Cluster(command) => cluster::run(server, command).await,
            Command::Bench(command) => bench::run(server, command).await,
            Command::LocalCluster(arguments) => local_cluster::run(arguments).await,
            Command::Meta(arguments) => meta::run(arguments).await,
            Command::Controller(arguments) => controller::run(arguments).await,
            Command::Broker(arguments) => broker::run(arguments).await,
            Command::Coordinator(arguments) => coordinator::run(arguments).await,
            Command::Proxy(arguments) => proxy::run(arguments).await,
        }
    }

    /// Services set up their logs as their settings say.
    fn is_service(&self) -> bool {
        matches!(
            self,
            Command::Standalone(_)
                | Command::Meta(_)
                | Command::Controller(_)
                | Command::Broker(_)
                | Command::Coordinator(_)
                | Command::Proxy(_)
        )
    }
}
