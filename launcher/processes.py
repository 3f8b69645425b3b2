"""Runs a command so that none of its processes outlives it, whatever ends it.

The `deepspeed` runner does not pass SIGTERM on, and its ranks live on when it dies. So the command gets a
process group of its own, a signal to us goes to the whole group, and we leave only when the group is empty.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1


def run_in_group(argv: Sequence[str], environ: Mapping[str, str], grace_seconds: float = 45.0) -> int:
    """Run a command to its end and give its exit code, as a shell would: 128 + the signal where one ended it.

    SIGINT, SIGTERM and SIGHUP to this process become SIGTERM to the command's whole group, and the code says
    so; what is left of the group after `grace_seconds`, or at a second signal, is killed.
    """
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    # The handlers come first: a signal between start and handler would leave the group behind.
    with _handlers(note):
        process = subprocess.Popen(argv, env=dict(environ), process_group=0)
        while process.poll() is None and not received:
            time.sleep(_POLL_SECONDS)
        _end_group(process, grace_seconds, received)
    if received:
        return 128 + received[0]
    code = process.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that are not ignored (`nohup` ignores SIGHUP, and means it)."""
    heeded = [signum for signum in _FORWARDED if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, handler) for signum in heeded}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)


def _end_group(process: subprocess.Popen[bytes], grace_seconds: float, received: list[int]) -> None:
    """End what lives in the process group: politely, then by force."""
    group, deadline, signals = process.pid, time.monotonic() + grace_seconds, len(received)
    _signal_group(group, signal.SIGTERM)
    while process.poll() is None or _lives(group):
        if time.monotonic() > deadline or len(received) > max(1, signals):
            _signal_group(group, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _signal_group(group: int, signum: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signum)


def _lives(group: int) -> bool:
    """Whether a process of the group runs; one that has ended and that nobody has waited for does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(_runs_in(group, process) for process in psutil.process_iter())


def _runs_in(group: int, process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False
