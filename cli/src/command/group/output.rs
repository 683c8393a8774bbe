//! How groups are shown.

use bmq_client::{GroupDescription, GroupListing, GroupMember, GroupOffsetChange, GroupPartition};
use serde::Serialize;

use crate::output::{Answer, or_dash, table};

#[derive(Debug, Serialize)]
pub struct ShownGroup {
    group: String,
    r#type: String,
    state: String,
    protocol_type: String,
}

#[derive(Debug, Serialize)]
pub struct ShownGroups {
    groups: Vec<ShownGroup>,
}

#[derive(Debug, Serialize)]
pub struct ShownDescription {
    #[serde(flatten)]
    group: ShownGroup,
    assignor: String,
    members: Vec<ShownMember>,
    partitions: Vec<ShownPartition>,
    /// Of the partitions where it is known.
    total_lag: u64,
}

#[derive(Debug, Serialize)]
struct ShownMember {
    member: String,
    instance: Option<String>,
    client_id: String,
    host: String,
}

#[derive(Debug, Serialize)]
struct ShownPartition {
    topic: String,
    partition: u32,
    committed: Option<u64>,
    log_start: Option<u64>,
    high_watermark: Option<u64>,
    lag: Option<u64>,
    member: Option<String>,
    metadata: String,
}

#[derive(Debug, Serialize)]
pub struct ShownChanges {
    changes: Vec<ShownChange>,
}

#[derive(Debug, Serialize)]
struct ShownChange {
    topic: String,
    partition: u32,
    before: Option<u64>,
    after: u64,
}

impl From<GroupListing> for ShownGroup {
    fn from(listing: GroupListing) -> Self {
        let GroupListing { group, r#type, state, protocol_type } = listing;
        ShownGroup { group, r#type, state, protocol_type }
    }
}

impl From<Vec<GroupListing>> for ShownGroups {
    fn from(groups: Vec<GroupListing>) -> Self {
        ShownGroups { groups: groups.into_iter().map(ShownGroup::from).collect() }
    }
}

impl From<GroupMember> for ShownMember {
    fn from(member: GroupMember) -> Self {
        let GroupMember { member, instance, client_id, host } = member;
        ShownMember { member, instance, client_id, host }
    }
}

impl From<GroupPartition> for ShownPartition {
    fn from(it: GroupPartition) -> Self {
        let GroupPartition { topic, partition, committed, metadata, log_start, high_watermark, lag, member } = it;
        ShownPartition { topic, partition, committed, log_start, high_watermark, lag, member, metadata }
    }
}

impl From<GroupDescription> for ShownDescription {
    fn from(described: GroupDescription) -> Self {
        let GroupDescription { group, assignor, members, partitions } = described;
        let total_lag = partitions.iter().filter_map(|partition| partition.lag).sum();
        let members = members.into_iter().map(ShownMember::from).collect();
        let partitions = partitions.into_iter().map(ShownPartition::from).collect();
        ShownDescription { group: group.into(), assignor, members, partitions, total_lag }
    }
}

impl From<Vec<GroupOffsetChange>> for ShownChanges {
    fn from(changes: Vec<GroupOffsetChange>) -> Self {
        let shown = |it: GroupOffsetChange| {
            let GroupOffsetChange { topic, partition, before, after } = it;
            ShownChange { topic, partition, before, after }
        };
        ShownChanges { changes: changes.into_iter().map(shown).collect() }
    }
}

/// A text, or a dash in place of an empty one.
fn text_or_dash(text: &str) -> String {
    or_dash(Some(text).filter(|text| !text.is_empty()))
}

impl ShownGroup {
    fn row(&self) -> Vec<String> {
        vec![self.group.clone(), self.r#type.clone(), self.state.clone(), text_or_dash(&self.protocol_type)]
    }
}

const GROUP_HEADER: [&str; 4] = ["GROUP", "TYPE", "STATE", "PROTOCOL"];

impl Answer for ShownGroups {
    fn table(&self) -> String {
        if self.groups.is_empty() {
            return "There are no groups. One begins when its first member joins or an offset is committed.".to_owned();
        }
        table(&GROUP_HEADER, self.groups.iter().map(ShownGroup::row))
    }
}

impl Answer for ShownDescription {
    fn table(&self) -> String {
        let member = |it: &ShownMember| {
            vec![it.member.clone(), or_dash(it.instance.as_ref()), text_or_dash(&it.client_id), text_or_dash(&it.host)]
        };
        let partition = |it: &ShownPartition| {
            vec![
                it.topic.clone(),
                it.partition.to_string(),
                or_dash(it.committed),
                or_dash(it.high_watermark),
                or_dash(it.lag),
                or_dash(it.member.as_ref()),
            ]
        };
        let mut parts = vec![table(&GROUP_HEADER, [self.group.row()])];
        if !self.members.is_empty() {
            let header = ["MEMBER", "INSTANCE", "CLIENT", "HOST"];
            parts.push(table(&header, self.members.iter().map(member)));
        }
        if !self.partitions.is_empty() {
            let header = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"];
            parts.push(table(&header, self.partitions.iter().map(partition)));
        }
        parts.join("\n\n")
    }
}

impl Answer for ShownChanges {
    fn table(&self) -> String {
        let row = |it: &ShownChange| {
            vec![it.topic.clone(), it.partition.to_string(), or_dash(it.before), it.after.to_string()]
        };
        table(&["TOPIC", "PARTITION", "BEFORE", "AFTER"], self.changes.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> ShownDescription {
        let group = GroupListing {
            group: "billing".to_owned(),
            r#type: "classic".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
        };
        let (member, client_id) = ("c-1".to_owned(), "app".to_owned());
        let members = vec![GroupMember { member, client_id, host: "/127.0.0.1".to_owned(), ..GroupMember::default() }];
        let partition = GroupPartition {
            topic: "orders".to_owned(),
            committed: Some(40),
            log_start: Some(0),
            high_watermark: Some(42),
            lag: Some(2),
            member: Some("c-1".to_owned()),
            ..GroupPartition::default()
        };
        let unread = GroupPartition { topic: "orders".to_owned(), partition: 1, ..GroupPartition::default() };
        let assignor = "range".to_owned();
        GroupDescription { group, assignor, members, partitions: vec![partition, unread] }.into()
    }

    #[test]
    fn tables_are_for_people() {
        let expect = "\
GROUP    TYPE     STATE   PROTOCOL
billing  classic  Stable  consumer

MEMBER  INSTANCE  CLIENT  HOST
c-1     -         app     /127.0.0.1

TOPIC   PARTITION  COMMITTED  END  LAG  MEMBER
orders  0          40         42   2    c-1
orders  1          -          -    -    -";
        assert_eq!(described().table(), expect);
        assert!(ShownGroups { groups: Vec::new() }.table().contains("no groups"));
        let topic = "orders".to_owned();
        let changes = vec![GroupOffsetChange { topic, partition: 3, before: None, after: 7 }];
        let expect = "TOPIC   PARTITION  BEFORE  AFTER\norders  3          -       7";
        assert_eq!(ShownChanges::from(changes).table(), expect);
    }

    #[test]
    fn json_is_for_scripts() {
        let json = serde_json::to_value(described()).unwrap();
        assert_eq!((&json["group"], &json["total_lag"]), (&"billing".into(), &2.into()));
        assert_eq!(json["partitions"][1]["committed"], serde_json::Value::Null);
        assert_eq!(json["members"][0]["client_id"], "app");
    }
}
