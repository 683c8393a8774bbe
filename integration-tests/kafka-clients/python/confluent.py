"""librdkafka through confluent-kafka: setting up and small steps. The behaviours are in
confluent_behaviours.py and confluent_groups.py."""

import functools
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from suite import SOON_SECONDS, Failed, eventually, unique

CALL_SECONDS = 20


@functools.lru_cache
def admin(bootstrap):
    """One for all: a client that nobody holds ends before its answers arrive."""
    return AdminClient({"bootstrap.servers": bootstrap})


def answers(futures):
    """The results of a call for several things, in their order."""
    return [future.result(CALL_SECONDS) for future in futures.values()]


def new_topic(bootstrap, hint, partitions=1, config=None):
    """Creates a topic, and returns its name once every partition has a leader."""
    name = unique(hint)
    client = admin(bootstrap)
    answers(client.create_topics([NewTopic(name, partitions, config=config or {})]))
    await_partitions(client, name, partitions)
    return name


def await_partitions(client, name, partitions):
    def ready():
        topic = client.list_topics(name, CALL_SECONDS).topics[name]
        return len(topic.partitions) == partitions and all(one.leader >= 0 for one in topic.partitions.values())

    eventually(ready, f"{partitions} partitions of {name}")


def producer(bootstrap, **settings):
    """Settings are librdkafka's with underscores for dots."""
    common = {"bootstrap.servers": bootstrap, "message.timeout.ms": 30000}
    return Producer({**common, **dotted(settings)})


def consumer(bootstrap, **settings):
    common = {
        "bootstrap.servers": bootstrap,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "topic.metadata.refresh.interval.ms": 1000,
    }
    return Consumer({**common, "group.id": unique("group"), **dotted(settings)})


def dotted(settings):
    return {name.replace("_", "."): value for name, value in settings.items()}


def send(bootstrap, topic, values, partition=0, **settings):
    """Writes values, all acknowledged; returns their offsets."""
    client = producer(bootstrap, **settings)
    reports = []
    for value in values:
        client.produce(topic, value, partition=partition, on_delivery=lambda *report: reports.append(report))
        client.poll(0)
    client.flush(SOON_SECONDS)
    failed = [error for error, _ in reports if error]
    if failed:
        raise KafkaException(failed[0])
    if len(reports) != len(values):
        raise Failed(f"{len(reports)} of {len(values)} records were answered")
    return [message.offset() for _, message in reports]


def take(client, count, seconds=SOON_SECONDS):
    """The next records; fails when they do not come."""
    taken = []
    deadline = time.monotonic() + seconds
    while len(taken) < count:
        message = client.poll(0.2)
        if message is not None and message.error():
            raise KafkaException(message.error())
        if message is not None:
            taken.append(message)
        elif time.monotonic() > deadline:
            raise Failed(f"only {len(taken)} of {count} records came")
    return taken


def values(messages):
    return [message.value().decode() for message in messages]


def read_back(bootstrap, topic, count, partition=0, **settings):
    client = consumer(bootstrap, **settings)
    try:
        client.assign([TopicPartition(topic, partition, 0)])
        return take(client, count)
    finally:
        client.close()


def refused(call, *codes):
    """Runs what must fail with one of these codes."""
    try:
        answer = call()
    except KafkaException as failure:
        code = failure.args[0].code()
        if code in codes:
            return failure.args[0]
        raise Failed(f"expected error {codes}, found {failure.args[0]}") from failure
    raise Failed(f"expected a refusal, found the answer {answer}")


class Member:
    """A member of a group in a thread of its own, which polls until it is closed."""

    def __init__(self, bootstrap, topics, **settings):
        self.values, self.failures, self.revoked = [], [], 0
        self.assigned = set()
        self._calls, self._ended = [], threading.Event()
        self.consumer = consumer(bootstrap, **settings)
        self.consumer.subscribe(topics, on_revoke=self._on_revoke)
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _on_revoke(self, _, partitions):
        self.revoked += len(partitions)

    def _poll(self):
        while not self._ended.is_set():
            message = self.consumer.poll(0.05)
            if message is not None and message.error():
                self.failures.append(message.error())
            elif message is not None:
                self.values.append(message.value().decode())
            self.assigned = {(one.topic, one.partition) for one in self.consumer.assignment()}
        self.consumer.close()
        self.assigned = set()

    def close(self):
        self._ended.set()
        self._thread.join(SOON_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def await_shared(topic, partitions, least, *members, seconds=75):
    """Waits until the members have all partitions between them, none twice, each at least `least`."""
    wanted = sorted((topic, partition) for partition in range(partitions))

    def shared():
        held = [member.assigned for member in members]
        return sorted(one for each in held for one in each) == wanted and all(len(each) >= least for each in held)

    def found():
        return f"{[sorted(member.assigned) for member in members]}, {[member.failures for member in members]}"

    eventually(shared, lambda: f"{partitions} partitions are not shared: {found()}", seconds)
