//! A shard of the coordinator: one internal partition, the groups whose state it holds, and the rules between the two.
//!
//! The groups are a pure machine behind [`ShardState`]; everything that waits, reads or writes is in the folder
//! `shard/`. What the two promise each other:
//!
//! * the machine changes its state at once and says what must be stored with [`Effect::Append`]; the records of one
//!   append are kept or lost together, and those of all appends are kept in their order;
//! * an [`Effect::Reply`] leaves the coordinator only when every record that was appended before it is durable and
//!   visible, and when a linearizable read of the partition's head, begun after the reply was made, shows the shard's
//!   epoch. So no answer shows state that could still be lost, or that a newer owner has replaced. The machine need not
//!   tell stored state from state on its way;
//! * when an append fails, or its outcome is unknown, the machine is dropped with all its replies, and the shard is
//!   claimed and loaded anew: nobody guesses what was stored.

pub mod driver;
mod entry;
pub mod handle;
mod head_read;
mod held;
mod journal;
mod load;
mod replay;
mod serving;

use std::collections::BTreeSet;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::TopicId;
use bmq_proto::coordinator::{
    CommitOffsetsRequest, CommitOffsetsResponse, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupRequest, DeleteOffsetsRequest,
    DeleteOffsetsResponse, DescribeGroupRequest, DescribeGroupResponse, FetchOffsetsRequest, FetchOffsetsResponse,
    GroupErrorResponse, GroupHeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use prost::Message;

use crate::topics::Topics;

/// Names a caller who waits for an answer. Never given twice by one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyToken(pub u64);

/// What is asked of a shard.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    JoinGroup(JoinGroupRequest),
    SyncGroup(SyncGroupRequest),
    GroupHeartbeat(GroupHeartbeatRequest),
    LeaveGroup(LeaveGroupRequest),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest),
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest),
    CommitOffsets(CommitOffsetsRequest),
    FetchOffsets(FetchOffsetsRequest),
    DeleteOffsets(DeleteOffsetsRequest),
    ListGroups(ListGroupsRequest),
    DescribeGroup(DescribeGroupRequest),
    DeleteGroup(DeleteGroupRequest),
}

/// The answer to the [`Request`] of the same name.
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    GroupHeartbeat(GroupErrorResponse),
    LeaveGroup(LeaveGroupResponse),
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatResponse),
    ConsumerGroupDescribe(ConsumerGroupDescribeResponse),
    CommitOffsets(CommitOffsetsResponse),
    FetchOffsets(FetchOffsetsResponse),
    DeleteOffsets(DeleteOffsetsResponse),
    ListGroups(ListGroupsResponse),
    DescribeGroup(DescribeGroupResponse),
    DeleteGroup(GroupErrorResponse),
}

impl Response {
    /// Its bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        match self {
            Response::JoinGroup(response) => response.encoded_len(),
            Response::SyncGroup(response) => response.encoded_len(),
            Response::GroupHeartbeat(response) | Response::DeleteGroup(response) => response.encoded_len(),
            Response::LeaveGroup(response) => response.encoded_len(),
            Response::ConsumerGroupHeartbeat(response) => response.encoded_len(),
            Response::ConsumerGroupDescribe(response) => response.encoded_len(),
            Response::CommitOffsets(response) => response.encoded_len(),
            Response::FetchOffsets(response) => response.encoded_len(),
            Response::DeleteOffsets(response) => response.encoded_len(),
            Response::ListGroups(response) => response.encoded_len(),
            Response::DescribeGroup(response) => response.encoded_len(),
        }
    }
}

/// What the machine wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect<R> {
    /// Store these records, all of them or none.
    Append(Vec<R>),
    /// Answer a caller; each token is answered at most once. One that is never answered hears of the shard's end.
    Reply { token: ReplyToken, response: Response },
}

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For time-outs.
    pub monotonic: Monotonic,
    /// For what is stored.
    pub wall: WallMillis,
}

/// What a step may look at besides the machine's own state.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub now: Now,
    /// May lag behind: a topic that is not there may just have been created.
    pub topics: &'a Topics,
}

/// How much a shard holds, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    pub groups: usize,
    pub members: usize,
    pub offsets: usize,
}

/// The state of a shard: a pure machine without IO, clock or randomness of its own.
///
/// A new state is empty. Loading calls [`ShardState::apply`] for each stored record in order, then
/// [`ShardState::finish_loading`] once; from then on come the other calls.
pub trait ShardState: Send + 'static {
    /// What is stored.
    type Record: prost::Message + Default + Send + 'static;

    /// Takes a stored record. An error names what makes no sense in it: the shard then does not serve.
    fn apply(&mut self, record: Self::Record) -> Result<(), String>;

    /// Everything stored was applied: members get their time to show that they are alive.
    fn finish_loading(&mut self, context: Context<'_>) -> Vec<Effect<Self::Record>>;

    /// Answers a request, now or later.
    fn handle(&mut self, request: Request, token: ReplyToken, context: Context<'_>) -> Vec<Effect<Self::Record>>;

    /// Time has passed: called at or after [`ShardState::next_deadline`].
    fn tick(&mut self, context: Context<'_>) -> Vec<Effect<Self::Record>>;

    /// When something is due without a request.
    fn next_deadline(&self) -> Option<Monotonic>;

    /// `context.topics` changed. `gone` were deleted for certain since the last call: their offsets are to be dropped.
    fn topics_changed(&mut self, gone: &BTreeSet<TopicId>, context: Context<'_>) -> Vec<Effect<Self::Record>>;

    /// The topics that stored offsets belong to: those of them that are no more are named as gone after loading.
    fn topics_in_use(&self) -> BTreeSet<TopicId>;

    /// The whole state, as records that make it when they are applied in order to an empty one.
    fn snapshot(&self) -> Vec<Self::Record>;

    fn holdings(&self) -> Holdings;
}
