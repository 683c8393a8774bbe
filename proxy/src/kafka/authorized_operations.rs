//! What a client may do with a thing, as a set of bits. There is no authorization: everybody may do everything.

/// Nothing was asked.
pub const NOT_ASKED: i32 = i32::MIN;

/// Kafka's numbers of the operations: READ 3, WRITE 4, CREATE 5, DELETE 6, ALTER 7, DESCRIBE 8, CLUSTER_ACTION 9,
/// DESCRIBE_CONFIGS 10, ALTER_CONFIGS 11, IDEMPOTENT_WRITE 12.
const fn bits(operations: &[u8]) -> i32 {
    let (mut set, mut at) = (0, 0);
    while at < operations.len() {
        set |= 1 << operations[at];
        at += 1;
    }
    set
}

const CLUSTER: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
const GROUP: i32 = bits(&[3, 6, 8, 10, 11]);
const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);

/// What may be done with the cluster.
pub fn of_cluster(asked: bool) -> i32 {
    if asked { CLUSTER } else { NOT_ASKED }
}

/// What may be done with a group.
pub fn of_group(asked: bool) -> i32 {
    if asked { GROUP } else { NOT_ASKED }
}

/// What may be done with a topic.
pub fn of_topic(asked: bool) -> i32 {
    if asked { TOPIC } else { NOT_ASKED }
}
