"""A sign of life: what this rank is at, and when it last got on.

Once the ranks have met, a rank that does not beat for long hangs: it is ended by a timer of the interpreter that runs
whatever the threads of Python do or hold, and that leaves the stack of each of them on standard error.
"""

from __future__ import annotations

import faulthandler
import math
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ligo_dist.runtime import watchdog

T = TypeVar("T")

SECONDS = 1.0
"""Between two beats that count, at least."""


@dataclass
class _Heart:
    """What is known of this process.

    Attributes:
        place: stage and phase.
        doing: what is done there.
        kept: whether that stays as it is.
        hang_seconds: how long it may take until the next beat; infinite: for ever.
        counted: when a beat last counted, by the monotonic clock; 0: none has.
        deadline: when it is ended in any case.
    """

    place: str = "start"
    doing: str = ""
    kept: bool = False
    hang_seconds: float = math.inf
    counted: float = 0.0
    deadline: float = math.inf


_HEART = _Heart()

_STANDARD_ERROR = 2


def start(hang_seconds: float) -> None:
    """The ranks have met: from now on so long without a beat ends this one."""
    _HEART.counted, _HEART.hang_seconds = time.monotonic(), hang_seconds
    watchdog.tell(timed=True, doing=where())
    _set_timer(_HEART.counted)


def stop() -> None:
    """The work is done: nothing ends this rank any more."""
    _HEART.hang_seconds = _HEART.deadline = math.inf
    watchdog.tell(timed=False)
    faulthandler.cancel_dump_traceback_later()


def limit(seconds: float) -> None:
    """End this rank after so long, whatever it does meanwhile; an earlier limit stays. From any thread."""
    _HEART.deadline = min(_HEART.deadline, time.monotonic() + seconds)
    _set_timer(time.monotonic())


def enter(place: str) -> None:
    """Begin something: what is told to `beat` belongs to it. A beat that always counts."""
    if threading.current_thread() is threading.main_thread():
        _HEART.place, _HEART.doing, _HEART.kept = place, "", False
        _count(time.monotonic())


def beat(doing: str) -> None:
    """This rank gets on: with which step, which tensor. Cheap enough for a micro-batch, and never raises."""
    # That a thread beside it gets on says nothing about the rank.
    if threading.current_thread() is not threading.main_thread():
        return
    if not _HEART.kept:
        _HEART.doing = doing
    now = time.monotonic()
    if now - _HEART.counted >= SECONDS:
        _count(now)


def keep_place() -> None:
    """It has failed: until something else begins, `where` gives what it was at, whatever is told to `beat`."""
    _HEART.kept = True


def beating(items: Iterable[T], doing: str) -> Iterator[T]:
    """The same items; each that is taken is a beat."""
    for item in items:
        beat(doing)
        yield item


def where() -> str:
    """What this rank is at: `medium learn step 17`."""
    return f"{_HEART.place} {_HEART.doing}".strip()


def _count(now: float) -> None:
    _HEART.counted = now
    watchdog.tell(doing=where())
    _set_timer(now)


def _set_timer(now: float) -> None:
    seconds = min(_HEART.counted + _HEART.hang_seconds, _HEART.deadline) - now
    if seconds < math.inf:
        faulthandler.dump_traceback_later(max(seconds, 0.001), exit=True, file=_STANDARD_ERROR)
