//! Consumer groups: who is in them, how far they are, and where they go on.

use bmq_proto::v1::set_group_offsets_request::To;
use bmq_proto::v1::{self, Edge, GroupListing, GroupMember, GroupOffsetChange, GroupPartition};

use super::{Admin, answer, read};
use crate::Error;

/// One consumer group, its members and its partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupDescription {
    /// The group itself.
    pub group: GroupListing,
    /// How partitions are assigned to members.
    pub assignor: String,
    /// Its members.
    pub members: Vec<GroupMember>,
    /// The partitions that members have or that the group has offsets of, by topic and number.
    pub partitions: Vec<GroupPartition>,
}

/// Where a group shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// At this offset: `OutOfRange` if a partition does not have it.
    Offset(u64),
    /// At the first record that is not older, in milliseconds since 1970; at the end if there is none.
    Timestamp(i64),
    /// At the first record kept.
    Earliest,
    /// At the next record to be written.
    Latest,
}

/// How a group is made to go on elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seek {
    /// Where to.
    pub to: SeekTo,
    /// Topics and some of their partitions, or all of them if none is named. Without a topic: every partition that the
    /// group has an offset of.
    pub topics: Vec<(String, Vec<u32>)>,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Although members are there. They go on where they are until they read their offsets anew.
    pub force: bool,
}

impl Admin {
    /// All groups, by name.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        Ok(read(self.admin.clone().list_groups(v1::ListGroupsRequest {})).await?.groups)
    }

    /// One group. `UnknownGroup` if there is none.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        let v1::DescribeGroupResponse { group, assignor, members, partitions } =
            read(self.admin.clone().describe_group(request)).await?;
        let group = group.ok_or_else(|| Error::protocol("the server described no group").of_a_read())?;
        Ok(GroupDescription { group, assignor, members, partitions })
    }

    /// Deletes a group with its offsets. `GroupInUse` while it has members.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let request = v1::DeleteGroupRequest { group: group.to_owned() };
        answer(self.admin.clone().delete_group(request)).await?;
        Ok(())
    }

    /// Sets where a group goes on; a group that there is not is made. `GroupInUse` while it has members, unless forced.
    pub async fn seek_group(&self, group: &str, seek: Seek) -> Result<Vec<GroupOffsetChange>, Error> {
        let Seek { to, topics, dry_run, force } = seek;
        let to = Some(match to {
            SeekTo::Offset(offset) => To::Offset(offset),
            SeekTo::Timestamp(timestamp_ms) => To::TimestampMs(timestamp_ms),
            SeekTo::Earliest => To::Earliest(Edge {}),
            SeekTo::Latest => To::Latest(Edge {}),
        });
        let topics = topics.into_iter().map(|(topic, partitions)| v1::TopicSelection { topic, partitions }).collect();
        let request = v1::SetGroupOffsetsRequest { group: group.to_owned(), topics, to, dry_run, force };
        Ok(answer(self.admin.clone().set_group_offsets(request)).await?.changes)
    }
}
