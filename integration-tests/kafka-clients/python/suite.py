"""Named behaviours of one client, run some at a time, each within its own time; a line of JSON for each.

A behaviour is a function of the bootstrap addresses that returns when it holds and throws when it does
not; it has topics and groups of its own.
"""

import asyncio
import concurrent.futures
import inspect
import json
import os
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path

# Most of a behaviour's time is waiting.
AT_ONCE = 4
SECONDS_EACH = 100

SOON_SECONDS = 30


class Failed(Exception):
    """An expectation that does not hold."""


class Suite:
    def __init__(self, client, seconds_each=SECONDS_EACH):
        self.client = client
        self.seconds_each = seconds_each
        self.bodies = {}
        self.saying = threading.Lock()

    def add(self, behaviour, body):
        if behaviour in self.bodies:
            raise ValueError(f"{behaviour} is there twice")
        self.bodies[behaviour] = body

    def behaviour(self, name, *arguments):
        """A decorator; `arguments` go to the body after the bootstrap addresses."""

        def register(body):
            self.add(name, lambda bootstrap: body(bootstrap, *arguments))
            return body

        return register

    def main(self):
        """The arguments are the bootstrap addresses, and the behaviours to run if not all."""
        bootstrap = sys.argv[1]
        only = sys.argv[2].split(",") if len(sys.argv) > 2 and sys.argv[2] else list(self.bodies)
        names = [name for name in self.bodies if name in only]
        self.say(plan=names)
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as outer:
            inner = concurrent.futures.ThreadPoolExecutor(len(names) or 1)
            for done in [outer.submit(self.run_one, inner, name, bootstrap) for name in names]:
                done.result()
        # Threads that a behaviour left behind when its time was up must not keep the process.
        sys.stdout.flush()
        os._exit(0)

    def run_one(self, inner, name, bootstrap):
        begun = time.monotonic()
        running = inner.submit(self.call, self.bodies[name], bootstrap)
        concurrent.futures.wait([running], self.seconds_each)
        if not running.done():
            outcome, detail = "fail", f"not done after {self.seconds_each} s"
        elif failure := running.exception():
            outcome, detail = "fail", describe(failure)
        else:
            outcome, detail = "pass", ""
        seconds = round(time.monotonic() - begun, 1)
        self.say(behaviour=name, outcome=outcome, seconds=seconds, detail=detail)

    def call(self, body, bootstrap):
        answer = body(bootstrap)
        if inspect.isawaitable(answer):
            asyncio.run(asyncio.wait_for(answer, self.seconds_each))

    def say(self, **fields):
        line = json.dumps({"client": self.client, **fields}) + "\n"
        with self.saying:
            sys.stdout.write(line)
            sys.stdout.flush()


def describe(failure):
    """The message, and the line of this suite that saw it."""
    kind = "" if isinstance(failure, Failed) else f"{type(failure).__name__}: "
    ours = [
        frame
        for frame in traceback.extract_tb(failure.__traceback__)
        if Path(frame.filename).parent == Path(__file__).parent and Path(frame.filename).name != "suite.py"
    ]
    where = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    return f"{kind}{failure}{where}"[:1000]


def unique(hint):
    """A name that nothing else has."""
    return f"{hint}-{uuid.uuid4().hex[:8]}"


def that(holds, what):
    if not holds:
        raise Failed(what)


def equal(expected, found, what):
    if expected != found:
        raise Failed(f"{what}: expected {shortened(expected)}, found {shortened(found)}")


def shortened(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}…"


def eventually(holds, what, seconds=SOON_SECONDS):
    """Waits for what comes about at a time that nobody tells. `what` may be a function."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.05)


async def eventually_async(holds, what, seconds=SOON_SECONDS):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.05)


def numbered(prefix, count, start=0):
    return [f"{prefix}{index}" for index in range(start, count)]
