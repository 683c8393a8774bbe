//! A classic group as it is stored: one whole generation.

use std::time::Duration;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::internal::{ClassicGroupRecord, ClassicMemberRecord, group_record};
use bytes::Bytes;
use prost::Message;

use super::member::{Waiting, unpinned};
use super::{ClassicGroup, Member, Phase};

impl ClassicGroup {
    /// The present generation.
    pub fn record(&self) -> group_record::Kind {
        group_record::Kind::Classic(self.to_record())
    }

    pub(super) fn record_bytes(&self) -> usize {
        self.to_record().encoded_len()
    }

    pub fn to_record(&self) -> ClassicGroupRecord {
        let members = self.members.iter().map(|(id, member)| ClassicMemberRecord {
            member: id.clone(),
            instance: member.instance.clone(),
            client: Some(member.client.clone()),
            session_timeout_ms: millis(member.session_timeout),
            rebalance_timeout_ms: millis(member.rebalance_timeout),
            protocols: member.protocols.clone(),
            assignment: member.assignment.clone(),
        });
        ClassicGroupRecord {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            state_since_ms: self.state_since.0,
            members: members.collect(),
        }
    }

    /// The group of a record: stable, or empty.
    pub fn restore(record: ClassicGroupRecord) -> Result<Self, String> {
        let mut group = Self {
            phase: if record.members.is_empty() { Phase::Empty } else { Phase::Stable { until: None } },
            generation: record.generation,
            protocol_type: record.protocol_type,
            protocol: record.protocol,
            leader: Some(record.leader).filter(|leader| !leader.is_empty()),
            state_since: WallMillis(record.state_since_ms),
            ..Self::default()
        };
        for member in record.members {
            if let Some(instance) = &member.instance {
                group.instances.insert(instance.clone(), member.member.clone());
            }
            let mut restored = Member {
                instance: member.instance,
                client: member.client.unwrap_or_default(),
                session_timeout: Duration::from_millis(member.session_timeout_ms.into()),
                rebalance_timeout: Duration::from_millis(member.rebalance_timeout_ms.into()),
                protocols: member.protocols.into_iter().map(unpinned).collect(),
                assignment: Bytes::copy_from_slice(&member.assignment),
                waiting: Waiting::No,
                is_new: false,
                synced: true,
                expires: Monotonic::ZERO,
                weight: 0,
            };
            restored.weigh();
            group.members.insert(member.member, restored);
        }
        let leads = |leader: &String| group.members.contains_key(leader);
        match &group.leader {
            Some(leader) if !leads(leader) => Err(format!("the leader `{leader}` of a group is not a member")),
            None if !group.members.is_empty() => Err("a group with members has no leader".to_owned()),
            _ => Ok(group),
        }
    }
}

/// It came from a request as such a number.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
