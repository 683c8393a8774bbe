//! `bmq topic`: create, alter, list, describe, delete.

use std::collections::BTreeMap;

use anyhow::Context;
use bmq_client::{PartitionInfo, Topic, TopicChanges, TopicDescription};
use bmq_proto::topic_config::{SETTINGS, Setting};
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use crate::output::{Answer, OutputArguments, or_dash, table};
use crate::process::settings::parse_pair;
use crate::server::connect;

/// Create, alter, list, describe and delete topics
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = "\
Examples:
  bmq topic create orders --partitions 12
  bmq topic describe orders
  bmq topic list -o json")]
pub enum Command {
    /// Create a topic
    Create(Create),
    /// Change a topic's settings, or give it more partitions
    Alter(Alter),
    /// List all topics
    List(List),
    /// Show a topic's partitions: their owners, and which offsets they hold
    Describe(Named),
    /// Delete a topic and all of its records, for good
    Delete(Delete),
}

#[derive(Clone, Debug, Args)]
#[command(after_help = settings_help())]
pub struct Create {
    /// The topic's name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`
    name: String,
    /// How many partitions; records are in order within one
    #[arg(long, value_name = "N", default_value_t = 1)]
    partitions: u32,
    /// A setting of the topic, see below; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    config: Vec<(String, String)>,
    /// Check everything, create nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArguments,
}

/// Change a topic's settings, or give it more partitions
///
/// All is checked before anything is changed. New partitions take records from then on; those that are there stay where
/// they are, so records of one key may come to lie in two partitions.
#[derive(Clone, Debug, Args)]
#[command(
    group(ArgGroup::new("change").required(true).multiple(true)),
    after_help = "\
Examples:
  bmq topic alter orders --partitions 24
  bmq topic alter orders --config segment.bytes=67108864 --delete-config segment.ms"
)]
pub struct Alter {
    /// The topic's name
    name: String,
    /// How many partitions it shall have: as many as now, or more
    #[arg(long, value_name = "N", group = "change")]
    partitions: Option<u32>,
    /// A setting of the topic and its new value; may be repeated
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = parse_pair, group = "change")]
    config: Vec<(String, String)>,
    /// A setting that goes back to its default; may be repeated
    #[arg(long = "delete-config", value_name = "KEY", group = "change")]
    delete_config: Vec<String>,
    /// Show the topic as it would be, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Debug, Args)]
pub struct List {
    /// Also the topics that hold a service's own state
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    /// The topic's name
    name: String,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// The topic's name
    name: String,
}

/// Every setting that a topic can have, as the table of settings describes it.
fn settings_help() -> String {
    let setting = |it: &Setting| format!("  {} ({}; {} unless set)\n      {}", it.name, it.kind, it.default, it.help);
    let settings: Vec<String> = SETTINGS.iter().map(setting).collect();
    let example = "Example:\n  bmq topic create orders --partitions 12 --config segment.bytes=67108864";
    format!("Settings of a topic:\n{}\n\n{example}", settings.join("\n"))
}

pub async fn run(server: &str, command: Command) -> anyhow::Result<()> {
    let admin = connect(server).await?.admin();
    match command {
        Command::Create(Create { name, partitions, config, dry_run, output }) => {
            let config: BTreeMap<_, _> = config.into_iter().collect();
            if dry_run {
                let valid = admin.validate_topic(&name, partitions, config).await;
                valid.with_context(|| format!("topic {name} could not be created"))?;
                eprintln!("Topic {name} could be created.");
                return Ok(());
            }
            let created = admin.create_topic(&name, partitions, config).await;
            let created = created.with_context(|| format!("cannot create topic {name}"))?;
            output.print(&ShownTopic::from(created))
        }
        Command::Alter(Alter { name, partitions, config, delete_config, dry_run, output }) => {
            let set_config = config.into_iter().collect();
            let changes = TopicChanges { partitions, set_config, delete_config, validate_only: dry_run };
            let altered = admin.alter_topic(&name, changes).await;
            output.print(&ShownTopic::from(altered.with_context(|| format!("cannot alter topic {name}"))?))
        }
        Command::List(List { internal, output }) => {
            let mut topics = admin.list_topics().await.context("cannot list the topics")?;
            topics.retain(|topic| internal || !topic.internal);
            output.print(&ShownTopics { topics: topics.into_iter().map(ShownTopic::from).collect() })
        }
        Command::Describe(Named { name, output }) => {
            let described = admin.describe_topic(&name).await;
            let described = described.with_context(|| format!("cannot describe topic {name}"))?;
            output.print(&ShownDescription::from(described))
        }
        Command::Delete(Delete { name }) => {
            admin.delete_topic(&name).await.with_context(|| format!("cannot delete topic {name}"))?;
            eprintln!("Topic {name} is being deleted.");
            Ok(())
        }
    }
}

#[derive(Debug, Serialize)]
struct ShownTopic {
    name: String,
    topic_id: String,
    partitions: u32,
    config: BTreeMap<String, String>,
    deleting: bool,
    internal: bool,
}

#[derive(Debug, Serialize)]
struct ShownTopics {
    topics: Vec<ShownTopic>,
}

#[derive(Debug, Serialize)]
struct ShownDescription {
    #[serde(flatten)]
    topic: ShownTopic,
    partition_list: Vec<ShownPartition>,
}

#[derive(Debug, Serialize)]
struct ShownPartition {
    partition: u32,
    epoch: u32,
    owner: Option<u32>,
    log_start: Option<u64>,
    high_watermark: Option<u64>,
    segments: u32,
}

impl From<Topic> for ShownTopic {
    fn from(topic: Topic) -> Self {
        let Topic { name, topic_id, partitions, config, deleting, internal } = topic;
        ShownTopic { name, topic_id, partitions, config: config.into_iter().collect(), deleting, internal }
    }
}

impl From<PartitionInfo> for ShownPartition {
    fn from(partition: PartitionInfo) -> Self {
        let PartitionInfo { partition, epoch, owner, log_start, high_watermark, segments } = partition;
        ShownPartition { partition, epoch, owner, log_start, high_watermark, segments }
    }
}

impl From<TopicDescription> for ShownDescription {
    fn from(described: TopicDescription) -> Self {
        let partition_list = described.partitions.into_iter().map(ShownPartition::from).collect();
        ShownDescription { topic: described.topic.into(), partition_list }
    }
}

impl ShownTopic {
    fn row(&self) -> Vec<String> {
        let config: Vec<_> = self.config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let state = if self.deleting { "deleting" } else { "active" };
        vec![self.name.clone(), self.partitions.to_string(), state.to_owned(), config.join(" ")]
    }
}

const TOPIC_HEADER: [&str; 4] = ["TOPIC", "PARTITIONS", "STATE", "CONFIG"];

impl Answer for ShownTopic {
    fn table(&self) -> String {
        table(&TOPIC_HEADER, [self.row()])
    }
}

impl Answer for ShownTopics {
    fn table(&self) -> String {
        if self.topics.is_empty() {
            return "There are no topics. Make one: bmq topic create NAME --partitions N".to_owned();
        }
        table(&TOPIC_HEADER, self.topics.iter().map(ShownTopic::row))
    }
}

impl Answer for ShownDescription {
    fn table(&self) -> String {
        let row = |shown: &ShownPartition| {
            let (start, end) = (or_dash(shown.log_start), or_dash(shown.high_watermark));
            let (partition, epoch) = (shown.partition.to_string(), shown.epoch.to_string());
            vec![partition, or_dash(shown.owner), epoch, start, end, shown.segments.to_string()]
        };
        let header = ["PARTITION", "OWNER", "EPOCH", "START", "END", "SEGMENTS"];
        format!("{}\n\n{}", self.topic.table(), table(&header, self.partition_list.iter().map(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> ShownDescription {
        let config = [("retention.ms".to_owned(), "1".to_owned())].into_iter().collect();
        let (name, topic_id) = ("orders".to_owned(), "00ff".to_owned());
        let topic = Topic { name, topic_id, partitions: 2, config, deleting: false, internal: false };
        let owned = PartitionInfo {
            partition: 0,
            epoch: 3,
            owner: Some(1),
            log_start: Some(0),
            high_watermark: Some(42),
            segments: 2,
        };
        let orphan = PartitionInfo { partition: 1, ..PartitionInfo::default() };
        ShownDescription::from(TopicDescription { topic, partitions: vec![owned, orphan] })
    }

    #[test]
    fn tables_are_for_people() {
        let expect = "\
TOPIC   PARTITIONS  STATE   CONFIG
orders  2           active  retention.ms=1

PARTITION  OWNER  EPOCH  START  END  SEGMENTS
0          1      3      0      42   2
1          -      0      -      -    0";
        assert_eq!(described().table(), expect);
        assert!(ShownTopics { topics: Vec::new() }.table().contains("bmq topic create"));
    }

    #[test]
    fn json_is_for_scripts() {
        let json = serde_json::to_value(described()).unwrap();
        let expect = serde_json::json!({
            "name": "orders", "topic_id": "00ff", "partitions": 2, "config": {"retention.ms": "1"}, "deleting": false,
            "internal": false,
            "partition_list": [
                {"partition": 0, "epoch": 3, "owner": 1, "log_start": 0, "high_watermark": 42, "segments": 2},
                {"partition": 1, "epoch": 0, "owner": null, "log_start": null, "high_watermark": null, "segments": 0},
            ],
        });
        assert_eq!(json, expect);
        assert_eq!(serde_json::to_string(&ShownTopics { topics: Vec::new() }).unwrap(), r#"{"topics":[]}"#);
    }
}
