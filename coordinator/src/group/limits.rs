//! Bounds on what requests bring, where the group's own bounds (members, bytes of a record) do not hold them.

use bmq_proto::coordinator::{
    CommitOffsetsRequest, GroupHeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};

use super::error::GroupError;

/// Of names and ids: what Kafka's wire can carry. Our own wire could carry more.
const MAX_NAME_BYTES: usize = i16::MAX as usize;

/// What a request must keep to, whatever group it is for.
pub(super) trait Limits {
    fn check_limits(&self) -> Result<(), GroupError>;
}

impl Limits for JoinGroupRequest {
    fn check_limits(&self) -> Result<(), GroupError> {
        check_group(&self.group)?;
        let client = self.client.iter().flat_map(|client| [client.id.as_str(), client.host.as_str()]);
        let protocols = self.protocols.iter().map(|protocol| protocol.name.as_str());
        check_names([self.member.as_str(), self.protocol_type.as_str()].into_iter())?;
        check_names(self.instance.as_deref().into_iter().chain(client).chain(protocols))
    }
}

impl Limits for SyncGroupRequest {
    fn check_limits(&self) -> Result<(), GroupError> {
        check_group(&self.group)
    }
}

impl Limits for GroupHeartbeatRequest {
    fn check_limits(&self) -> Result<(), GroupError> {
        check_group(&self.group)
    }
}

impl Limits for LeaveGroupRequest {
    fn check_limits(&self) -> Result<(), GroupError> {
        check_group(&self.group)
    }
}

/// Simple consumers may use the empty group id.
impl Limits for CommitOffsetsRequest {
    fn check_limits(&self) -> Result<(), GroupError> {
        check_names(std::iter::once(self.group.as_str()))
    }
}

fn check_group(group: &str) -> Result<(), GroupError> {
    if group.is_empty() || group.len() > MAX_NAME_BYTES { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

fn check_names<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), GroupError> {
    if names.all(|name| name.len() <= MAX_NAME_BYTES) { Ok(()) } else { Err(GroupError::InvalidRequest) }
}
