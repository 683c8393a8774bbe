"""Groups of librdkafka's consumers, by the classic protocol and by KIP-848, and what an admin does to groups."""

import subprocess
import sys
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, ConsumerGroupState, KafkaError, TopicPartition

from confluent import CALL_SECONDS, Member, admin, answers, await_shared, consumer, new_topic
from confluent import refused, send, take, values
from suite import equal, eventually, numbered, that, unique

CLASSIC = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 500}
NEW = {"group_protocol": "consumer"}


def join_and_leave(bootstrap, settings):
    topic = new_topic(bootstrap, "group", 6)
    settings = {**settings, "group_id": topic}
    with Member(bootstrap, [topic], **settings) as first:
        await_shared(topic, 6, 6, first)
        with Member(bootstrap, [topic], **settings) as second:
            await_shared(topic, 6, 3, first, second)
            for partition in range(6):
                send(bootstrap, topic, numbered("v", 20), partition)
            eventually(lambda: len(first.values) + len(second.values) >= 120, "not all records were read")
            equal((60, 60), (len(first.values), len(second.values)), "records of each")
        await_shared(topic, 6, 6, first)


def incremental(bootstrap, settings):
    topic = new_topic(bootstrap, "incremental", 6)
    settings = {**settings, "group_id": topic}
    with Member(bootstrap, [topic], **settings) as first:
        await_shared(topic, 6, 6, first)
        with Member(bootstrap, [topic], **settings) as second:
            await_shared(topic, 6, 3, first, second)
            equal(3, first.revoked, "partitions taken from the first member")


def static(bootstrap, settings):
    topic = new_topic(bootstrap, "static", 6)
    settings = {**settings, "group_id": topic}
    with Member(bootstrap, [topic], group_instance_id="stays", **settings) as stays:
        goes = Member(bootstrap, [topic], group_instance_id="goes", **settings)
        await_shared(topic, 6, 3, stays, goes)
        had, revoked = goes.assigned, stays.revoked
        goes.close()
        with Member(bootstrap, [topic], group_instance_id="goes", **settings) as back:
            eventually(lambda: back.assigned == had, lambda: f"had {had}, has {back.assigned}")
            equal(revoked, stays.revoked, "partitions taken from the member that stayed")


def killed(bootstrap, settings):
    topic = new_topic(bootstrap, "killed", 4)
    settings = {**settings, "group_id": topic}
    with Member(bootstrap, [topic], **settings) as survivor:
        await_shared(topic, 4, 4, survivor)
        words = [f"{name}={value}" for name, value in settings.items()]
        command = [sys.executable, Path(__file__).with_name("confluent_member.py"), bootstrap, topic, *words]
        with subprocess.Popen(command) as victim:
            try:
                eventually(lambda: len(survivor.assigned) == 2, "the other process got no partitions", 75)
            finally:
                victim.kill()
        eventually(lambda: len(survivor.assigned) == 4, lambda: f"the survivor has {survivor.assigned}", 80)


def commit_and_resume(bootstrap, settings):
    topic = new_topic(bootstrap, "commit")
    send(bootstrap, topic, numbered("v", 20))
    for start in (0, 10):
        client = consumer(bootstrap, group_id=topic, **settings)
        client.subscribe([topic])
        equal(numbered("v", start + 10, start), values(take(client, 10)), "values")
        where = TopicPartition(topic, 0, start + 10, metadata=f"noted {start}")
        client.commit(offsets=[where], asynchronous=False)
        found = client.committed([TopicPartition(topic, 0)], CALL_SECONDS)[0]
        equal((start + 10, f"noted {start}"), (found.offset, found.metadata), "committed")
        client.close()


def pattern(bootstrap, settings):
    prefix = unique("pattern")
    first = new_topic(bootstrap, prefix, 2)
    with Member(bootstrap, [f"^{prefix}.*"], group_id=prefix, **settings) as member:
        await_shared(first, 2, 2, member)
        new_topic(bootstrap, prefix, 2)
        eventually(lambda: len(member.assigned) == 4, lambda: f"has {member.assigned}")


def auto_commit(bootstrap):
    topic = new_topic(bootstrap, "auto")
    send(bootstrap, topic, numbered("v", 20))
    settings = {"enable_auto_commit": True, "auto_commit_interval_ms": 300, "group_id": topic}
    with Member(bootstrap, [topic], **settings) as member:
        eventually(lambda: len(member.values) == 20, "not all records were read")
    client = consumer(bootstrap, group_id=topic)
    equal(20, client.committed([TopicPartition(topic, 0)], CALL_SECONDS)[0].offset, "committed when it closed")
    client.close()


def list_and_describe(bootstrap, settings, kind):
    topic = new_topic(bootstrap, "describe", 2)
    client = admin(bootstrap)
    with Member(bootstrap, [topic], group_id=topic, client_id="someone", **settings) as member:
        await_shared(topic, 2, 2, member)
        listed = client.list_consumer_groups().result(CALL_SECONDS).valid
        found = [one for one in listed if one.group_id == topic]
        equal(1, len(found), "groups of that name in the list")
        equal((ConsumerGroupState.STABLE, kind), (found[0].state, found[0].type.name), "state and type in the list")
        group = answers(client.describe_consumer_groups([topic]))[0]
        equal(ConsumerGroupState.STABLE, group.state, "state")
        that(group.coordinator is not None, "no coordinator")
        equal(["someone"], [one.client_id for one in group.members], "members")
        held = {(one.topic, one.partition) for one in group.members[0].assignment.topic_partitions}
        equal(member.assigned, held, "assignment")


def alter_and_list_offsets(bootstrap):
    topic = new_topic(bootstrap, "alter")
    send(bootstrap, topic, numbered("v", 10))
    client = admin(bootstrap)
    wanted = ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, 8)])
    answers(client.alter_consumer_group_offsets([wanted]))
    asked = ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0)])
    found = answers(client.list_consumer_group_offsets([asked]))[0]
    equal([8], [one.offset for one in found.topic_partitions], "offsets")
    reader = consumer(bootstrap, group_id=topic)
    reader.subscribe([topic])
    equal(["v8", "v9"], values(take(reader, 2)), "values from there on")
    reader.close()


def delete_group(bootstrap):
    topic = new_topic(bootstrap, "delete")
    client = admin(bootstrap)
    with Member(bootstrap, [topic], group_id=topic, **CLASSIC) as member:
        await_shared(topic, 1, 1, member)
        refused(lambda: answers(client.delete_consumer_groups([topic])), KafkaError.NON_EMPTY_GROUP)
    answers(client.delete_consumer_groups([topic]))
    refused(lambda: answers(client.delete_consumer_groups([topic])), KafkaError.GROUP_ID_NOT_FOUND)


def add(suite):
    def put(name, body, *arguments):
        suite.behaviour(name, *arguments)(body)

    for strategy in ("range", "roundrobin"):
        put(f"group.{strategy}", join_and_leave, {**CLASSIC, "partition_assignment_strategy": strategy})
    put("group.cooperative", incremental, {**CLASSIC, "partition_assignment_strategy": "cooperative-sticky"})
    put("group.static", static, {**CLASSIC, "session_timeout_ms": 30000})
    put("group.killed_member", killed, CLASSIC)
    put("group.pattern", pattern, CLASSIC)
    for assignor in ("uniform", "range"):
        put(f"group848.{assignor}", join_and_leave, {**NEW, "group_remote_assignor": assignor})
    put("group848.incremental", incremental, NEW)
    put("group848.static", static, NEW)
    put("group848.killed_member", killed, NEW)
    put("group848.pattern", pattern, NEW)
    put("commit.resume", commit_and_resume, CLASSIC)
    put("group848.commit", commit_and_resume, NEW)
    put("commit.auto", auto_commit)
    put("admin.describe_group", list_and_describe, CLASSIC, "CLASSIC")
    put("group848.describe", list_and_describe, NEW, "CONSUMER")
    put("admin.alter_group_offsets", alter_and_list_offsets)
    put("admin.delete_group", delete_group)
