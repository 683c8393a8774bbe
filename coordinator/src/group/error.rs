//! What a group answers instead of success: Kafka's numbers, since both edges know them.

/// A refusal by a group. `None` is 0 and has no variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(i32)]
pub enum GroupError {
    #[error("the group would be too large to be stored")]
    UnknownServerError = -1,
    #[error("nothing is known of this topic or partition")]
    UnknownTopicOrPartition = 3,
    #[error("the metadata of a committed offset is too long")]
    OffsetMetadataTooLarge = 12,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable = 15,
    #[error("the generation is not the group's present one")]
    IllegalGeneration = 22,
    #[error("the member's protocols do not go with those of the group")]
    InconsistentGroupProtocol = 23,
    #[error("the group id is not valid")]
    InvalidGroupId = 24,
    #[error("the group has no such member")]
    UnknownMemberId = 25,
    #[error("the session timeout is outside the bounds that the coordinator sets")]
    InvalidSessionTimeout = 26,
    #[error("the group is rebalancing")]
    RebalanceInProgress = 27,
    #[error("what is to be committed is too large")]
    InvalidCommitOffsetSize = 28,
    #[error("the request makes no sense as it stands")]
    InvalidRequest = 42,
    #[error("the shard has as many groups as it may have")]
    PolicyViolation = 44,
    #[error("the group has members")]
    NonEmptyGroup = 68,
    #[error("there is no such group")]
    GroupIdNotFound = 69,
    #[error("join again with the member id that comes with this answer")]
    MemberIdRequired = 79,
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached = 81,
    #[error("another member uses this instance id")]
    FencedInstanceId = 82,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic = 86,
    #[error("the member epoch is not the member's present one")]
    FencedMemberEpoch = 110,
    #[error("the instance id is in use by a member that has not left")]
    UnreleasedInstanceId = 111,
    #[error("the coordinator does not know the assignor")]
    UnsupportedAssignor = 112,
    #[error("the member epoch is older than the member's present one")]
    StaleMemberEpoch = 113,
    #[error("the regular expression is not valid")]
    InvalidRegularExpression = 128,
}

impl GroupError {
    /// Kafka's number.
    pub fn code(self) -> i32 {
        self as i32
    }
}

/// The number in an answer: 0 for success.
pub(crate) fn code_of<T>(result: &Result<T, GroupError>) -> i32 {
    result.as_ref().map_or_else(|error| error.code(), |_| 0)
}
