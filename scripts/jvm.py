"""What the scripts that start JVMs share: the java command, and class paths as Maven resolves them."""

import fcntl
import hashlib
import os
import shutil
import subprocess

from daemons import LOCAL, Failure, say


def java():
    return from_jdk("java")


def from_jdk(name):
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(name, path=f"{home}/bin" if home else None)
    if not found:
        raise Failure(f"there is no {name}; run `make setup`")
    return found


def class_path(pom, name):
    """The class path of a pom, asked of Maven once and kept in `.local/NAME` until the pom changes."""
    kept = LOCAL / name / f"classpath-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists() or not all(map(os.path.exists, kept.read_text().split(":"))):
            fetch_jars(pom, name, kept)
    return kept.read_text()


def fetch_jars(pom, name, kept):
    if not shutil.which("mvn"):
        raise Failure("there is no mvn to fetch jars with; run `make setup`")
    say(f"fetching the jars for {name} with Maven (once)")
    fresh = kept.with_suffix(".new")
    command = ["mvn", "-B", "-q", "-f", pom, "dependency:build-classpath"]
    options = ["-DincludeScope=runtime", f"-Dmdep.outputFile={fresh}"]
    maven = subprocess.run(command + options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if maven.returncode != 0:
        raise Failure(f"Maven could not fetch the jars for {name}:\n{maven.stdout}")
    os.replace(fresh, kept)
