"""Kafka's own command line tools, each a process as an operator starts it."""

import csv
import io
import json
import re
import subprocess
import tempfile
from pathlib import Path

from suite import Suite, equal, eventually, numbered, that, unique

# A JVM for each call takes its time.
suite = Suite("tools", seconds_each=300)

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "kafka"
GROUPS = "consumer.group.ConsumerGroupCommand"


def tool(main, *words, given=None, seconds=90):
    command = [SCRIPT, "tool", main, *map(str, words)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise RuntimeError(f"{main} ended with {done.returncode}: {(done.stderr + done.stdout).strip()[-800:]}")
    return done.stdout


def server(bootstrap):
    return ["--bootstrap-server", bootstrap]


def topics(bootstrap, *words):
    return tool("TopicCommand", *server(bootstrap), *words)


def new_topic(bootstrap, hint, partitions=1, *words):
    name = unique(hint)
    topics(bootstrap, "--create", "--topic", name, "--partitions", partitions, *words)
    return name


def produce(bootstrap, topic, lines, *words):
    text = "".join(f"{line}\n" for line in lines)
    tool("ConsoleProducer", *server(bootstrap), "--topic", topic, *words, given=text)


def consume(bootstrap, topic, count, *words):
    limits = ["--max-messages", count, "--timeout-ms", 30000]
    options = [] if "--group" in words and "--offset" not in words else ["--from-beginning"]
    said = tool("consumer.ConsoleConsumer", *server(bootstrap), "--topic", topic, *limits, *options, *words)
    return said.splitlines()


@suite.behaviour("tools.topic_command")
def topic_command(bootstrap):
    name = new_topic(bootstrap, "tool", 2, "--config", "retention.ms=3600000")
    that(name in topics(bootstrap, "--list").split(), "the topic is not in the list")
    topics(bootstrap, "--alter", "--topic", name, "--partitions", 4)
    described = topics(bootstrap, "--describe", "--topic", name)
    that("PartitionCount: 4" in described, described)
    that("retention.ms=3600000" in described, described)
    equal(4, len(re.findall(r"Leader: \d+", described)), "leaders")
    equal("", topics(bootstrap, "--describe", "--under-replicated-partitions").strip(), "under-replicated partitions")
    topics(bootstrap, "--delete", "--topic", name)
    eventually(lambda: name not in topics(bootstrap, "--list").split(), "the topic is still listed")


@suite.behaviour("tools.console")
def console(bootstrap):
    name = new_topic(bootstrap, "console")
    lines = [f"k{n}:v{n}" for n in range(50)]
    properties = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=:"]
    produce(bootstrap, name, lines, *properties, "--compression-codec", "zstd")
    shown = ["--formatter-property", "print.key=true", "--formatter-property", "key.separator=:"]
    equal(lines, consume(bootstrap, name, 50, *shown), "lines")


@suite.behaviour("tools.group_command")
def group_command(bootstrap):
    name = new_topic(bootstrap, "group")
    produce(bootstrap, name, numbered("v", 20))
    equal(numbered("v", 10), consume(bootstrap, name, 10, "--group", name, "--from-beginning"), "lines")
    groups = lambda *words: tool(GROUPS, *server(bootstrap), *words)
    that(name in groups("--list").split(), "the group is not in the list")
    row = next(line.split() for line in groups("--describe", "--group", name).splitlines() if name in line)
    equal([name, name, "0", "10", "20", "10"], row[:6], "group, topic, partition, committed, end, lag")
    chosen = ["--group", name, "--topic", name]
    dry = groups("--reset-offsets", *chosen, "--to-offset", 3, "--dry-run")
    that(dry.split()[-1] == "3", dry)
    for how, expected in ((["--to-earliest"], "0"), (["--to-latest"], "20"), (["--shift-by", "-5"], "15"),
                          (["--to-datetime", "2001-01-01T00:00:00.000"], "0")):
        equal(expected, groups("--reset-offsets", *chosen, *how, "--execute").split()[-1], f"offset after {how[0]}")
    that("Empty" in groups("--describe", "--state", "--group", name), "the state is not Empty")
    groups("--delete-offsets", *chosen)
    groups("--delete", "--group", name)
    that(name not in groups("--list").split(), "the group is still listed")


@suite.behaviour("tools.get_offsets")
def get_offsets(bootstrap):
    name = new_topic(bootstrap, "offsets", 2)
    produce(bootstrap, name, numbered("v", 30))

    def offsets(*words):
        found = tool("GetOffsetShell", *server(bootstrap), "--topic", name, *words).split()
        return sorted(int(line.rsplit(":", 1)[1]) for line in found)

    equal(30, sum(offsets()), "ends")
    equal([0, 0], offsets("--time", "earliest"), "beginnings")
    that(sum(offsets("--time", "max-timestamp")) > 0, "no offset of the highest timestamp")


@suite.behaviour("tools.configs")
def configs(bootstrap):
    name = new_topic(bootstrap, "configs")
    entity = ["--entity-type", "topics", "--entity-name", name]
    command = lambda *words: tool("kafka.admin.ConfigCommand", *server(bootstrap), *entity, *words)
    command("--alter", "--add-config", "retention.ms=86400000,max.message.bytes=5000")
    eventually(lambda: "retention.ms=86400000" in command("--describe"), "retention.ms is not set")
    command("--alter", "--delete-config", "retention.ms")
    eventually(lambda: "retention.ms" not in command("--describe"), "retention.ms is still set")
    that("segment.bytes" in command("--describe", "--all"), "no defaults")


@suite.behaviour("tools.verifiable")
def verifiable(bootstrap):
    name = new_topic(bootstrap, "verifiable", 3)
    said = tool("VerifiableProducer", *server(bootstrap), "--topic", name, "--max-messages", 5000, "--acks", -1)
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    equal(5000, sum(event["name"] == "producer_send_success" for event in events), "records sent")
    words = [*server(bootstrap), "--topic", name, "--group-id", name, "--max-messages", 5000]
    said = tool("VerifiableConsumer", *words, "--reset-policy", "earliest")
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    equal(5000, sum(event["count"] for event in events if event["name"] == "records_consumed"), "records consumed")
    commits = [event for event in events if event["name"] == "offsets_committed"]
    that(commits and all(event["success"] for event in commits), f"commits {commits[-3:]}")


@suite.behaviour("tools.performance")
def performance(bootstrap):
    name = new_topic(bootstrap, "performance", 3)
    records = ["--num-records", 20000]
    said = tool("ProducerPerformance", "--bootstrap-server", bootstrap, "--topic", name, *records, "--throughput", -1,
                "--record-size", 1000)
    that("20000 records sent" in said, said[-300:])
    said = tool("ConsumerPerformance", *server(bootstrap), "--topic", name, "--num-records", 20000, "--timeout", 30000)
    rows = list(csv.reader(io.StringIO(said), skipinitialspace=True))
    equal("20000", rows[1][rows[0].index("data.consumed.in.nMsg")], "records consumed")


@suite.behaviour("tools.end_to_end_latency")
def latency(bootstrap):
    name = new_topic(bootstrap, "latency")
    said = tool("EndToEndLatency", bootstrap, name, 200, "all", 100)
    that("Avg latency" in said, said[-300:])


@suite.behaviour("tools.delete_records")
def delete_records(bootstrap):
    name = new_topic(bootstrap, "delete")
    produce(bootstrap, name, numbered("v", 20))
    wanted = {"version": 1, "partitions": [{"topic": name, "partition": 0, "offset": 12}]}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(wanted, file)
        file.flush()
        said = tool("DeleteRecordsCommand", *server(bootstrap), "--offset-json-file", file.name)
    that("low_watermark: 12" in said, said[-300:])


@suite.behaviour("tools.cluster")
def cluster(bootstrap):
    that("Cluster ID:" in tool("ClusterTool", "cluster-id", *server(bootstrap)), "no cluster id")
    versions = tool("BrokerApiVersionsCommand", *server(bootstrap))
    that("Produce(0):" in versions and "Fetch(1):" in versions, versions[:300])
    directories = tool("LogDirsCommand", *server(bootstrap), "--describe")
    that('"logDirs"' in directories, directories[:300])
    that("GROUP" in tool("GroupsCommand", *server(bootstrap), "--list"), "no list of groups")


@suite.behaviour("tools.client_compatibility")
def client_compatibility(bootstrap):
    versions = tool("BrokerApiVersionsCommand", *server(bootstrap))
    facts = {
        "offsets-for-times-supported": True,
        "cluster-id-supported": True,
        "expect-record-too-large-exception": False,
        "num-cluster-nodes": versions.count("(id: "),
        "create-topics-supported": True,
        "describe-acls-supported": "DescribeAcls(29): UNSUPPORTED" not in versions,
        "describe-configs-supported": True,
        "idempotent-producer-supported": True,
    }
    name = new_topic(bootstrap, "compatibility")
    words = [word for fact, value in facts.items() for word in (f"--{fact}", value)]
    tool("ClientCompatibilityTest", *server(bootstrap), "--topic", name, *words)


if __name__ == "__main__":
    suite.main()
