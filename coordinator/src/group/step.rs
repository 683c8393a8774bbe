//! One step of the groups' machine: what it may look at, and what it wants done.

use std::sync::Arc;

use bmq_common::clock::{Monotonic, WallMillis};
use bmq_proto::internal::{GroupRecord, group_record};
use uuid::Uuid;

use super::config::GroupsConfig;
use crate::shard::{Context, Effect, ReplyToken, Response};
use crate::topics::Topics;

/// The version of our records.
pub(crate) const SCHEMA: u32 = 1;

/// Passed through every function that handles one event.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub config: Arc<GroupsConfig>,
    pub topics: &'a Topics,
    pub now: Monotonic,
    pub wall: WallMillis,
    /// Used for no other step: what a new member's id is made of.
    pub fresh: Uuid,
    pub effects: Vec<Effect<GroupRecord>>,
}

impl<'a> Step<'a> {
    pub fn new(config: &Arc<GroupsConfig>, context: Context<'a>, fresh: Uuid) -> Self {
        Self {
            config: Arc::clone(config),
            topics: context.topics,
            now: context.now.monotonic,
            wall: context.now.wall,
            fresh,
            effects: Vec::new(),
        }
    }

    /// Stores one record.
    pub fn append(&mut self, group: &str, kind: group_record::Kind) {
        self.append_all(vec![record(group, kind)]);
    }

    /// Stores records together, all or none.
    pub fn append_all(&mut self, records: Vec<GroupRecord>) {
        if !records.is_empty() {
            self.effects.push(Effect::Append(records));
        }
    }

    /// Answers a caller.
    pub fn reply(&mut self, token: ReplyToken, response: Response) {
        self.effects.push(Effect::Reply { token, response });
    }
}

/// A record of `group` in the present version.
pub(crate) fn record(group: &str, kind: group_record::Kind) -> GroupRecord {
    GroupRecord { schema: SCHEMA, group: group.to_owned(), kind: Some(kind) }
}
