//! What an observer of all answers can hold against the coordinator.

use std::collections::BTreeMap;

use crate::shard::{ReplyToken, Response};

#[derive(Debug, Default)]
pub(super) struct History {
    /// Of each generation that one coordinator has announced: leader and protocol. A generation that was not stored is
    /// announced anew by the next coordinator.
    announced: BTreeMap<(u128, i32), (String, String)>,
    /// The mark of the assignment of a generation, for ever: one that was shown is stored.
    assigned: BTreeMap<String, String>,
    commits: Vec<ReplyToken>,
    /// How many of the commits are known to be stored: what was read, or answered, is never undone.
    stored: usize,
}

/// Whose member id it is: the same for all ids of a client.
fn owner(member: &str) -> &str {
    member.split('-').next().unwrap_or_default()
}

impl History {
    /// The offset of a commit: its number, from 1.
    pub fn next_commit(&mut self, token: ReplyToken) -> i64 {
        self.commits.push(token);
        i64::try_from(self.commits.len()).unwrap()
    }

    /// `asker` is the name of the client that hears it, if any does.
    pub fn observe(&mut self, coordinator: u128, token: ReplyToken, response: &Response, asker: Option<String>) {
        match response {
            Response::JoinGroup(joined) if joined.error == 0 => {
                let told = (owner(&joined.leader).to_owned(), joined.protocol.clone());
                let first = self.announced.entry((coordinator, joined.generation)).or_insert_with(|| told.clone());
                assert_eq!(*first, told, "all members of a generation are told the same");
                assert!(joined.members.is_empty() || owner(&joined.leader) == owner(&joined.member));
            }
            Response::SyncGroup(synced) if synced.error == 0 => self.observe_assignment(&synced.assignment, asker),
            Response::CommitOffsets(committed) if committed.error == 0 => {
                let number = self.commits.iter().position(|commit| *commit == token).expect("it was asked for");
                self.stored = self.stored.max(number + 1);
            }
            Response::FetchOffsets(fetched) => {
                let offset = fetched.offsets.first().map_or(0, |committed| committed.offset);
                let seen = usize::try_from(offset).unwrap();
                assert!(seen >= self.stored, "commit {} is undone by {seen}", self.stored);
                self.stored = seen;
            }
            _ => {}
        }
    }

    fn observe_assignment(&mut self, assignment: &[u8], asker: Option<String>) {
        let text = std::str::from_utf8(assignment).unwrap();
        let [member, generation, mark] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("`{text}` is no assignment that a leader made");
        };
        assert!(asker.is_none_or(|name| name == owner(member)), "a member gets its own assignment");
        let first = self.assigned.entry(generation.to_owned()).or_insert_with(|| mark.to_owned());
        assert_eq!(first, mark, "generation {generation} has one assignment");
    }
}
