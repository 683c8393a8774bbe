"""Debian's kcat: an old librdkafka, and what people type into a shell."""

import json
import subprocess

from suite import Suite, equal, eventually, numbered, that, unique

suite = Suite("kcat")


def kcat(bootstrap, *words, given=None, may_fail=False):
    command = ["kcat", "-b", bootstrap, "-X", "topic.metadata.refresh.interval.ms=1000", *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()[-600:]}")
    return done.stdout if not may_fail else done.stdout + done.stderr


def produce(bootstrap, topic, lines, *options):
    kcat(bootstrap, "-P", "-t", topic, *options, given="".join(f"{line}\n" for line in lines))


def consume(bootstrap, topic, *options):
    return kcat(bootstrap, "-C", "-t", topic, "-e", "-q", *options).splitlines()


def round_trip(bootstrap, codec):
    topic = unique("kcat")
    headers = ["-H", "twice=first", "-H", "other=1", "-H", "twice=second"]
    lines = [f"key-{index}:value-{index}" for index in range(200)]
    produce(bootstrap, topic, lines, "-p", "0", "-K", ":", "-z", codec, *headers)
    found = consume(bootstrap, topic, "-p", "0", "-o", "beginning", "-f", "%o %k:%s %h\\n")
    equal([f"{n} {line} twice=first,other=1,twice=second" for n, line in enumerate(lines)], found, "records")


# Its snappy, lz4 and zstd depend on how librdkafka was built; Debian's has all of them.
for name in ("none", "gzip", "snappy", "lz4", "zstd"):
    suite.add(f"codec.{name}", lambda bootstrap, codec=name: round_trip(bootstrap, codec))


def acks(bootstrap, level):
    topic = unique("kcat-acks")
    # The topic is made first: without an answer nobody would tell that it was not there yet.
    produce(bootstrap, topic, ["first"], "-p", "0")
    produce(bootstrap, topic, numbered("v", 100), "-p", "0", "-X", f"acks={level}")
    found = []

    def arrived():
        found[:] = consume(bootstrap, topic, "-p", "0", "-o", "beginning")
        return len(found) >= 101

    eventually(arrived, lambda: f"{len(found)} of 101 records")
    equal(["first", *numbered("v", 100)], found, "records")


suite.add("produce.acks_0", lambda bootstrap: acks(bootstrap, "0"))
suite.add("produce.acks_1", lambda bootstrap: acks(bootstrap, "1"))
suite.add("produce.acks_all", lambda bootstrap: acks(bootstrap, "all"))


@suite.behaviour("produce.idempotent")
def idempotent(bootstrap):
    topic = unique("kcat-idempotent")
    lines = numbered("v", 1000)
    produce(bootstrap, topic, lines, "-p", "0", "-X", "enable.idempotence=true", "-X", "batch.num.messages=10")
    equal(lines, consume(bootstrap, topic, "-p", "0", "-o", "beginning"), "records")


@suite.behaviour("produce.auto_create")
def auto_create(bootstrap):
    topic = unique("kcat-created")
    produce(bootstrap, topic, ["hello"])
    listed = json.loads(kcat(bootstrap, "-L", "-J", "-t", topic))
    equal(3, len(listed["topics"][0]["partitions"]), "partitions")


@suite.behaviour("consume.metadata")
def metadata(bootstrap):
    topic = unique("kcat-list")
    produce(bootstrap, topic, ["hello"])
    listed = json.loads(kcat(bootstrap, "-L", "-J"))
    that(listed["brokers"], "no brokers in the list")
    names = [one["topic"] for one in listed["topics"]]
    that(topic in names, "the topic is not in the list")
    leaders = {broker["id"] for broker in listed["brokers"]}
    found = next(one for one in listed["topics"] if one["topic"] == topic)
    that(all(one["leader"] in leaders for one in found["partitions"]), f"leaders {found}")


@suite.behaviour("consume.seek")
def seek(bootstrap):
    topic = unique("kcat-seek")
    produce(bootstrap, topic, numbered("v", 100), "-p", "0")
    equal(numbered("v", 100, 60), consume(bootstrap, topic, "-p", "0", "-o", "60"), "from offset 60")
    equal(numbered("v", 100, 95), consume(bootstrap, topic, "-p", "0", "-o", "-5"), "the last five")
    equal(numbered("v", 10), consume(bootstrap, topic, "-p", "0", "-o", "beginning", "-c", "10"), "the first ten")
    equal([], consume(bootstrap, topic, "-p", "0", "-o", "end"), "from the end")


@suite.behaviour("offsets.bounds")
def bounds(bootstrap):
    topic = unique("kcat-bounds")
    produce(bootstrap, topic, numbered("v", 10), "-p", "0")
    equal(f"{topic} [0] offset 10", kcat(bootstrap, "-Q", "-t", f"{topic}:0:-1").strip(), "end")
    equal(f"{topic} [0] offset 0", kcat(bootstrap, "-Q", "-t", f"{topic}:0:-2").strip(), "beginning")


@suite.behaviour("offsets.for_times")
def for_times(bootstrap):
    topic = unique("kcat-times")
    stamps = []
    for index in range(3):
        produce(bootstrap, topic, [f"v{index}"], "-p", "0")
    for line in consume(bootstrap, topic, "-p", "0", "-o", "beginning", "-f", "%T\\n"):
        stamps.append(int(line))
    equal(3, len(stamps), "records")
    that(stamps[0] < stamps[2], f"the records' times are {stamps}")
    for offset in (0, stamps.index(stamps[2])):
        found = kcat(bootstrap, "-Q", "-t", f"{topic}:0:{stamps[offset]}").strip()
        equal(f"{topic} [0] offset {offset}", found, f"offset at {stamps[offset]}")


@suite.behaviour("offsets.seek_by_time")
def seek_by_time(bootstrap):
    topic = unique("kcat-since")
    for value in ("one", "two", "three"):
        produce(bootstrap, topic, [value], "-p", "0")
    stamps = [int(line) for line in consume(bootstrap, topic, "-p", "0", "-o", "beginning", "-f", "%T\\n")]
    equal(["three"], consume(bootstrap, topic, "-p", "0", "-o", f"s@{stamps[2]}"), "since the third")


@suite.behaviour("commit.resume")
def resume(bootstrap):
    topic = unique("kcat-group")
    produce(bootstrap, topic, numbered("v", 20), "-p", "0")
    options = ["-X", "auto.offset.reset=earliest", "-X", "group.id=" + topic, "-q", "-c", "10"]
    for start in (0, 10):
        found = kcat(bootstrap, *options, "-G", topic, topic).splitlines()
        equal(numbered("v", start + 10, start), found, "records")


@suite.behaviour("produce.null_values")
def null_values(bootstrap):
    topic = unique("kcat-null")
    produce(bootstrap, topic, ["key:"], "-p", "0", "-K", ":", "-Z")
    equal(["key -1"], consume(bootstrap, topic, "-p", "0", "-o", "beginning", "-f", "%k %S\\n"), "a null value")


if __name__ == "__main__":
    suite.main()
