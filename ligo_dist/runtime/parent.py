"""The process that has started this rank, without which it does not go on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

SIGNAL: int = signal.SIGRTMIN + 3 if hasattr(signal, "SIGRTMIN") else 0
"""By which the system (Linux) says that a thread of the parent has ended: no one else sends it. 0: there is none."""

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h
_LAST_SECONDS = 1.0
"""How long the other threads of a parent that is killed take to end."""

_parent: int | None = None
"""None: this process is nobody's rank, and outlives the shell that a person has typed it into."""


def stop_without_it() -> None:
    """Have the system send this process `SIGNAL` when the parent's thread that started it ends, however that ends. On
    other systems than Linux `has_gone` alone tells."""
    global _parent
    _parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, SIGNAL)


def end_with_it() -> None:
    """Have the system kill this process when the parent's thread that started it ends. On other systems than Linux it
    outlives that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def has_gone() -> bool:
    """Whether it has ended."""
    return _parent not in (None, os.getppid())


def is_going() -> bool:
    """Whether it has ended, or is ending: the signal may come while other threads of it are still there, and a thread
    may end by itself."""
    deadline = time.monotonic() + _LAST_SECONDS
    while not has_gone() and time.monotonic() < deadline:
        time.sleep(0.01)
    return has_gone()
