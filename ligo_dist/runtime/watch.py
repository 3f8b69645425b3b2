"""A thread of each rank that looks at what may ask it to stop, beside the training and whatever that does."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from ligo_dist.runtime import parent
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.runtime.signals import StopReason, StopSignals

SECONDS = 1.0
"""Between two looks."""


class Watch:
    """Looks, once it is started, until it is closed.

    - Has the process that started this rank gone? Then nobody would end it any more.
    - On one rank of each node: is there a request to stop in the run directory? Does the launcher ask for something,
      and does it still count? Its number is looked at, not the time of a file, and judged by this machine's clock:
      nodes agree on neither.

    Args:
        signals: what is told.
        lost_seconds: a launcher that does not count for so long has gone.
        grace_seconds: how long the rank has to write its checkpoint where nobody is left who would end it.
        leads: whether this rank looks at the files, for its node.
        launch: where a launcher that supervises is heard; None: nobody does.
    """

    def __init__(
        self,
        signals: StopSignals,
        *,
        lost_seconds: float,
        grace_seconds: float,
        leads: bool,
        launch: LaunchDirectory | None = None,
    ) -> None:
        self._signals, self._lost_seconds, self._grace_seconds = signals, lost_seconds, grace_seconds
        self._leads, self._launch = leads, launch
        self._stop_file: Path | None = None
        self._heard: tuple[str | None, float] = (
            None,
            time.monotonic(),
        )  # the launcher's number, and since when
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(2 * SECONDS)  # a file system may not answer

    def heed(self, stop_file: Path) -> None:
        """From now on, this file in the run directory is a request to stop."""
        self._stop_file = stop_file

    def look(self) -> None:
        """Look at everything once."""
        if parent.has_gone():
            self._signals.ask(StopReason.PARENT_GONE, self._grace_seconds)
        if not self._leads:
            return
        if self._stop_file is not None and os.path.exists(self._stop_file):
            self._signals.ask(StopReason.REQUESTED)
        if self._launch is not None:
            self._listen(self._launch)

    def _listen(self, launch: LaunchDirectory) -> None:
        order = launch.asked()
        if order is not None:
            self._signals.ask(StopReason.REQUESTED if order == "preempt" else StopReason(signal.SIGINT))
        number, now = launch.counted(), time.monotonic()
        if number is not None and number != self._heard[0]:
            self._heard = (number, now)
        elif now - self._heard[1] > self._lost_seconds:
            self._signals.ask(StopReason.LAUNCHER_GONE, self._grace_seconds)

    def _run(self) -> None:
        while not self._closed.wait(SECONDS):
            self.look()
