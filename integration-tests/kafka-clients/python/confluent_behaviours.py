"""What librdkafka, by confluent-kafka, does to a cluster: producing, consuming, offsets, topics."""

import random
import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec

import confluent_groups
from confluent import CALL_SECONDS, admin, answers, await_partitions, consumer, new_topic, producer
from confluent import read_back, refused, send, take, values
from suite import SOON_SECONDS, Suite, equal, eventually, numbered, that, unique

suite = Suite("confluent")
confluent_groups.add(suite)

# Long past: a topic for such records must keep them.
T = 1_700_000_000_000
KEEP = {"retention.ms": "-1"}


def round_trip(bootstrap, codec):
    topic = new_topic(bootstrap, "codec", config=KEEP)
    headers = [("twice", b"first"), ("other", None), ("twice", b"second")]
    records = [(f"key-{n}".encode() if n % 3 else None, f"value-{n}".encode() if n % 5 else None) for n in range(200)]
    client = producer(bootstrap, compression_type=codec, linger_ms=50)
    for number, (key, value) in enumerate(records):
        client.produce(topic, value, key, 0, timestamp=T + 1000 * number, headers=headers)
    equal(0, client.flush(SOON_SECONDS), "records without an answer")
    for number, message in enumerate(read_back(bootstrap, topic, 200)):
        equal(number, message.offset(), "offset")
        equal(records[number], (message.key(), message.value()), "key and value")
        equal(T + 1000 * number, message.timestamp()[1], "timestamp")
        equal(headers, message.headers(), "headers")


for name in ("none", "gzip", "snappy", "lz4", "zstd"):
    suite.behaviour(f"codec.{name}", name)(round_trip)


def acks(bootstrap, level):
    topic = new_topic(bootstrap, "acks")
    send(bootstrap, topic, numbered("v", 500), acks=level)
    equal(numbered("v", 500), values(read_back(bootstrap, topic, 500)), "values")


for level in ("0", "1", "all"):
    suite.behaviour(f"produce.acks_{level}", level)(acks)


@suite.behaviour("produce.idempotent")
def idempotent(bootstrap):
    topic = new_topic(bootstrap, "idempotent")
    settings = {"enable_idempotence": True, "batch_num_messages": 10, "linger_ms": 0}
    equal(list(range(3000)), send(bootstrap, topic, numbered("v", 3000), **settings), "offsets")
    equal(numbered("v", 3000), values(read_back(bootstrap, topic, 3000)), "values")


@suite.behaviour("produce.large_record")
def large_record(bootstrap):
    topic = new_topic(bootstrap, "large")
    large = random.Random(1).randbytes(950_000)
    send(bootstrap, topic, ["before", large, "after"])
    found = read_back(bootstrap, topic, 3, fetch_message_max_bytes=1000)
    that(found[1].value() == large, "the large record came back changed")


@suite.behaviour("produce.too_large")
def too_large(bootstrap):
    topic = new_topic(bootstrap, "narrow", config={"max.message.bytes": "2000"})
    refused(lambda: send(bootstrap, topic, ["x" * 5000]), KafkaError.MSG_SIZE_TOO_LARGE)
    equal([0], send(bootstrap, topic, ["x" * 1000]), "offset")


@suite.behaviour("produce.many_partitions")
def many_partitions(bootstrap):
    topic = new_topic(bootstrap, "many", 12)
    client = producer(bootstrap)
    for number in range(3000):
        client.produce(topic, str(number), f"key-{number % 60}")
    equal(0, client.flush(SOON_SECONDS), "records without an answer")
    reader = consumer(bootstrap)
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(12)])
    last = {}
    for message in take(reader, 3000):
        that(last.get(message.key(), -1) < int(message.value()), "records of a key came out of order")
        last[message.key()] = int(message.value())
    reader.close()


@suite.behaviour("produce.auto_create")
def auto_create(bootstrap):
    topic = unique("auto-created")
    equal([0], send(bootstrap, topic, ["hello"]), "offsets")
    equal(3, len(admin(bootstrap).list_topics(topic, CALL_SECONDS).topics[topic].partitions), "partitions")


@suite.behaviour("produce.log_append_time")
def log_append_time(bootstrap):
    topic = new_topic(bootstrap, "append-time", config={"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000) - 1000
    client = producer(bootstrap, compression_type="lz4")
    client.produce(topic, "x", timestamp=12345)
    equal(0, client.flush(SOON_SECONDS), "records without an answer")
    kind, stamp = read_back(bootstrap, topic, 1)[0].timestamp()
    equal(2, kind, "timestamp type")
    that(stamp >= before, f"the record's timestamp is {stamp}")


@suite.behaviour("produce.transactional")
def transactional(bootstrap):
    topic = new_topic(bootstrap, "transaction")
    client = producer(bootstrap, transactional_id=unique("id"))
    begun = time.monotonic()
    try:
        client.init_transactions(CALL_SECONDS)
    except KafkaException as failure:
        that(not failure.args[0].retriable(), f"refused as if a retry would help: {failure}")
        that(time.monotonic() - begun < 10, f"refused late: {failure}")
        return
    client.begin_transaction()
    client.produce(topic, "committed")
    client.commit_transaction(CALL_SECONDS)
    equal(["committed"], values(read_back(bootstrap, topic, 1, isolation_level="read_committed")), "values")


@suite.behaviour("consume.seek")
def seek(bootstrap):
    topic = new_topic(bootstrap, "seek")
    send(bootstrap, topic, numbered("v", 100), batch_num_messages=7)
    client = consumer(bootstrap)
    client.assign([TopicPartition(topic, 0, 0)])
    equal(["v0"], values(take(client, 1)), "first record")
    for start in (50, 0, 99, 37):
        client.seek(TopicPartition(topic, 0, start))
        equal(numbered("v", 100, start), values(take(client, 100 - start)), f"values from {start}")
    client.seek(TopicPartition(topic, 0, OFFSET_BEGINNING))
    equal(["v0"], values(take(client, 1)), "first record")
    client.close()


@suite.behaviour("consume.reset_earliest", "earliest", 0)
@suite.behaviour("consume.reset_latest", "latest", 10)
def reset(bootstrap, where, expected):
    topic = new_topic(bootstrap, "reset")
    send(bootstrap, topic, numbered("v", 10))
    with_end = {"enable_partition_eof": True, "auto_offset_reset": where}
    client = consumer(bootstrap, **with_end)
    client.assign([TopicPartition(topic, 0)])
    found = []
    while not found or not found[-1].error():
        message = client.poll(SOON_SECONDS)
        that(message is not None, "neither a record nor the end of the partition")
        found.append(message)
    equal(KafkaError._PARTITION_EOF, found[-1].error().code(), "error")
    equal(numbered("v", 10, expected), values(found[:-1]), "values")
    client.close()


@suite.behaviour("consume.out_of_range")
def out_of_range(bootstrap):
    topic = new_topic(bootstrap, "range")
    send(bootstrap, topic, numbered("v", 10))
    client = consumer(bootstrap, auto_offset_reset="error")
    client.assign([TopicPartition(topic, 0, 1000)])
    message = client.poll(SOON_SECONDS)
    that(message is not None and message.error() is not None, "no error")
    equal(KafkaError._AUTO_OFFSET_RESET, message.error().code(), "error")
    client.close()
    client = consumer(bootstrap)
    client.assign([TopicPartition(topic, 0, 1000)])
    equal(numbered("v", 10), values(take(client, 10)), "values after a reset")
    client.close()


@suite.behaviour("consume.pause_resume")
def pause_resume(bootstrap):
    topic = new_topic(bootstrap, "pause", 2)
    for partition in (0, 1):
        send(bootstrap, topic, numbered("ab"[partition], 10), partition)
    client = consumer(bootstrap)
    client.assign([TopicPartition(topic, partition, 0) for partition in (0, 1)])
    client.pause([TopicPartition(topic, 0)])
    equal(numbered("b", 10), values(take(client, 10)), "values while paused")
    that(client.poll(0.5) is None, "a record of a paused partition")
    client.resume([TopicPartition(topic, 0)])
    equal(numbered("a", 10), values(take(client, 10)), "values after that")
    client.close()


@suite.behaviour("consume.small_fetches")
def small_fetches(bootstrap):
    topic = new_topic(bootstrap, "small")
    send(bootstrap, topic, numbered("v", 300), batch_num_messages=5)
    found = read_back(bootstrap, topic, 300, fetch_max_bytes=1500, fetch_message_max_bytes=600, message_max_bytes=1400)
    equal(numbered("v", 300), values(found), "values")


@suite.behaviour("consume.long_poll")
def long_poll(bootstrap):
    topic = new_topic(bootstrap, "long-poll")
    client = consumer(bootstrap, fetch_wait_max_ms=10000, socket_timeout_ms=30000)
    client.assign([TopicPartition(topic, 0, 0)])
    that(client.poll(1) is None, "a record in an empty topic")
    begun = time.monotonic()
    send(bootstrap, topic, ["wake up"])
    equal(["wake up"], values(take(client, 1)), "values")
    that(time.monotonic() - begun < 5, f"the record came after {time.monotonic() - begun:.1f} s")
    client.close()


@suite.behaviour("consume.read_committed")
def read_committed(bootstrap):
    topic = new_topic(bootstrap, "committed")
    send(bootstrap, topic, numbered("v", 50))
    found = read_back(bootstrap, topic, 50, isolation_level="read_committed")
    equal(numbered("v", 50), values(found), "values")


@suite.behaviour("consume.metadata")
def metadata(bootstrap):
    topic = new_topic(bootstrap, "metadata", 5)
    listed = admin(bootstrap).list_topics(timeout=CALL_SECONDS)
    equal(5, len(listed.topics[topic].partitions), "partitions")
    that(listed.brokers and listed.cluster_id, "no brokers or no cluster id")
    that(all(one.leader in listed.brokers for one in listed.topics[topic].partitions.values()), "unknown leaders")


@suite.behaviour("offsets.bounds")
def bounds(bootstrap):
    topic = new_topic(bootstrap, "bounds", 2)
    send(bootstrap, topic, numbered("v", 10))
    client = consumer(bootstrap)
    equal((0, 10), client.get_watermark_offsets(TopicPartition(topic, 0), CALL_SECONDS), "bounds")
    equal((0, 0), client.get_watermark_offsets(TopicPartition(topic, 1), CALL_SECONDS), "bounds of nothing")
    client.close()


def timed(bootstrap):
    topic = new_topic(bootstrap, "timed", config=KEEP)
    client = producer(bootstrap)
    for after in (0, 2000, 1000, 3000, 3000, 500):
        client.produce(topic, f"+{after}", partition=0, timestamp=T + after)
        equal(0, client.flush(SOON_SECONDS), "records without an answer")
    return topic


@suite.behaviour("offsets.for_times")
def for_times(bootstrap):
    topic = timed(bootstrap)
    client = consumer(bootstrap)
    for stamp, expected in ((0, 0), (T, 0), (T + 1, 1), (T + 2001, 3), (T + 3000, 3), (T + 3001, OFFSET_END)):
        found = client.offsets_for_times([TopicPartition(topic, 0, stamp)], CALL_SECONDS)
        equal(expected, found[0].offset, f"offset at {stamp - T}")
    client.close()


@suite.behaviour("offsets.seek_by_time")
def seek_by_time(bootstrap):
    topic = timed(bootstrap)
    client = consumer(bootstrap)
    client.assign(client.offsets_for_times([TopicPartition(topic, 0, T + 2500)], CALL_SECONDS))
    equal(["+3000", "+3000", "+500"], values(take(client, 3)), "values")
    client.close()


@suite.behaviour("admin.list_offsets")
def list_offsets(bootstrap):
    topic = timed(bootstrap)
    expected = ((OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 6), (OffsetSpec.max_timestamp(), 3))
    for spec, offset in (*expected, (OffsetSpec.for_timestamp(T + 1500), 1)):
        asked = admin(bootstrap).list_offsets({TopicPartition(topic, 0): spec})
        equal(offset, answers(asked)[0].offset, f"offset of {spec}")


@suite.behaviour("admin.delete_records")
def delete_records(bootstrap):
    topic = new_topic(bootstrap, "delete-records")
    send(bootstrap, topic, numbered("v", 100))
    deleted = answers(admin(bootstrap).delete_records([TopicPartition(topic, 0, 37)]))
    equal(37, deleted[0].low_watermark, "low watermark")
    client = consumer(bootstrap)
    equal((37, 100), client.get_watermark_offsets(TopicPartition(topic, 0), CALL_SECONDS), "bounds")
    client.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    equal(numbered("v", 100, 37), values(take(client, 63)), "values")
    client.close()
    refused(lambda: answers(admin(bootstrap).delete_records([TopicPartition(topic, 0, 101)])),
            KafkaError.OFFSET_OUT_OF_RANGE)


@suite.behaviour("admin.create_topic")
def create_topic(bootstrap):
    name = new_topic(bootstrap, "create", 4, {"retention.ms": "3600000"})
    described = answers(admin(bootstrap).describe_topics(TopicCollection([name])))[0]
    equal((name, 4), (described.name, len(described.partitions)), "topic")
    that(all(one.leader and one.replicas and one.isr for one in described.partitions), "a partition without leader")


@suite.behaviour("admin.create_topic_refused")
def create_topic_refused(bootstrap):
    name = new_topic(bootstrap, "refused")
    cases = [
        (NewTopic(name, 1), KafkaError.TOPIC_ALREADY_EXISTS),
        (NewTopic("not/a topic", 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic(unique("refused"), 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        (NewTopic(unique("refused"), 1, config={"no.such.config": "1"}), KafkaError.INVALID_CONFIG),
    ]
    for topic, code in cases:
        refused(lambda asked=topic: answers(admin(bootstrap).create_topics([asked])), code)


@suite.behaviour("admin.unknown_topic")
def unknown_topic(bootstrap):
    absent = unique("absent")
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PART
    client = admin(bootstrap)
    refused(lambda: answers(client.delete_topics([absent])), unknown)
    refused(lambda: answers(client.describe_topics(TopicCollection([absent]))), unknown)
    reader = consumer(bootstrap)
    reader.subscribe([absent])
    message = reader.poll(SOON_SECONDS)
    that(message is not None and message.error() is not None, "no error")
    equal(unknown, message.error().code(), "error of a consumer")
    reader.close()


@suite.behaviour("admin.delete_topic")
def delete_topic(bootstrap):
    name = new_topic(bootstrap, "delete")
    client = admin(bootstrap)
    answers(client.delete_topics([name]))
    eventually(lambda: name not in client.list_topics(timeout=CALL_SECONDS).topics, "the topic is still listed")


@suite.behaviour("admin.create_partitions")
def create_partitions(bootstrap):
    name = new_topic(bootstrap, "grow", 2)
    client = admin(bootstrap)
    refused(lambda: answers(client.create_partitions([NewPartitions(name, 1)])), KafkaError.INVALID_PARTITIONS)
    answers(client.create_partitions([NewPartitions(name, 5)]))
    await_partitions(client, name, 5)
    equal([0], send(bootstrap, name, ["v"], 4), "offset in a new partition")


def described(bootstrap, name):
    return answers(admin(bootstrap).describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]))[0]


@suite.behaviour("admin.describe_configs")
def describe_configs(bootstrap):
    name = new_topic(bootstrap, "configs", config={"retention.ms": "7200000"})
    found = described(bootstrap, name)
    equal("7200000", found["retention.ms"].value, "retention.ms")
    that(not found["retention.ms"].is_default and found["segment.bytes"].is_default, "what is a default")
    equal("7200000", found["retention.ms"].synonyms["retention.ms"].value, "synonym")


@suite.behaviour("admin.alter_configs")
def alter_configs(bootstrap):
    name = new_topic(bootstrap, "alter")
    client = admin(bootstrap)

    def change(key, value, operation):
        entry = ConfigEntry(key, value, incremental_operation=operation)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
        answers(client.incremental_alter_configs([resource]))

    change("retention.ms", "86400000", AlterConfigOpType.SET)
    eventually(lambda: described(bootstrap, name)["retention.ms"].value == "86400000", "retention.ms is not set")
    change("retention.ms", None, AlterConfigOpType.DELETE)
    eventually(lambda: described(bootstrap, name)["retention.ms"].value == "604800000", "retention.ms is still set")
    refused(lambda: change("retention.ms", "soon", AlterConfigOpType.SET), KafkaError.INVALID_CONFIG)


@suite.behaviour("admin.describe_cluster")
def describe_cluster(bootstrap):
    found = admin(bootstrap).describe_cluster().result(CALL_SECONDS)
    that(found.cluster_id and found.nodes and found.controller, f"{found.cluster_id} {found.nodes} {found.controller}")


if __name__ == "__main__":
    suite.main()
