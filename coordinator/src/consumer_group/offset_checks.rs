//! Whether a member may commit or fetch offsets: the offsets themselves are beside the group.

use super::ConsumerGroup;
use crate::group::error::GroupError;

impl ConsumerGroup {
    /// Whether offsets may be committed under this member and epoch. A negative epoch is a simple consumer's or a
    /// tool's, whose commits are taken while nobody is a member.
    pub fn check_commit(&self, member: &str, epoch: i32) -> Result<(), GroupError> {
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check_member_epoch(member, epoch)
    }

    /// Whether offsets may be fetched. Anybody may who does not claim to be a member.
    pub fn check_fetch(&self, member: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        member.map_or(Ok(()), |member| self.check_member_epoch(member, epoch))
    }

    fn check_member_epoch(&self, member: &str, epoch: i32) -> Result<(), GroupError> {
        let member = self.members.get(member).ok_or(GroupError::UnknownMemberId)?;
        if member.current.epoch == epoch {
            Ok(())
        } else if member.is_classic() {
            Err(GroupError::IllegalGeneration)
        } else {
            Err(GroupError::StaleMemberEpoch)
        }
    }
}
