"""What stops a rank: signals, and what the watch sees; and what that does to it.

SIGTERM, SIGUSR1 and SIGHUP ask politely, and so does the end of the parent: once training has begun they are noted, and
heeded after the step. Before that there is nothing to save, and the process ends at once, as it always does at SIGINT.

At once means wherever the process is. Python calls a handler when its main thread comes round to it, and that may be
waiting in a collective for ranks that never come. So a thread reads the signals from a pipe, and ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from types import FrameType
from typing import Any

from ligo_dist.runtime import heartbeat, parent, watchdog
from ligo_dist.runtime.console import tell
from ligo_dist.runtime.errors import INTERRUPTED, REQUEUE

POLITE = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
HEEDED = (signal.SIGINT, *POLITE, *filter(None, [parent.SIGNAL]))


_END_SECONDS = 20.0
"""How long what is done before an end may take: a tracking server may not answer."""


class StopReason(IntEnum):
    """Why a run stops before its end. The ranks agree on the largest number that one of them has."""

    SIGHUP = signal.SIGHUP
    SIGINT = signal.SIGINT
    SIGUSR1 = signal.SIGUSR1
    SIGTERM = signal.SIGTERM
    REQUESTED = 101
    LAUNCHER_GONE = 102
    PARENT_GONE = 103

    @property
    def words(self) -> str:
        """For a message: `SIGTERM`, `a request to stop`."""
        return _WORDS.get(self, self.name)


_WORDS = {
    StopReason.REQUESTED: "a request to stop",
    StopReason.LAUNCHER_GONE: "losing its launcher",
    StopReason.PARENT_GONE: "losing the process that started it",
}


class StopSignals:
    """Heeds the signals while it is entered; in the main thread alone. One that is ignored (by `nohup`, or by a shell
    that runs the process in the background) stays so. A forked process does not heed them.

    Attributes:
        requested: why the run is to stop after the step; None: it is not.
    """

    def __init__(self) -> None:
        self.requested: StopReason | None = None
        self._deferred = False
        self._ending: StopReason | None = None
        self._before_end: Callable[[str], None] = lambda reason: None
        self._handlers: dict[int, Any] = {}
        self._end_lock = threading.Lock()
        self._pipe: tuple[int, int] | None = None
        self._former_descriptor = -1

    def __enter__(self) -> StopSignals:
        self._pipe = reading, writing = os.pipe()
        os.set_blocking(writing, False)
        threading.Thread(target=self._watch, args=(reading,), name="stop signals", daemon=True).start()
        self._former_descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for signum in HEEDED:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._handlers[signum] = signal.signal(signum, self._handle)
        os.register_at_fork(after_in_child=self._stop_heeding)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_heeding()

    def defer(self) -> None:
        """There is something to save: from now on what is asked politely waits for the end of a step."""
        self._deferred = True

    def before_end(self, action: Callable[[str], None]) -> None:
        """Have something done with the reason, in another thread, before the process ends at once."""
        self._before_end = action

    def ask(self, reason: StopReason, within_seconds: float | None = None) -> None:
        """Have the run stop, from any thread but the main one: after the step, or where there is nothing to save and at
        SIGINT at once.

        Args:
            reason: why.
            within_seconds: the rank is ended after so long, whatever it is at; None: it may take its time.
        """
        self._note(reason)
        if within_seconds is not None:
            heartbeat.limit(within_seconds)
        if self._ending is not None:
            self._end(self._ending)

    def wait_if_ending(self) -> None:
        """Never return if this process is being ended. Then the other ranks are leaving too, and what breaks here
        for want of them is of no interest."""
        if self._ending is not None:
            threading.Event().wait()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum != parent.SIGNAL:  # the thread finds out what that means
            self._note(StopReason(signum))

    def _note(self, reason: StopReason) -> None:
        if self.requested is None and self._ending is None:
            watchdog.tell(asked=reason.name)
        if reason != signal.SIGINT and self._deferred:
            self.requested = self.requested or reason
        else:
            self._ending = self._ending or reason

    def _watch(self, reading: int) -> None:
        """Read the numbers of signals as they come, until the pipe is closed."""
        with open(reading, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                if number[0] == parent.SIGNAL:
                    if parent.is_going():
                        self.ask(StopReason.PARENT_GONE)
                elif number[0] in self._handlers:
                    self.ask(StopReason(number[0]))

    def _end(self, by: StopReason) -> None:
        self._end_lock.acquire()  # for good: once is enough
        heartbeat.limit(_END_SECONDS)
        code, reason = INTERRUPTED, "interrupted"
        if by != signal.SIGINT:
            code, reason = REQUEUE, f"stopped by {by.words} before training; the same command goes on"
            tell(reason)
        watchdog.tell(code=code)
        try:
            self._before_end(reason)
            sys.stdout.flush()
        finally:
            os._exit(code)

    def _stop_heeding(self) -> None:
        if self._pipe is None:
            return
        for signum, former in self._handlers.items():
            signal.signal(signum, former)
        signal.set_wakeup_fd(self._former_descriptor)
        os.close(self._pipe[1])
        self._pipe = None
