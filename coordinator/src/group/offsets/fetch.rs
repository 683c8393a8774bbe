//! Reading and deleting committed offsets.

use bmq_proto::coordinator::{
    CommittedOffset, DeleteOffsetsRequest, DeleteOffsetsResponse, FetchOffsetsRequest, FetchOffsetsResponse,
    PartitionError, TopicPartitionName, TopicPartitionNames,
};
use bmq_proto::internal::group_record;

use super::{OffsetTable, topic_id};
use crate::group::error::GroupError;
use crate::group::step::Step;
use crate::group::{Group, Groups};

impl Groups {
    /// What a group has committed; nothing for a group that is not there.
    pub(crate) fn fetch_offsets(&self, request: FetchOffsetsRequest) -> FetchOffsetsResponse {
        let Some(group) = self.groups.get(&request.group) else { return FetchOffsetsResponse::default() };
        if let Err(error) = group.membership.check_fetch(&request) {
            return FetchOffsetsResponse { error: error.code(), offsets: Vec::new() };
        }
        let offsets = match request.partitions {
            Some(names) => names.partitions.iter().filter_map(|name| group.offsets.answer_for(name)).collect(),
            None => group.offsets.iter().map(|(topic, partition, commit)| commit.answer(topic, partition)).collect(),
        };
        FetchOffsetsResponse { error: 0, offsets }
    }

    /// Forgets offsets, unless members use them.
    pub(crate) fn delete_offsets(
        &mut self,
        request: DeleteOffsetsRequest,
        step: &mut Step<'_>,
    ) -> DeleteOffsetsResponse {
        let result = match self.groups.get_mut(&request.group) {
            Some(group) => group.delete_offsets(request, step),
            None => Err(GroupError::GroupIdNotFound),
        };
        result.unwrap_or_else(|error| DeleteOffsetsResponse { error: error.code(), partitions: Vec::new() })
    }
}

impl Group {
    fn delete_offsets(
        &mut self,
        request: DeleteOffsetsRequest,
        step: &mut Step<'_>,
    ) -> Result<DeleteOffsetsResponse, GroupError> {
        self.membership.check_delete_offsets()?;
        let used = self.membership.used_topics(step.topics);
        let mut response = DeleteOffsetsResponse::default();
        let mut gone = Vec::new();
        for name in request.partitions {
            if used.contains(&name.topic) {
                let TopicPartitionName { topic, partition, topic_id } = name;
                let error = GroupError::GroupSubscribedToTopic.code();
                response.partitions.push(PartitionError { topic, partition, error, topic_id });
            } else if self.offsets.get(&name.topic, name.partition).is_some() {
                self.offsets.remove(&name.topic, name.partition);
                gone.push(name);
            }
        }
        if !gone.is_empty() {
            let names = TopicPartitionNames { partitions: gone };
            step.append(&request.group, group_record::Kind::Forgotten(names));
        }
        Ok(response)
    }
}

impl OffsetTable {
    /// Not that of an older topic of the same name, if the caller says which topic it means.
    fn answer_for(&self, name: &TopicPartitionName) -> Option<CommittedOffset> {
        let commit = self.get(&name.topic, name.partition)?;
        let wanted = topic_id(&name.topic_id).ok()?;
        let other_topic = matches!((wanted, commit.topic_id), (Some(wanted), Some(present)) if wanted != present);
        (!other_topic).then(|| commit.answer(&name.topic, name.partition))
    }
}
