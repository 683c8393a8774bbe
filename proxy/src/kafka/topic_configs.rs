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
        let name = StrBytes::from_static_str(self.setting.name);
        let synonym = |value: StrBytes, source| {
            DescribeConfigsSynonym::default().with_name(name.clone()).with_value(Some(value)).with_source(source)
        };
        let on_topic = self.set.map(|_| synonym(self.value(), SET_ON_TOPIC));
        let default = synonym(StrBytes::from_static_str(self.setting.default), DEFAULT);
        on_topic.into_iter().chain([default]).collect()
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
