"""aiokafka, which speaks the protocol by code of its own."""

import asyncio
import time
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError, TopicAlreadyExistsError
from aiokafka.structs import OffsetAndMetadata

from suite import SOON_SECONDS, Failed, Suite, equal, eventually_async, numbered, that, unique

suite = Suite("aiokafka")

# Long past: a topic for such records must keep them.
T = 1_700_000_000_000
KEEP = {"retention.ms": "-1"}


@asynccontextmanager
async def running(client):
    await client.start()
    try:
        yield client
    finally:
        if isinstance(client, AIOKafkaAdminClient):
            await client.close()
        else:
            await client.stop()


def admin(bootstrap):
    return running(AIOKafkaAdminClient(bootstrap_servers=bootstrap))


def producer(bootstrap, **settings):
    return running(AIOKafkaProducer(bootstrap_servers=bootstrap, **settings))


def new_consumer(bootstrap, *topics, **settings):
    common = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "metadata_max_age_ms": 1000}
    return AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, **{**common, **settings})


def consumer(bootstrap, *topics, **settings):
    return running(new_consumer(bootstrap, *topics, **settings))


async def new_topic(bootstrap, hint, partitions=1, configs=None):
    """Creates a topic, and returns its name once every partition has a leader."""
    name = unique(hint)
    async with admin(bootstrap) as client:
        answer = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=configs or {})])
        errors = [one for one in answer.topic_errors if one[1] != 0]
        equal([], errors, "errors")
        await await_partitions(client, name, partitions)
    return name


async def await_partitions(client, name, partitions):
    deadline = time.monotonic() + SOON_SECONDS
    while time.monotonic() < deadline:
        found = (await client.describe_topics([name]))[0]["partitions"]
        if len(found) == partitions and all(one["leader"] >= 0 for one in found):
            return
        await asyncio.sleep(0.05)
    raise Failed(f"not within {SOON_SECONDS} s: {partitions} partitions of {name}")


async def send(bootstrap, topic, values, partition=0, **settings):
    async with producer(bootstrap, **settings) as client:
        sent = [await client.send(topic, value.encode(), partition=partition) for value in values]
        return [await future for future in sent]


async def take(client, count):
    taken = []
    while len(taken) < count:
        taken.append(await asyncio.wait_for(client.getone(), SOON_SECONDS))
    return taken


async def read_back(bootstrap, topic, count, partition=0, **settings):
    async with consumer(bootstrap, **settings) as client:
        client.assign([TopicPartition(topic, partition)])
        await client.seek_to_beginning()
        return await take(client, count)


def values(records):
    return [record.value.decode() for record in records]


async def round_trip(bootstrap, codec):
    topic = await new_topic(bootstrap, "codec", configs=KEEP)
    headers = [("twice", b"first"), ("other", b""), ("twice", b"second")]
    # This client takes no record that has neither a key nor a value.
    records = [(f"key-{n}".encode() if n % 3 else None, f"value-{n}".encode() if n % 4 else None) for n in range(200)]
    records = [record for record in records if record != (None, None)]
    async with producer(bootstrap, compression_type=codec, linger_ms=50) as client:
        for number, (key, value) in enumerate(records):
            await client.send(topic, value, key, 0, T + 1000 * number, headers)
    for number, record in enumerate(await read_back(bootstrap, topic, len(records))):
        equal((number, T + 1000 * number), (record.offset, record.timestamp), "offset and timestamp")
        equal(records[number], (record.key, record.value), "key and value")
        equal(headers, list(record.headers), "headers")


for name in ("none", "gzip", "snappy", "lz4", "zstd"):
    suite.behaviour(f"codec.{name}", None if name == "none" else name)(round_trip)


async def acks(bootstrap, level):
    topic = await new_topic(bootstrap, "acks")
    await send(bootstrap, topic, numbered("v", 500), acks=level)
    equal(numbered("v", 500), values(await read_back(bootstrap, topic, 500)), "values")


for level in (0, 1, "all"):
    suite.behaviour(f"produce.acks_{level}", level)(acks)


@suite.behaviour("produce.idempotent")
async def idempotent(bootstrap):
    topic = await new_topic(bootstrap, "idempotent")
    sent = await send(bootstrap, topic, numbered("v", 1000), enable_idempotence=True, max_batch_size=200)
    equal(list(range(1000)), [one.offset for one in sent], "offsets")
    equal(numbered("v", 1000), values(await read_back(bootstrap, topic, 1000)), "values")


@suite.behaviour("produce.too_large")
async def too_large(bootstrap):
    topic = await new_topic(bootstrap, "narrow", configs={"max.message.bytes": "2000"})
    try:
        await send(bootstrap, topic, ["x" * 5000])
    except MessageSizeTooLargeError:
        return
    raise Failed("a record larger than max.message.bytes is accepted")


@suite.behaviour("produce.auto_create")
async def auto_create(bootstrap):
    topic = unique("auto-created")
    async with producer(bootstrap) as client:
        await client.send_and_wait(topic, b"hello")
        equal({0, 1, 2}, await client.partitions_for(topic), "partitions")


@suite.behaviour("produce.log_append_time")
async def log_append_time(bootstrap):
    topic = await new_topic(bootstrap, "append-time", configs={"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000) - 1000
    async with producer(bootstrap) as client:
        answer = await client.send_and_wait(topic, b"x", partition=0, timestamp_ms=12345)
        that(answer.timestamp >= before, f"the answer's timestamp is {answer.timestamp}")
    record = (await read_back(bootstrap, topic, 1))[0]
    that(record.timestamp >= before and record.timestamp_type == 1, f"{record.timestamp} {record.timestamp_type}")


@suite.behaviour("consume.seek")
async def seek(bootstrap):
    topic = await new_topic(bootstrap, "seek")
    await send(bootstrap, topic, numbered("v", 100), max_batch_size=200)
    where = TopicPartition(topic, 0)
    async with consumer(bootstrap) as client:
        client.assign([where])
        for start in (50, 0, 99):
            client.seek(where, start)
            equal(numbered("v", 100, start), values(await take(client, 100 - start)), f"values from {start}")
        await client.seek_to_end(where)
        equal(100, await client.position(where), "position at the end")


@suite.behaviour("consume.reset_earliest", "earliest", 0)
@suite.behaviour("consume.reset_latest", "latest", 10)
async def reset(bootstrap, how, expected):
    topic = await new_topic(bootstrap, "reset")
    await send(bootstrap, topic, numbered("v", 10))
    async with consumer(bootstrap, group_id=unique("group"), auto_offset_reset=how) as client:
        client.assign([TopicPartition(topic, 0)])
        equal(expected, await client.position(TopicPartition(topic, 0)), "position")


@suite.behaviour("consume.out_of_range")
async def out_of_range(bootstrap):
    topic = await new_topic(bootstrap, "range")
    await send(bootstrap, topic, numbered("v", 10))
    async with consumer(bootstrap, auto_offset_reset="none") as client:
        client.assign([TopicPartition(topic, 0)])
        client.seek(TopicPartition(topic, 0), 1000)
        try:
            await asyncio.wait_for(client.getone(), SOON_SECONDS)
        except OffsetOutOfRangeError:
            return
    raise Failed("a record out of range")


@suite.behaviour("consume.pause_resume")
async def pause_resume(bootstrap):
    topic = await new_topic(bootstrap, "pause", 2)
    for partition in (0, 1):
        await send(bootstrap, topic, numbered("ab"[partition], 10), partition)
    async with consumer(bootstrap) as client:
        client.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
        client.pause(TopicPartition(topic, 0))
        equal(numbered("b", 10), values(await take(client, 10)), "values while paused")
        client.resume(TopicPartition(topic, 0))
        equal(numbered("a", 10), values(await take(client, 10)), "values after that")


@suite.behaviour("consume.read_committed")
async def read_committed(bootstrap):
    topic = await new_topic(bootstrap, "committed")
    await send(bootstrap, topic, numbered("v", 50))
    found = await read_back(bootstrap, topic, 50, isolation_level="read_committed")
    equal(numbered("v", 50), values(found), "values")


@suite.behaviour("consume.pattern")
async def pattern(bootstrap):
    prefix = unique("pattern")
    await send(bootstrap, await new_topic(bootstrap, prefix), ["first"])
    async with consumer(bootstrap, group_id=prefix) as client:
        client.subscribe(pattern=f"{prefix}.*")
        equal(["first"], values(await take(client, 1)), "values")
        await client.commit()
        await send(bootstrap, await new_topic(bootstrap, prefix), ["second"])
        equal(["second"], values(await take(client, 1)), "values of a topic made later")


@suite.behaviour("offsets.bounds")
async def bounds(bootstrap):
    topic = await new_topic(bootstrap, "bounds", 2)
    await send(bootstrap, topic, numbered("v", 10))
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    async with consumer(bootstrap) as client:
        equal({both[0]: 0, both[1]: 0}, await client.beginning_offsets(both), "beginning")
        equal({both[0]: 10, both[1]: 0}, await client.end_offsets(both), "end")


@suite.behaviour("offsets.for_times")
async def for_times(bootstrap):
    topic = await new_topic(bootstrap, "times", configs=KEEP)
    where = TopicPartition(topic, 0)
    async with producer(bootstrap) as client:
        for after in (0, 2000, 1000, 3000):
            await client.send_and_wait(topic, b"x", partition=0, timestamp_ms=T + after)
    async with consumer(bootstrap) as client:
        for stamp, expected in ((T, 0), (T + 1, 1), (T + 2001, 3), (T + 9999, None)):
            found = (await client.offsets_for_times({where: stamp}))[where]
            equal(expected, found and found.offset, f"offset at {stamp - T}")


class Member(ConsumerRebalanceListener):
    """A member of a group in a task of its own."""

    def __init__(self, bootstrap, topic, **settings):
        common = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500, "group_id": topic}
        self.client = new_consumer(bootstrap, **{**common, **settings})
        self.topic, self.values, self.rebalances, self.assigned = topic, [], 0, set()

    async def on_partitions_revoked(self, revoked):
        self.assigned = set()

    async def on_partitions_assigned(self, assigned):
        self.rebalances += 1
        self.assigned = set(assigned)

    async def __aenter__(self):
        self.client.subscribe([self.topic], listener=self)
        await self.client.start()
        self.task = asyncio.create_task(self.poll())
        return self

    async def poll(self):
        async for record in self.client:
            self.values.append(record.value.decode())

    async def __aexit__(self, *_):
        self.task.cancel()
        await self.client.stop()
        self.assigned = set()


async def await_shared(topic, partitions, least, *members):
    wanted = [TopicPartition(topic, partition) for partition in range(partitions)]

    def shared():
        held = [member.assigned for member in members]
        return sorted(one for each in held for one in each) == wanted and all(len(each) >= least for each in held)

    await eventually_async(shared, lambda: f"not shared: {[sorted(member.assigned) for member in members]}", 60)


@suite.behaviour("group.range", RangePartitionAssignor)
@suite.behaviour("group.roundrobin", RoundRobinPartitionAssignor)
@suite.behaviour("group.sticky", StickyPartitionAssignor)
async def join_and_leave(bootstrap, assignor):
    topic = await new_topic(bootstrap, "group", 6)
    settings = {"partition_assignment_strategy": [assignor]}
    async with Member(bootstrap, topic, **settings) as first:
        await await_shared(topic, 6, 6, first)
        async with Member(bootstrap, topic, **settings) as second:
            await await_shared(topic, 6, 3, first, second)
            for partition in range(6):
                await send(bootstrap, topic, numbered("v", 20), partition)
            await eventually_async(lambda: len(first.values) + len(second.values) >= 120, "not all records were read")
            equal((60, 60), (len(first.values), len(second.values)), "records of each")
        await await_shared(topic, 6, 6, first)


@suite.behaviour("group.static")
async def static(bootstrap):
    topic = await new_topic(bootstrap, "static", 6)
    async with Member(bootstrap, topic, group_instance_id="stays", session_timeout_ms=30000) as stays:
        async with Member(bootstrap, topic, group_instance_id="goes", session_timeout_ms=30000) as goes:
            await await_shared(topic, 6, 3, stays, goes)
            had, rebalances = goes.assigned, stays.rebalances
        # It has left without a word.
        async with Member(bootstrap, topic, group_instance_id="goes", session_timeout_ms=30000) as back:
            await eventually_async(lambda: back.assigned == had, lambda: f"had {had}, has {back.assigned}")
            equal(rebalances, stays.rebalances, "rebalances of the member that stayed")


@suite.behaviour("commit.metadata")
async def metadata(bootstrap):
    topic = await new_topic(bootstrap, "commit")
    where = TopicPartition(topic, 0)
    async with consumer(bootstrap, group_id=topic) as client:
        client.assign([where])
        await client.commit({where: OffsetAndMetadata(7, "a note, é中")})
        equal(7, await client.committed(where), "committed")
    async with admin(bootstrap) as client:
        found = await client.list_consumer_group_offsets(topic)
        equal({where: OffsetAndMetadata(7, "a note, é中")}, found, "committed, as an admin sees it")


@suite.behaviour("commit.resume")
async def resume(bootstrap):
    topic = await new_topic(bootstrap, "resume")
    await send(bootstrap, topic, numbered("v", 20))
    for start in (0, 10):
        async with consumer(bootstrap, topic, group_id=topic) as client:
            equal(numbered("v", start + 10, start), values(await take(client, 10)), "values")
            await client.commit({TopicPartition(topic, 0): start + 10})


@suite.behaviour("commit.auto")
async def auto(bootstrap):
    topic = await new_topic(bootstrap, "auto")
    await send(bootstrap, topic, numbered("v", 20))
    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 300, "group_id": topic}
    async with consumer(bootstrap, topic, **settings) as client:
        await take(client, 20)
    async with consumer(bootstrap, group_id=topic) as client:
        equal(20, await client.committed(TopicPartition(topic, 0)), "committed when it closed")


@suite.behaviour("admin.create_topic")
async def create_topic(bootstrap):
    name = await new_topic(bootstrap, "create", 4, {"retention.ms": "3600000"})
    async with admin(bootstrap) as client:
        that(name in await client.list_topics(), "the topic is not in the list")
        answer = await client.create_topics([NewTopic(name, 1, 1)])
        equal(TopicAlreadyExistsError.errno, answer.topic_errors[0][1], "error for the same name again")


@suite.behaviour("admin.delete_topic")
async def delete_topic(bootstrap):
    name = await new_topic(bootstrap, "delete")
    async with admin(bootstrap) as client:
        await client.delete_topics([name])
        deadline = time.monotonic() + SOON_SECONDS
        while name in await client.list_topics():
            that(time.monotonic() < deadline, "the topic is still listed")


@suite.behaviour("admin.create_partitions")
async def create_partitions(bootstrap):
    name = await new_topic(bootstrap, "grow", 2)
    async with admin(bootstrap) as client:
        await client.create_partitions({name: NewPartitions(5)})
        await await_partitions(client, name, 5)
    equal(0, (await send(bootstrap, name, ["v"], 4))[0].offset, "offset in a new partition")


@suite.behaviour("admin.describe_configs")
async def describe_configs(bootstrap):
    name = await new_topic(bootstrap, "configs", configs={"retention.ms": "7200000"})
    async with admin(bootstrap) as client:
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        entries = {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
        equal("7200000", entries["retention.ms"], "retention.ms")


@suite.behaviour("admin.describe_cluster")
async def describe_cluster(bootstrap):
    async with admin(bootstrap) as client:
        found = await client.describe_cluster()
        that(found["brokers"] and found["cluster_id"], f"{found}")


@suite.behaviour("admin.delete_records")
async def delete_records(bootstrap):
    topic = await new_topic(bootstrap, "delete-records")
    await send(bootstrap, topic, numbered("v", 100))
    where = TopicPartition(topic, 0)
    async with admin(bootstrap) as client:
        equal({where: 37}, await client.delete_records({where: RecordsToDelete(37)}), "low watermarks")
    equal(numbered("v", 100, 37), values(await read_back(bootstrap, topic, 63)), "values")


@suite.behaviour("admin.list_groups")
async def list_groups(bootstrap):
    topic = await new_topic(bootstrap, "groups", 2)
    async with Member(bootstrap, topic) as member, admin(bootstrap) as client:
        await await_shared(topic, 2, 2, member)
        that((topic, "consumer") in await client.list_consumer_groups(), "the group is not in the list")


@suite.behaviour("admin.describe_group")
async def describe_group(bootstrap):
    topic = await new_topic(bootstrap, "groups", 2)
    async with Member(bootstrap, topic) as member, admin(bootstrap) as client:
        await await_shared(topic, 2, 2, member)
        answer = (await client.describe_consumer_groups([topic]))[0]
        group = answer.groups[0]
        equal((0, topic, "Stable", "consumer"), tuple(group[:4]), "group")
        equal(1, len(group[5]), "members")


if __name__ == "__main__":
    suite.main()
