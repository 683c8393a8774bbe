//! Requests about groups and their offsets.

use super::{Field, INT32, NEVER, STRING, Schema, array, boolean, bytes, int8, int32, int64, string, structs, uuid};

pub static FIND_COORDINATOR: Schema =
    Schema::new(3, &[string("key").until(3), int8("key_type").since(1), array("coordinator_keys", STRING).since(4)]);

pub static JOIN_GROUP: Schema = Schema::new(
    6,
    &[
        string("group_id"),
        int32("session_timeout_ms"),
        int32("rebalance_timeout_ms").since(1),
        string("member_id"),
        string("group_instance_id").nullable().since(5),
        string("protocol_type"),
        structs("protocols", &[string("name"), bytes("metadata")]),
        string("reason").nullable().since(8),
    ],
);

pub static SYNC_GROUP: Schema = Schema::new(
    4,
    &[
        string("group_id"),
        int32("generation_id"),
        string("member_id"),
        string("group_instance_id").nullable().since(3),
        string("protocol_type").nullable().since(5),
        string("protocol_name").nullable().since(5),
        structs("assignments", &[string("member_id"), bytes("assignment")]),
    ],
);

pub static HEARTBEAT: Schema = Schema::new(
    4,
    &[string("group_id"), int32("generation_id"), string("member_id"), string("group_instance_id").nullable().since(3)],
);

pub static LEAVE_GROUP: Schema = Schema::new(
    4,
    &[
        string("group_id"),
        string("member_id").until(2),
        structs(
            "members",
            &[string("member_id"), string("group_instance_id").nullable(), string("reason").nullable().since(5)],
        )
        .since(3),
    ],
);

pub static OFFSET_COMMIT: Schema = Schema::new(
    8,
    &[
        string("group_id"),
        int32("generation_id_or_member_epoch"),
        string("member_id"),
        string("group_instance_id").nullable().since(7),
        int64("retention_time_ms").until(4),
        structs(
            "topics",
            &[
                string("name"),
                structs(
                    "partitions",
                    &[
                        int32("partition_index"),
                        int64("committed_offset"),
                        int32("committed_leader_epoch").since(6),
                        string("committed_metadata").nullable(),
                    ],
                ),
            ],
        ),
    ],
);

const TOPIC_PARTITIONS: &[Field] = &[string("name"), array("partition_indexes", INT32)];

pub static OFFSET_FETCH: Schema = Schema::new(
    6,
    &[
        string("group_id").until(7),
        structs("topics", TOPIC_PARTITIONS).until(7).nullable_since(2),
        structs(
            "groups",
            &[
                string("group_id"),
                string("member_id").nullable().since(9),
                int32("member_epoch").since(9),
                structs("topics", TOPIC_PARTITIONS).nullable(),
            ],
        )
        .since(8),
        boolean("require_stable").since(7),
    ],
);

pub static OFFSET_DELETE: Schema = Schema::new(
    NEVER,
    &[string("group_id"), structs("topics", &[string("name"), structs("partitions", &[int32("partition_index")])])],
);

pub static LIST_GROUPS: Schema =
    Schema::new(3, &[array("states_filter", STRING).since(4), array("types_filter", STRING).since(5)]);

pub static DESCRIBE_GROUPS: Schema =
    Schema::new(5, &[array("groups", STRING), boolean("include_authorized_operations").since(3)]);

pub static DELETE_GROUPS: Schema = Schema::new(2, &[array("groups_names", STRING)]);

pub static CONSUMER_GROUP_HEARTBEAT: Schema = Schema::new(
    0,
    &[
        string("group_id"),
        string("member_id"),
        int32("member_epoch"),
        string("instance_id").nullable(),
        string("rack_id").nullable(),
        int32("rebalance_timeout_ms"),
        array("subscribed_topic_names", STRING).nullable(),
        string("subscribed_topic_regex").nullable().since(1),
        string("server_assignor").nullable(),
        structs("topic_partitions", &[uuid("topic_id"), array("partitions", INT32)]).nullable(),
    ],
);

pub static CONSUMER_GROUP_DESCRIBE: Schema =
    Schema::new(0, &[array("group_ids", STRING), boolean("include_authorized_operations")]);
