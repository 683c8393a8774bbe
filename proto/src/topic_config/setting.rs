//! The table of settings that a topic can have, and the names of those it cannot.

use std::fmt;

use super::MAX_BATCH_BYTES;

/// One setting that a topic can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub kind: SettingKind,
    /// What holds unless it is set. For `max.message.bytes`, `segment.bytes` and `segment.ms` a broker may have others.
    pub default: &'static str,
    /// What it means, for people.
    pub help: &'static str,
}

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A number that clients take for one of 32 bits; both bounds are allowed.
    Int { least: i64, greatest: i64 },
    /// A number of 64 bits; both bounds are allowed.
    Long { least: i64, greatest: i64 },
    /// From 0 to 1.
    Ratio,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Some of these words, with commas between them.
    List(&'static [&'static str]),
}

impl fmt::Display for SettingKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingKind::Int { least, greatest } | SettingKind::Long { least, greatest } if least == greatest => {
                write!(out, "{least}")
            }
            SettingKind::Long { least, greatest: i64::MAX } => write!(out, "a number from {least} on"),
            SettingKind::Int { least, greatest } | SettingKind::Long { least, greatest } => {
                write!(out, "a number from {least} to {greatest}")
            }
            SettingKind::Ratio => out.write_str("a number from 0 to 1"),
            SettingKind::Choice(choices) => write!(out, "one of {}", choices.join(", ")),
            SettingKind::List(choices) => write!(out, "some of {}", choices.join(", ")),
        }
    }
}

const fn from(least: i64) -> SettingKind {
    SettingKind::Long { least, greatest: i64::MAX }
}

/// Every setting, by name.
pub const SETTINGS: [Setting; 14] = [
    Setting {
        name: "acks.1",
        kind: SettingKind::Choice(&["stored", "memory"]),
        default: "stored",
        help: "what a Kafka producer with acks=1 waits for: `stored`, as acks=all does, or `memory`, an answer as soon \
               as the owner has the records in memory, which may be lost if it dies",
    },
    Setting {
        name: "cleanup.policy",
        kind: SettingKind::List(&["compact", "delete"]),
        default: "delete",
        help: "what happens to old records: `delete` drops segments by retention.ms and retention.bytes, `compact` \
               drops records of which a later one has the key",
    },
    Setting {
        name: "compression.type",
        kind: SettingKind::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        default: "producer",
        help: "how batches are compressed in storage: `producer` keeps them as they were sent, anything else has the \
               partition's owner compress those again that are not so already",
    },
    Setting {
        name: "delete.retention.ms",
        kind: from(0),
        default: "86400000",
        help: "how long a record without a value stays after compaction first met it as the last of its key",
    },
    Setting {
        name: "max.compaction.lag.ms",
        kind: from(1),
        default: "9223372036854775807",
        help: "records older than this are compacted whatever the dirty ratio is",
    },
    Setting {
        name: "max.message.bytes",
        kind: SettingKind::Int { least: 1024, greatest: MAX_BATCH_BYTES as i64 },
        default: "1048576",
        help: "the largest record batch taken, in bytes (at most 4 MiB on local disk, 16 MiB on HDFS)",
    },
    Setting {
        name: "message.timestamp.type",
        kind: SettingKind::Choice(&["CreateTime", "LogAppendTime"]),
        default: "CreateTime",
        help: "what the timestamps of records mean: the time that the producer gave, or the time of the append",
    },
    Setting {
        name: "min.cleanable.dirty.ratio",
        kind: SettingKind::Ratio,
        default: "0.5",
        help: "compaction waits until this share of the closed segments' bytes was not compacted yet",
    },
    Setting {
        name: "min.compaction.lag.ms",
        kind: from(0),
        default: "0",
        help: "segments with records younger than this are not compacted yet",
    },
    Setting {
        name: "min.insync.replicas",
        kind: SettingKind::Int { least: 1, greatest: 1 },
        default: "1",
        help: "always 1: storage keeps the replicas, and a stored ack waits for every one that is being written",
    },
    Setting {
        name: "retention.bytes",
        kind: from(-1),
        default: "-1",
        help: "the oldest closed segments of a partition are dropped while the rest has at least so many bytes; -1 for \
               no limit",
    },
    Setting {
        name: "retention.ms",
        kind: from(-1),
        default: "604800000",
        help: "closed segments are dropped when their newest record is older than this; -1 for ever",
    },
    Setting {
        name: "segment.bytes",
        kind: SettingKind::Int { least: 64 << 10, greatest: 1 << 30 },
        default: "268435456",
        help: "a segment is rolled when its file reaches this many bytes (on HDFS at most half of the block size)",
    },
    Setting {
        name: "segment.ms",
        kind: SettingKind::Long { least: 1_000, greatest: 30 * 24 * 3600 * 1000 },
        default: "3600000",
        help: "a segment is rolled when it has been open for this many milliseconds, or for retention.ms if that is \
               less",
    },
];

/// Settings of Kafka's that are refused, and why.
pub const UNSUPPORTED: [(&str, &str); 20] = [
    ("compression.gzip.level", "the codecs' default levels are used"),
    ("compression.lz4.level", "the codecs' default levels are used"),
    ("compression.zstd.level", "the codecs' default levels are used"),
    ("file.delete.delay.ms", "files are deleted when no read can still be using them"),
    ("flush.messages", "every stored ack is flushed, and others are as soon as the store can"),
    ("flush.ms", "every stored ack is flushed, and others are as soon as the store can"),
    ("follower.replication.throttled.replicas", "storage keeps the replicas"),
    ("index.interval.bytes", "indexes are built as the store reads them best"),
    ("leader.replication.throttled.replicas", "storage keeps the replicas"),
    ("local.retention.bytes", "there is one tier of storage"),
    ("local.retention.ms", "there is one tier of storage"),
    ("message.downconversion.enable", "older formats than v2 are not served"),
    ("message.format.version", "records are kept in format v2"),
    ("message.timestamp.after.max.ms", "timestamps are taken as producers give them"),
    ("message.timestamp.before.max.ms", "timestamps are taken as producers give them"),
    ("message.timestamp.difference.max.ms", "timestamps are taken as producers give them"),
    ("preallocate", "files grow as they are written"),
    ("segment.index.bytes", "an index has the size that its segment needs"),
    ("segment.jitter.ms", "partitions roll by their own clocks"),
    ("unclean.leader.election.enable", "no acknowledged record is given up for being available"),
];
