"""How each client's part of the suite is started. Each prints a line of JSON with what it plans to run, then a
line for each behaviour; what a client does not print, it did not do."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "scripts"))
import children
from daemons import LOCAL, ROOT, Failure
from jvm import class_path, from_jdk, java

NAMES = ("java", "tools", "confluent", "kcat", "aiokafka", "kafkajs")

# Of one client's whole list; each behaviour has a limit of its own.
SECONDS_EACH = 1500

VENV_PYTHON = LOCAL / "kafka-clients" / "venv" / "bin" / "python"
NODE_MODULES = LOCAL / "kafka-clients" / "node" / "node_modules"


def java_command():
    jars = class_path(ROOT / "scripts" / "kafka-clients" / "pom.xml", "kafka")
    # The suite's own lines are on standard output; what a client logs as a warning is part of many behaviours.
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"
    options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx768m", quiet]
    return [java(), *options, "-cp", f"{compiled(jars)}:{jars}", "conformance.Main"]


def compiled(jars):
    """The folder of the classes, compiled again when a source or the class path changes."""
    sources = sorted((HERE / "java" / "conformance").glob("*.java"))
    stamp = hashlib.sha256(jars.encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    root = LOCAL / "kafka-clients" / "classes"
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = root / stamp
        if not folder.exists():
            fresh = root / "new"
            shutil.rmtree(fresh, ignore_errors=True)
            command = [from_jdk("javac"), "-nowarn", "-d", fresh, "-cp", jars, *sources]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode != 0:
                raise Failure(f"the Java part of the suite does not compile:\n{done.stdout[-4000:]}")
            fresh.rename(folder)
    return folder


def python_command(script, interpreter):
    if not Path(interpreter).exists():
        raise Failure("the clients for Python are not installed; run `make setup`")
    return [interpreter, "-B", HERE / "python" / script]


def node_command():
    if not NODE_MODULES.exists():
        raise Failure("the clients for Node.js are not installed; run `make setup-conformance`")
    return ["node", HERE / "node" / "kafkajs_behaviours.js"]


def command(client):
    return {
        "java": java_command,
        "tools": lambda: python_command("tools.py", sys.executable),
        "confluent": lambda: python_command("confluent_behaviours.py", VENV_PYTHON),
        "kcat": lambda: python_command("kcat.py", sys.executable),
        "aiokafka": lambda: python_command("aiokafka_behaviours.py", VENV_PYTHON),
        "kafkajs": node_command,
    }[client]()


def run(client, bootstrap, only, show):
    """Results of the behaviours in `only`, or of all if that is None; what did not end is a failure."""
    words = [*command(client), bootstrap, *([",".join(only)] if only is not None else [])]
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES), "KAFKAJS_NO_PARTITIONER_WARNING": "1"}
    with open(LOCAL / "kafka-clients" / f"{client}-{os.getpid()}.log", "w+") as log:
        os.unlink(log.name)
        process = children.start(words, stderr=log, env=environment)
        timer = threading.Timer(SECONDS_EACH, end, [process])
        timer.start()
        try:
            plan, results = read(process.stdout, show)
            process.wait()
        finally:
            timer.cancel()
            end(process)
            process.wait()
        log.seek(0)
        last_words = log.read()[-600:]
    if plan is None:
        raise Failure(f"the client {client} did not begin ({process.returncode}): {last_words}")
    done = {result["behaviour"] for result in results}
    for behaviour in [*plan, *(only or [])]:
        if behaviour not in done:
            done.add(behaviour)
            detail = f"the client ended before it was done ({process.returncode}): {last_words}"
            missing = {"client": client, "behaviour": behaviour, "outcome": "fail", "seconds": 0, "detail": detail}
            show(missing)
            results.append(missing)
    return results


def read(lines, show):
    plan, results = None, []
    for line in lines:
        said = json.loads(line)
        if "plan" in said:
            plan = said["plan"]
        else:
            results.append(said)
            show(said)
    return plan, results


def end(process):
    """Kills the client and all that it started."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        pass
