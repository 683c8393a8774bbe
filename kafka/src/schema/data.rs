//! Requests about records: writing, reading, positions, producers.

use super::{Field, INT32, Schema, array, bytes, int8, int16, int32, int64, string, structs, structure, uuid};

pub static PRODUCE: Schema = Schema::new(
    9,
    &[
        string("transactional_id").nullable(),
        int16("acks"),
        int32("timeout_ms"),
        structs(
            "topic_data",
            &[
                string("name").until(12),
                uuid("topic_id").since(13),
                structs("partition_data", &[int32("index"), bytes("records").nullable()]),
            ],
        ),
    ],
);

pub static FETCH: Schema = Schema::new(
    12,
    &[
        string("cluster_id").nullable().tagged(0).since(12),
        int32("replica_id").until(14),
        structure("replica_state", &[int32("replica_id"), int64("replica_epoch")]).tagged(1).since(15),
        int32("max_wait_ms"),
        int32("min_bytes"),
        int32("max_bytes"),
        int8("isolation_level"),
        int32("session_id").since(7),
        int32("session_epoch").since(7),
        structs("topics", FETCH_TOPIC),
        structs(
            "forgotten_topics_data",
            &[string("topic").until(12), uuid("topic_id").since(13), array("partitions", INT32)],
        )
        .since(7),
        string("rack_id").since(11),
    ],
);

const FETCH_TOPIC: &[Field] = &[
    string("topic").until(12),
    uuid("topic_id").since(13),
    structs(
        "partitions",
        &[
            int32("partition"),
            int32("current_leader_epoch").since(9),
            int64("fetch_offset"),
            int32("last_fetched_epoch").since(12),
            int64("log_start_offset").since(5),
            int32("partition_max_bytes"),
            uuid("replica_directory_id").tagged(0).since(17),
            int64("high_watermark").tagged(1).since(18),
        ],
    ),
];

pub static LIST_OFFSETS: Schema = Schema::new(
    6,
    &[
        int32("replica_id"),
        int8("isolation_level").since(2),
        structs(
            "topics",
            &[
                string("name"),
                structs(
                    "partitions",
                    &[int32("partition_index"), int32("current_leader_epoch").since(4), int64("timestamp")],
                ),
            ],
        ),
        int32("timeout_ms").since(10),
    ],
);

pub static OFFSET_FOR_LEADER_EPOCH: Schema = Schema::new(
    4,
    &[
        int32("replica_id").since(3),
        structs(
            "topics",
            &[
                string("topic"),
                structs(
                    "partitions",
                    &[int32("partition"), int32("current_leader_epoch").since(2), int32("leader_epoch")],
                ),
            ],
        ),
    ],
);

pub static INIT_PRODUCER_ID: Schema = Schema::new(
    2,
    &[
        string("transactional_id").nullable(),
        int32("transaction_timeout_ms"),
        int64("producer_id").since(3),
        int16("producer_epoch").since(3),
    ],
);

pub static DELETE_RECORDS: Schema = Schema::new(
    2,
    &[
        structs("topics", &[string("name"), structs("partitions", &[int32("partition_index"), int64("offset")])]),
        int32("timeout_ms"),
    ],
);

pub static DESCRIBE_PRODUCERS: Schema =
    Schema::new(0, &[structs("topics", &[string("name"), array("partition_indexes", INT32)])]);
