"""A sign of life: a file that says where this rank is, and whose time says when it last got on.

Whoever started the rank names the file in LIGO_DIST_HEARTBEAT, and may take a rank that does not beat for long for one
that hangs. Without the variable nothing is written; what the rank is at is kept all the same, for `where`.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

FILE_VARIABLE = "LIGO_DIST_HEARTBEAT"
SECONDS = 1.0
"""Between two writes, at least."""

_LINE_BYTES = 160
"""Every line is as long, so that one write replaces it."""


@dataclass
class _Heart:
    """What is known of this process.

    Attributes:
        place: stage and phase.
        doing: what is done there.
        file: that is written; None: none.
        written: when it last was, by the monotonic clock.
    """

    place: str = "start"
    doing: str = ""
    file: str | None = None
    written: float = -math.inf


_HEART = _Heart()


def start() -> None:
    """The ranks have met: from now on there is a file, where one is asked for."""
    _HEART.file, _HEART.written = os.environ.get(FILE_VARIABLE) or None, -math.inf
    beat(_HEART.doing)


def enter(place: str) -> None:
    """Begin something: what is told to `beat` belongs to it."""
    _HEART.place = place
    beat("")


def beat(where: str) -> None:
    """This rank gets on: with which step, which tensor. Cheap enough for a micro-batch, and never raises."""
    # That a thread beside it gets on says nothing about the rank.
    if threading.current_thread() is not threading.main_thread():
        return
    _HEART.doing = where
    now = time.monotonic()
    if _HEART.file is not None and now - _HEART.written >= SECONDS:
        _HEART.written = now
        with suppress(OSError):
            _write(_HEART.file)


def beating(items: Iterable[T], where: str) -> Iterator[T]:
    """The same items; each that is taken is a beat."""
    for item in items:
        beat(where)
        yield item


def where() -> str:
    """What this rank is at: `medium learn step 17`."""
    return f"{_HEART.place} {_HEART.doing}".strip()


def _write(path: str) -> None:
    line = where().encode(errors="replace")[: _LINE_BYTES - 1].ljust(_LINE_BYTES - 1) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, line, 0)
    finally:
        os.close(descriptor)
