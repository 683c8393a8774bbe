"""Daemons that outlive the command that starts them: a lock, a state file, processes known by more
than their number, free ports.

Invariants: the state file changes only under the folder's lock and by an atomic rename; a signal is
sent only to a process whose number, start time and command line are those that were recorded.
"""

import contextlib
import fcntl
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"

STATE_FILE = "cluster.json"

# Below the range from which the kernel takes the ports of outgoing connections: the port of a daemon
# that was killed must still be free when it is started again.
PORTS = range(20000, 30000)

POLL_SECONDS = 0.05


class Failure(Exception):
    """Something that the caller is told in one sentence, without a stack trace."""


def say(message):
    """Progress goes to standard error; standard output is for the answer."""
    print(message, file=sys.stderr, flush=True)


def main(run):
    """Runs a script and turns a failure into a message and an exit code."""
    try:
        sys.exit(run())
    except Failure as failure:
        say(f"{Path(sys.argv[0]).name}: {failure}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class Cluster:
    """The daemons of one folder. To be used as a context manager, which holds the folder's lock."""

    def __init__(self, folder, create=False):
        self.folder = Path(folder).resolve()
        if create:
            self.folder.mkdir(parents=True, exist_ok=True)
        if not self.folder.is_dir():
            raise Failure(f"nothing was started in {self.folder}")
        self.state = None

    def __enter__(self):
        self._lock = open(self.folder / "lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        path = self.folder / STATE_FILE
        self.state = json.loads(path.read_text()) if path.exists() else None
        return self

    def __exit__(self, *_):
        self._lock.close()

    def save(self):
        path = self.folder / STATE_FILE
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self.state, indent=2) + "\n")
        os.replace(fresh, path)

    def require_state(self):
        if self.state is None:
            raise Failure(f"nothing was started in {self.folder}")
        return self.state

    def start(self, daemon, command, environment=None):
        """Starts what `daemon` (a part of the state) describes, and records it at once."""
        log = open(daemon["log"], "ab")
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            # A Ctrl-C at the terminal is meant for the command, not for the daemons.
            start_new_session=True,
        )
        log.close()
        daemon["pid"] = process.pid
        daemon["started"] = process_stat(process.pid)[1]
        self.save()
        # For a moment in its exec a process has no command line, by which it is recognised from here on.
        wait_until(lambda: process.poll() is not None or self.is_running(daemon), 10, f"{daemon['name']} to begin")

    def is_running(self, daemon):
        return self.process_state(daemon) is not None

    def process_state(self, daemon):
        """The kernel's letter for the process ("T" is stopped), or None if it has ended."""
        pid = daemon.get("pid")
        if pid is None:
            return None
        try:
            letter, started = process_stat(pid)
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        ours = started == daemon["started"] and os.fsencode(self.folder) in command
        return letter if ours and letter not in "ZX" else None

    def signal(self, daemon, number):
        """Sends a signal; fails when the daemon does not run."""
        if not self.is_running(daemon):
            raise Failure(f"{daemon['name']} does not run")
        os.kill(daemon["pid"], number)

    def kill(self, daemon):
        self.signal(daemon, signal.SIGKILL)
        wait_until(lambda: not self.is_running(daemon), 30, f"{daemon['name']} to be gone")

    def pause(self, daemon):
        self.signal(daemon, signal.SIGSTOP)
        wait_until(lambda: self.process_state(daemon) in (None, "T"), 10, f"{daemon['name']} to stop")

    def resume(self, daemon):
        self.signal(daemon, signal.SIGCONT)

    def stop_all(self, daemons, at_once):
        """Ends the daemons, in order if there is time for it, and by force after ten seconds."""
        running = [daemon for daemon in daemons if self.is_running(daemon)]
        for daemon in running:
            with contextlib.suppress(Failure, ProcessLookupError):
                self.signal(daemon, signal.SIGKILL if at_once else signal.SIGTERM)
                self.signal(daemon, signal.SIGCONT)
        with contextlib.suppress(Failure):
            wait_until(lambda: not any(map(self.is_running, running)), 10, "the daemons to end")
        for daemon in filter(self.is_running, running):
            self.kill(daemon)

    def delete(self):
        shutil.rmtree(self.folder)

    def require_running(self, daemon):
        """Fails with the end of the log when a daemon that should run has ended."""
        if not self.is_running(daemon):
            lines = Path(daemon["log"]).read_text(errors="replace").splitlines()[-15:]
            raise Failure(f"{daemon['name']} has ended; its log closes with\n" + "\n".join(lines))


def process_stat(pid):
    """The state letter and the start time in clock ticks since the machine's start."""
    text = Path(f"/proc/{pid}/stat").read_text()
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])


def wait_until(condition, seconds, what):
    """Polls until `condition()` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s in vain for {what}")
        time.sleep(POLL_SECONDS)


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count, preferred=None):
    """Different free ports; the first is `preferred` if that is free."""
    chosen = [preferred] if preferred and is_free(preferred) else []
    # At random, so that clusters that start at the same moment do not look at the same ports.
    for port in random.sample(PORTS, len(PORTS)):
        if len(chosen) == count:
            return chosen
        if is_free(port):
            chosen.append(port)
    raise Failure(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def start_guard(cluster, owner):
    """Starts a process that takes the cluster down and deletes it once the process `owner` has ended.

    So a test that is killed leaves no daemons behind.
    """
    cluster.state["guard"] = {"name": "guard", "log": str(cluster.folder / "guard.log")}
    script = Path(sys.argv[0]).resolve()
    command = [sys.executable, script, "guard", "--owner", owner, "--dir", cluster.folder]
    cluster.start(cluster.state["guard"], command)


def wait_for_end(pid):
    """Returns when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([descriptor], [], [])
    os.close(descriptor)
