//! A topic's settings as Kafka describes them: each with its value, and where that comes from.

use bmq_kafka::StrBytes;
use bmq_kafka::messages::create_topics_response::CreatableTopicConfigs;
use bmq_kafka::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};
use bmq_proto::meta::TopicConfig;
use bmq_proto::topic_config::{SETTINGS, Setting, SettingKind};

/// Where a value comes from.
pub const SET_ON_TOPIC: i8 = 1;
pub const SET_ON_BROKER: i8 = 4;
pub const DEFAULT: i8 = 5;

/// One setting as it holds for one topic.
struct Effective<'a> {
    setting: &'static Setting,
    /// As set on the topic.
    set: Option<&'a str>,
}

impl Effective<'_> {
    fn value(&self) -> StrBytes {
        match self.set {
            Some(text) => StrBytes::from_string(text.to_owned()),
            None => StrBytes::from_static_str(self.setting.default),
        }
    }

    fn source(&self) -> i8 {
        if self.set.is_some() { SET_ON_TOPIC } else { DEFAULT }
    }

    /// The values that there would be if the ones before were not, the one in force first.
    fn synonyms(&self) -> Vec<DescribeConfigsSynonym> {
        let synonym = |name, value, source| {
            let name = StrBytes::from_static_str(name);
            DescribeConfigsSynonym::default().with_name(name).with_value(Some(value)).with_source(source)
        };
        let name = self.setting.name;
        let on_topic = self.set.map(|_| synonym(name, self.value(), SET_ON_TOPIC));
        let default = synonym(name_on_broker(name), StrBytes::from_static_str(self.setting.default), DEFAULT);
        on_topic.into_iter().chain([default]).collect()
    }
}

/// What Kafka calls the same setting where it holds for all topics. There are clients that keep synonyms by name.
fn name_on_broker(name: &'static str) -> &'static str {
    match name {
        "cleanup.policy" => "log.cleanup.policy",
        "delete.retention.ms" => "log.cleaner.delete.retention.ms",
        "max.compaction.lag.ms" => "log.cleaner.max.compaction.lag.ms",
        "max.message.bytes" => "message.max.bytes",
        "message.timestamp.type" => "log.message.timestamp.type",
        "min.cleanable.dirty.ratio" => "log.cleaner.min.cleanable.ratio",
        "min.compaction.lag.ms" => "log.cleaner.min.compaction.lag.ms",
        "retention.bytes" => "log.retention.bytes",
        "retention.ms" => "log.retention.ms",
        "segment.bytes" => "log.segment.bytes",
        "segment.ms" => "log.roll.ms",
        same => same,
    }
}

fn effective(config: &TopicConfig) -> impl Iterator<Item = Effective<'_>> {
    SETTINGS.iter().map(|setting| Effective { setting, set: config.get(setting.name).map(String::as_str) })
}

/// For the answer to a creation.
pub fn created(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let entry = |effective: Effective<'_>| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(effective.setting.name))
            .with_value(Some(effective.value()))
            .with_config_source(effective.source())
    };
    effective(config).map(entry).collect()
}

/// For a description.
pub fn described(config: &TopicConfig) -> Vec<DescribeConfigsResourceResult> {
    let entry = |effective: Effective<'_>| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(effective.setting.name))
            .with_value(Some(effective.value()))
            .with_config_source(effective.source())
            .with_synonyms(effective.synonyms())
            .with_config_type(type_of(effective.setting))
            .with_documentation(Some(StrBytes::from_static_str(effective.setting.help)))
    };
    effective(config).map(entry).collect()
}

/// The number of a setting's type on the wire.
fn type_of(setting: &Setting) -> i8 {
    match setting.kind {
        SettingKind::Choice(_) => 2,
        SettingKind::Int { .. } => 3,
        SettingKind::Long { .. } => 5,
        SettingKind::Ratio => 6,
        SettingKind::List(_) => 7,
    }
}
