//! Members leave, or are removed by a tool that names their instance ids.

use bmq_proto::coordinator::{LeavingMember, LeftMember};

use super::ClassicGroup;
use crate::group::error::{GroupError, code_of};
use crate::group::step::Step;

impl ClassicGroup {
    /// One answer per member, in the request's order.
    pub fn leave(&mut self, id: &str, leaving: Vec<LeavingMember>, step: &mut Step<'_>) -> Vec<LeftMember> {
        let members_before = self.members.len();
        let mut left = Vec::with_capacity(leaving.len());
        for LeavingMember { member, instance, .. } in leaving {
            let result = self.take_out(&member, instance.as_deref(), step);
            left.push(LeftMember { member, instance, error: code_of(&result) });
        }
        if self.members.len() < members_before {
            self.begin_rebalance_or_go_on(id, step);
        } else {
            // Perhaps the only one that the others waited for had not even come.
            self.finish_join_if_complete(id, step);
        }
        left
    }

    fn take_out(&mut self, member: &str, instance: Option<&str>, step: &mut Step<'_>) -> Result<(), GroupError> {
        if self.given.remove(member).is_some() {
            return Ok(());
        }
        let member = if member.is_empty() {
            let named = instance.and_then(|instance| self.instances.get(instance));
            named.cloned().ok_or(GroupError::UnknownMemberId)?
        } else {
            self.check_member(member, instance)?;
            member.to_owned()
        };
        self.remove(&member, GroupError::UnknownMemberId, step);
        Ok(())
    }
}
