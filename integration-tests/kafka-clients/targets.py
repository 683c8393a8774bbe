"""What the clients are pointed at: real Kafka, `bmq standalone`, a cluster of bmq processes over real HDFS and
etcd, or an address where something runs already. Whatever is started here ends with its context."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))
import children
from daemons import ROOT, Failure, say

NAMES = ("kafka", "standalone", "local-cluster")

# As real Kafka is set up here: retention and compaction look often enough for a test to wait for them,
SETTINGS = ["broker.partition.retention_interval=1s", "broker.partition.compaction_interval=1s"]
# topics are made by asking for them, and nobody waits for more members, which is so in standalone anyway.
CLUSTER_SETTINGS = ["proxy.kafka.auto_create_topics=true", "coordinator.groups.initial_rebalance_delay=0s"]
# HDFS places a block only where there is room for a whole one, and there are hundreds of open files.
CLUSTER_SETTINGS += ["store.hdfs.block_size=16MiB"]


def bmq():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = Path(os.environ.get("BMQ", target / "debug" / "bmq"))
    if not binary.exists():
        raise Failure("there is no bmq; run `cargo build --bin bmq`")
    return binary


@contextlib.contextmanager
def started(target):
    """The bootstrap addresses of the target."""
    if target == "kafka":
        context = kafka()
    elif target == "standalone":
        context = standalone()
    elif target == "local-cluster":
        context = local_cluster()
    elif ":" in target:
        context = contextlib.nullcontext(target)
    else:
        raise Failure(f"a target is {', '.join(NAMES)} or HOST:PORT, not {target}")
    with context as bootstrap:
        yield bootstrap


@contextlib.contextmanager
def daemons(script, *options):
    """State of what one of scripts/ has started."""
    with tempfile.TemporaryDirectory(prefix=f"conformance-{script}-") as folder:
        where = ["--dir", Path(folder) / script]
        # They also end if this process is killed.
        command = [ROOT / "scripts" / script, "up", *where, "--owner", str(os.getpid()), "--json", *options]
        try:
            up = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if up.returncode != 0:
                raise Failure(f"scripts/{script} did not start it")
            yield json.loads(up.stdout)
        finally:
            subprocess.run([ROOT / "scripts" / script, "down", *where, "--delete"])


@contextlib.contextmanager
def kafka():
    with daemons("kafka") as state:
        yield state["bootstrap"]


@contextlib.contextmanager
def process(words, folder):
    """A bmq process and its standard output; ended in order, or by force if that takes long."""
    log = Path(folder) / "bmq.log"
    with open(log, "w") as errors:
        started_one = children.start(words, stderr=errors)
    try:
        yield started_one.stdout
    except Failure as failure:
        raise Failure(f"{failure}: {log.read_text()[-2000:]}") from None
    finally:
        started_one.terminate()
        try:
            started_one.wait(30)
        except subprocess.TimeoutExpired:
            started_one.kill()
            started_one.wait()
        keep = os.environ.get("CONFORMANCE_LOGS")
        if keep:
            Path(keep, f"{Path(folder).name}.log").write_text(log.read_text())


def options(settings):
    return [word for setting in settings for word in ("--set", setting)]


@contextlib.contextmanager
def standalone():
    anywhere = "127.0.0.1:0"
    with tempfile.TemporaryDirectory(prefix="conformance-standalone-") as folder:
        words = [bmq(), "standalone", "--data-dir", Path(folder) / "data", "--kafka", anywhere, *options(SETTINGS)]
        with process([*words, "--grpc", anywhere, "--http", anywhere], folder) as output:
            for line in output:
                if line.split()[:1] == ["Kafka"]:
                    yield line.split()[1]
                    return
            raise Failure("bmq standalone ended before it said where Kafka clients connect")


@contextlib.contextmanager
def local_cluster():
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-cluster-"))
        etcd = stack.enter_context(daemons("etcd"))
        hdfs = stack.enter_context(daemons("hdfs"))
        words = [bmq(), "local-cluster", "-o", "json", "--brokers", 3, "--coordinators", 2, "--proxies", 2]
        words += ["--etcd", ",".join(etcd["endpoints"]), "--store", f"{hdfs['uri']}/bmq", "--dir", Path(folder) / "bmq"]
        words += options([*SETTINGS, *CLUSTER_SETTINGS])
        output = stack.enter_context(process(words, folder))
        announced = read_document(output)
        addresses = [one["kafka"] for one in announced["processes"] if one.get("kafka")]
        if not addresses:
            raise Failure("no proxy of the cluster has a listener for Kafka clients")
        say(f"bmq local-cluster: {', '.join(addresses)}")
        yield ",".join(addresses)


def read_document(output):
    """The first JSON document, which may go over several lines."""
    text = ""
    for line in output:
        text += line
        with contextlib.suppress(ValueError):
            return json.loads(text)
    raise Failure("bmq local-cluster ended before it was ready")
