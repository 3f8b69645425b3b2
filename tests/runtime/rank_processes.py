"""Processes that play a rank, for what only a real one shows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

BLOCK = """
import ctypes
mutexes = []
def block(library=ctypes.CDLL):
    mutexes.append(ctypes.create_string_buffer(64))
    lock = library(None).pthread_mutex_lock
    for _ in range(2):
        lock(mutexes[-1])
"""
"""Defines `block`, which never comes back from C: a mutex that is locked twice is not interrupted, unlike a read or a
sleep. With `ctypes.PyDLL` it holds the interpreter's lock meanwhile."""


class Clock:
    """Stands in for `time.monotonic`; its time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    @property
    def module(self) -> SimpleNamespace:
        """In the place of `time` in a module that is tested: the threads of others keep theirs."""
        return SimpleNamespace(monotonic=self)


def start_python(code: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    """Start a script, with nothing in its environment that makes it a rank unless it is given."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], **environ},
    )


@contextmanager
def running(code: str, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The same, once it has said `ready`; killed at the end, if it still runs."""
    with start_python(code, *arguments, **environ) as started:
        try:
            assert read_line(started) == "ready"
            yield started
        finally:
            started.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    """A line of standard output, and no byte beyond: what follows is for `communicate`."""
    assert process.stdout is not None
    line = b""
    while (byte := os.read(process.stdout.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)
