"""Processes that do not outlive the one that started them, however that ends."""

import ctypes
import signal
import subprocess

PR_SET_PDEATHSIG = 1

# Loaded before any fork, after which as little as possible is to happen.
LIBC = ctypes.CDLL(None, use_errno=True)


def start(words, **options):
    """As `subprocess.Popen`, with nothing to read, text as output, and a session of its own."""
    return subprocess.Popen(
        list(map(str, words)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), **options,
    )
