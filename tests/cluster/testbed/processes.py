"""Processes of the machine: which they are, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def marked(marker: str) -> set[int]:
    """Ids of all processes, zombies aside, whose environment holds `marker`, a `NAME=value`.

    The environment is the one a process was started with.
    """
    wanted = marker.encode()
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        # A process may end while it is looked at, and the machine's first one may be hidden even from root.
        # A zombie's environment is empty.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if wanted in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return found


def signal_all(pids: set[int], signum: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def kill(pids: set[int], seconds: float = 10.0) -> None:
    """SIGKILL, and wait until none of them runs any longer.

    Raises:
        TimeoutError: after `seconds`.
    """
    signal_all(pids, signal.SIGKILL)
    deadline = time.monotonic() + seconds
    while left := sorted(filter(is_alive, pids)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} outlive SIGKILL by {seconds:g} s")
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
