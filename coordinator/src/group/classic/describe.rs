//! What tools see of a classic group.

use bmq_proto::coordinator::{DescribeGroupResponse, DescribedMember, GroupListing};
use bytes::Bytes;

use super::{ClassicGroup, Member};

impl ClassicGroup {
    pub fn listing(&self, id: &str) -> GroupListing {
        GroupListing {
            group: id.to_owned(),
            r#type: "classic".to_owned(),
            state: self.state().to_owned(),
            protocol_type: self.protocol_type.clone(),
        }
    }

    /// What members brought and got is shown while it belongs together: in a stable group.
    pub fn describe(&self) -> DescribeGroupResponse {
        let stable = self.is_stable();
        DescribeGroupResponse {
            error: 0,
            state: self.state().to_owned(),
            protocol_type: self.protocol_type.clone(),
            protocol: if stable { self.protocol.clone() } else { String::new() },
            members: self.members.iter().map(|(id, member)| self.describe_member(id, member)).collect(),
        }
    }

    fn describe_member(&self, id: &str, member: &Member) -> DescribedMember {
        let (metadata, assignment) = if self.is_stable() {
            (member.metadata(&self.protocol).cloned().unwrap_or_default(), member.assignment.clone())
        } else {
            (Bytes::new(), Bytes::new())
        };
        DescribedMember {
            member: id.to_owned(),
            instance: member.instance.clone(),
            client: Some(member.client.clone()),
            metadata,
            assignment,
        }
    }
}
