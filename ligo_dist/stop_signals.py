"""The signals that stop a rank, and what they do to it.

SIGTERM and SIGUSR1 are asked for politely: once training has begun they are noted, and heeded after the step. Before
that there is nothing to save, and the process ends at once, as it always does at SIGINT.

At once means wherever the process is. Python calls a handler when its main thread comes round to it, and that may be
waiting in a collective for ranks that never come. So a thread reads the signals from a pipe, and ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from ligo_dist.exit_codes import INTERRUPTED, REQUEUE
from ligo_dist.reporting import tell

POLITE = (signal.SIGTERM, signal.SIGUSR1)
HEEDED = (signal.SIGINT, *POLITE)


class StopSignals:
    """Heeds the signals while it is entered; in the main thread alone. One that is ignored (by `nohup`, or by a shell
    that runs the process in the background) stays so. A forked process does not heed them.

    Attributes:
        requested: the signal that asks the run to stop after the step; None: none has come.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._deferred = False
        self._ending: signal.Signals | None = None
        self._before_end: Callable[[str], None] = lambda reason: None
        self._handlers: dict[signal.Signals, Any] = {}
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
        """There is something to save: from now on SIGTERM and SIGUSR1 wait for the end of a step."""
        self._deferred = True

    def before_end(self, action: Callable[[str], None]) -> None:
        """Have something done with the reason, in another thread, before a signal ends the process at once."""
        self._before_end = action

    def wait_if_ending(self) -> None:
        """Never return if a signal is ending this process. Then the other ranks are leaving too, and what breaks here
        for want of them is of no interest."""
        if self._ending is not None:
            threading.Event().wait()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._note(signum)

    def _note(self, signum: int) -> None:
        if signum not in self._handlers:
            return
        if signum in POLITE and self._deferred:
            self.requested = self.requested or signal.Signals(signum)
        else:
            self._ending = self._ending or signal.Signals(signum)

    def _watch(self, reading: int) -> None:
        """Read the numbers of signals as they come, until the pipe is closed."""
        with open(reading, "rb", buffering=0) as pipe:
            while number := pipe.read(1):
                self._note(number[0])
                if self._ending is not None:
                    self._end(self._ending)

    def _end(self, by: signal.Signals) -> None:
        code, reason = INTERRUPTED, "interrupted"
        if by != signal.SIGINT:
            code, reason = REQUEUE, f"stopped by {by.name} before training; the same command goes on"
            tell(reason)
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
