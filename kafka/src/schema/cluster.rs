//! Requests about the cluster, its topics and their settings.

use super::{Field, INT32, STRING, Schema, array, boolean, int8, int16, int32, string, structs, structure, uuid};

pub static API_VERSIONS: Schema =
    Schema::new(3, &[string("client_software_name").since(3), string("client_software_version").since(3)]);

pub static METADATA: Schema = Schema::new(
    9,
    &[
        structs("topics", &[uuid("topic_id").since(10), string("name").nullable_since(10)]).nullable_since(1),
        boolean("allow_auto_topic_creation").since(4),
        boolean("include_cluster_authorized_operations").since(8).until(10),
        boolean("include_topic_authorized_operations").since(8),
    ],
);

pub static CREATE_TOPICS: Schema = Schema::new(
    5,
    &[
        structs(
            "topics",
            &[
                string("name"),
                int32("num_partitions"),
                int16("replication_factor"),
                structs("assignments", &[int32("partition_index"), array("broker_ids", INT32)]),
                structs("configs", &[string("name"), string("value").nullable()]),
            ],
        ),
        int32("timeout_ms"),
        boolean("validate_only"),
    ],
);

pub static DELETE_TOPICS: Schema = Schema::new(
    4,
    &[
        structs("topics", &[string("name").nullable(), uuid("topic_id")]).since(6),
        array("topic_names", STRING).until(5),
        int32("timeout_ms"),
    ],
);

pub static CREATE_PARTITIONS: Schema = Schema::new(
    2,
    &[
        structs(
            "topics",
            &[string("name"), int32("count"), structs("assignments", &[array("broker_ids", INT32)]).nullable()],
        ),
        int32("timeout_ms"),
        boolean("validate_only"),
    ],
);

pub static DESCRIBE_CONFIGS: Schema = Schema::new(
    4,
    &[
        structs(
            "resources",
            &[int8("resource_type"), string("resource_name"), array("configuration_keys", STRING).nullable()],
        ),
        boolean("include_synonyms"),
        boolean("include_documentation").since(3),
    ],
);

pub static INCREMENTAL_ALTER_CONFIGS: Schema = Schema::new(
    1,
    &[
        structs(
            "resources",
            &[
                int8("resource_type"),
                string("resource_name"),
                structs("configs", &[string("name"), int8("config_operation"), string("value").nullable()]),
            ],
        ),
        boolean("validate_only"),
    ],
);

pub static DESCRIBE_CLUSTER: Schema = Schema::new(
    0,
    &[
        boolean("include_cluster_authorized_operations"),
        int8("endpoint_type").since(1),
        boolean("include_fenced_brokers").since(2),
    ],
);

const CURSOR: &[Field] = &[string("topic_name"), int32("partition_index")];

pub static DESCRIBE_TOPIC_PARTITIONS: Schema = Schema::new(
    0,
    &[structs("topics", &[string("name")]), int32("response_partition_limit"), structure("cursor", CURSOR).nullable()],
);

pub static DESCRIBE_LOG_DIRS: Schema =
    Schema::new(2, &[structs("topics", &[string("topic"), array("partitions", INT32)]).nullable()]);
