//! Commits.

use bmq_common::clock::WallMillis;
use bmq_proto::coordinator::{CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, PartitionError};
use bmq_proto::internal::{CommittedOffsetsRecord, group_record};
use prost::Message;

use super::{Commit, topic_id};
use crate::group::error::GroupError;
use crate::group::limits::Limits;
use crate::group::step::Step;
use crate::group::{Group, Groups, Membership};

impl Groups {
    /// Commits for a member, for a simple consumer, or for a tool. The request's answer covers all partitions that it
    /// does not name as failed.
    pub(crate) fn commit_offsets(
        &mut self,
        request: CommitOffsetsRequest,
        step: &mut Step<'_>,
    ) -> CommitOffsetsResponse {
        let id = request.group.clone();
        let result = match self.check_commit(&request) {
            Ok(()) => self.groups.entry(id).or_default().commit(request, step),
            Err(error) => Err(error),
        };
        result.unwrap_or_else(|error| CommitOffsetsResponse { error: error.code(), partitions: Vec::new() })
    }

    fn check_commit(&self, request: &CommitOffsetsRequest) -> Result<(), GroupError> {
        request.check_limits()?;
        if request.encoded_len() + 32 * request.offsets.len() > self.config.max_append_bytes {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        if request.offsets.iter().any(|offset| topic_id(&offset.topic_id).is_err()) {
            return Err(GroupError::InvalidRequest);
        }
        match self.groups.get(&request.group) {
            Some(_) if request.forced => Ok(()),
            Some(group) => group.membership.check_commit(request),
            None if request.generation_or_member_epoch >= 0 => Err(GroupError::GroupIdNotFound),
            None => self.check_room_for_group(),
        }
    }
}

impl Group {
    fn commit(
        &mut self,
        request: CommitOffsetsRequest,
        step: &mut Step<'_>,
    ) -> Result<CommitOffsetsResponse, GroupError> {
        let is_new = |offset: &&CommittedOffset| self.offsets.get(&offset.topic, offset.partition).is_none();
        if self.offsets.len() + request.offsets.iter().filter(is_new).count() > step.config.max_offsets {
            return Err(GroupError::PolicyViolation);
        }
        if let Membership::Classic(classic) = &mut self.membership {
            // A member that commits is alive.
            classic.touch(&request.member, step.now);
        }
        let expires = request
            .retention_ms
            .map(|millis| WallMillis(step.wall.0.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX))));
        let mut response = CommitOffsetsResponse::default();
        let mut records = Vec::with_capacity(request.offsets.len());
        for offset in request.offsets {
            if offset.metadata.len() > step.config.max_offset_metadata_bytes {
                response.partitions.push(too_large(offset));
                continue;
            }
            let CommittedOffset { topic, partition, offset, leader_epoch, metadata, topic_id: id } = offset;
            let topic_id = topic_id(&id).expect("it was checked");
            let commit = Commit { offset, leader_epoch, metadata, topic_id, at: step.wall, expires };
            records.push(commit.record(&topic, partition));
            self.offsets.insert(topic, partition, commit);
        }
        if !records.is_empty() {
            let record = CommittedOffsetsRecord { offsets: records };
            step.append(&request.group, group_record::Kind::Committed(record));
        }
        Ok(response)
    }
}

fn too_large(offset: CommittedOffset) -> PartitionError {
    PartitionError {
        topic: offset.topic,
        partition: offset.partition,
        error: GroupError::OffsetMetadataTooLarge.code(),
        topic_id: offset.topic_id,
    }
}
