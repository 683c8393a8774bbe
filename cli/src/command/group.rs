//! `bmq group`: consumer groups, how far they are, and where they go on.

mod output;

use anyhow::Context;
use bmq_client::{Admin, Seek, SeekTo};
use clap::{ArgGroup, Args, Subcommand};

use crate::output::OutputArguments;
use crate::point_in_time::PointInTime;
use crate::server::connect;
use output::{ShownChanges, ShownDescription, ShownGroups};

/// List, describe, move and delete consumer groups
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bmq group list
  bmq group describe billing
  bmq group seek billing --to-earliest --dry-run")]
pub enum Command {
    /// List all groups
    List(OutputArguments),
    /// Show a group's members, and how far it is behind in each partition
    Describe(Named),
    /// Set where a group goes on
    Seek(SeekArguments),
    /// Delete a group without members, and the offsets that it has committed
    Delete(Delete),
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    /// The group's name
    group: String,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The group's name
    group: String,
}

/// Set where a group goes on
///
/// Every partition that the group has an offset of, unless a topic is named. Nothing is set if one partition does not
/// have the offset.
#[derive(Clone, Debug, Args)]
#[command(
    group(ArgGroup::new("to").required(true)),
    after_help = "\
Examples:
  bmq group seek billing --to-earliest --dry-run
  bmq group seek billing --topic orders --partition 2 --to-offset 1000
  bmq group seek billing --topic orders --to-time 2026-01-31T18:00:00Z
  bmq group seek billing --to-latest --force"
)]
pub struct SeekArguments {
    /// The group's name
    name: String,
    /// Only this topic; may be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only this partition of the topic; may be repeated
    #[arg(long = "partition", value_name = "P", requires = "topics")]
    partitions: Vec<u32>,
    /// At this offset
    #[arg(long, value_name = "OFFSET", group = "to")]
    to_offset: Option<u64>,
    /// At the first record that is not older: a time such as 2026-01-31T18:00:00Z, or 15m-ago
    #[arg(long, value_name = "TIME", group = "to")]
    to_time: Option<PointInTime>,
    /// At the first record kept
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// At the next record to be written
    #[arg(long, group = "to")]
    to_latest: bool,
    /// Show what would be set, set nothing
    #[arg(long)]
    dry_run: bool,
    /// Although members are there: they go on where they are until they read their offsets anew
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    output: OutputArguments,
}

impl SeekArguments {
    fn to(&self) -> SeekTo {
        match (self.to_offset, self.to_time) {
            (Some(offset), _) => SeekTo::Offset(offset),
            (None, Some(PointInTime(time))) => SeekTo::Timestamp(time),
            (None, None) if self.to_earliest => SeekTo::Earliest,
            (None, None) => SeekTo::Latest,
        }
    }

    fn seek(&self) -> Seek {
        let topics = self.topics.iter().map(|topic| (topic.clone(), self.partitions.clone())).collect();
        Seek { to: self.to(), topics, dry_run: self.dry_run, force: self.force }
    }
}

pub async fn run(server: &str, command: Command) -> anyhow::Result<()> {
    let admin = connect(server).await?.admin();
    match command {
        Command::List(output) => {
            let groups = admin.list_groups().await.context("cannot list the groups")?;
            output.print(&ShownGroups::from(groups))
        }
        Command::Describe(Named { group, output }) => {
            let described = admin.describe_group(&group).await;
            let described = described.with_context(|| format!("cannot describe group {group}"))?;
            output.print(&ShownDescription::from(described))
        }
        Command::Seek(arguments) => seek(&admin, arguments).await,
        Command::Delete(Delete { group }) => {
            admin.delete_group(&group).await.with_context(|| format!("cannot delete group {group}"))?;
            eprintln!("Group {group} is deleted.");
            Ok(())
        }
    }
}

async fn seek(admin: &Admin, arguments: SeekArguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    let changes = admin.seek_group(name, arguments.seek()).await;
    let changes = changes.with_context(|| format!("cannot set where group {name} goes on"))?;
    arguments.output.print(&ShownChanges::from(changes))?;
    if arguments.dry_run {
        eprintln!("Nothing was set.");
    }
    Ok(())
}
