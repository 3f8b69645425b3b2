"""A tracker whose store may be slow or gone, in a thread of its own, so that training never waits for it."""

from __future__ import annotations

import threading
import time as clock
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ligo_dist.heartbeat import beat
from ligo_dist.redaction import redact

from .failures import OutOfReach, Unusable
from .protocol import Status, Tracker

Call = Callable[[], None]

_LAST_ATTEMPT_SECONDS = 10.0
"""How long `close` waits for a store that has not answered."""
_UPLOAD_BYTES_PER_SECOND = 10e6
"""What a model to be registered is expected to be sent with, at least: `close` waits so much longer for it."""


class BufferingTracker(Tracker, Protocol):
    """A tracker that may raise, and keeps metrics back until `flush`."""

    def flush(self) -> None:
        """Send the metrics kept back; may be called again after it raised."""
        ...


class BackgroundTracker:
    """Makes the calls of another tracker in a thread, in their order.

    While the store is out of reach (`OutOfReach`) the circuit is open: the same call is tried again after a
    pause that grows with the number of failures, and the calls after it wait in memory. A store that comes
    back thus misses nothing. A call that raises anything else is skipped.

    Args:
        inner: the tracker that does the work; used by the thread alone.
        name: what messages call the store.
        warn: takes the messages, from any thread. Each fault is reported once.
        remedy: the command that delivers what was not recorded, for the messages.
        capacity: calls that may wait; further records of metrics are dropped.
        close_seconds: how long `close` waits for a store that answers; one that does not gets a last attempt.
        pauses: seconds to wait after the first, second, ... failure in a row.
    """

    def __init__(
        self,
        inner: BufferingTracker,
        name: str,
        warn: Callable[[str], None],
        remedy: str,
        capacity: int = 20_000,
        close_seconds: float = 60.0,
        pauses: tuple[float, ...] = (1.0, 5.0, 30.0, 120.0),
    ) -> None:
        self._inner, self._name, self._warn, self._remedy = inner, name, warn, remedy
        self._capacity, self._close_seconds, self._pauses = capacity, close_seconds, pauses
        self._calls: deque[Call] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._usable = True
        self._failures = 0  # in a row
        self._complete = True  # nothing was dropped or refused
        self._reported: set[str] = set()
        self._thread = threading.Thread(target=self._work, name=f"{name} tracker", daemon=True)
        self._thread.start()

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._put(partial(self._inner.start_run, name, dict(parameters), dict(tags)))

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._put(partial(self._inner.start_stage, stage, dict(parameters)))

    def start_phase(self, phase: str) -> None:
        self._put(partial(self._inner.start_phase, phase))

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        if len(self._calls) >= self._capacity:
            self._complete = False
        else:
            self._put(partial(self._inner.log, dict(metrics), step, clock.time() if time is None else time))

    def artifact(self, content: Path | str, name: str) -> None:
        self._put(partial(self._inner.artifact, content, name))

    def register_model(self, name: str, directory: Path) -> None:
        size = sum(file.stat().st_size for file in directory.rglob("*"))
        self._close_seconds += size / _UPLOAD_BYTES_PER_SECOND
        self._put(partial(self._inner.register_model, name, directory))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._put(partial(self._inner.set_tags, dict(tags)))

    def end_stage(self, status: Status = "FINISHED") -> None:
        self._put(partial(self._inner.end_stage, status))

    def close(self, status: Status = "FINISHED") -> None:
        if self._closing.is_set():
            return
        self._put(partial(self._inner.close, status))
        self._closing.set()
        with self._changed:
            self._changed.notify()
        patience = min(self._close_seconds, _LAST_ATTEMPT_SECONDS)
        self._wait(patience)
        if not self._failures:
            self._wait(self._close_seconds - patience)
        if self._usable and (self._thread.is_alive() or self._calls or not self._complete):
            self._report(
                "close", f"not everything of this run was recorded; {self._remedy} delivers the rest"
            )

    def _wait(self, seconds: float) -> None:
        """Wait for the thread to end, showing meanwhile that this rank does not hang."""
        deadline = clock.monotonic() + seconds
        while self._thread.is_alive() and (left := deadline - clock.monotonic()) > 0:
            beat(f"recording the rest in {self._name}")
            self._thread.join(min(left, 1.0))

    def _put(self, call: Call) -> None:
        with self._changed:
            if self._usable and not self._closing.is_set():
                self._calls.append(call)
                self._changed.notify()

    def _work(self) -> None:
        since_flush = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._closing.is_set())
                if not self._calls:
                    return
                call = self._calls[0]
            if not self._make(call):
                return
            self._calls.popleft()
            since_flush += 1
            if not self._calls or since_flush >= 200:
                since_flush = 0
                if not self._make(self._inner.flush):
                    return

    def _make(self, call: Call) -> bool:
        """Make a call until it succeeds or is refused; False if it is no use to go on."""
        while True:
            try:
                call()
            except Unusable as error:
                self._usable = False
                self._calls.clear()
                place = f"this run is recorded in its directory only; {self._remedy} delivers it"
                self._report("unusable", f"{error}; {place}")
                return False
            except OutOfReach as error:
                self._failures += 1
                plan = f"trying again now and then; if it stays away, {self._remedy} delivers the rest"
                self._report("out of reach", f"{error}; going on and {plan}")
                if self._closing.is_set():
                    return False
                self._closing.wait(self._pauses[min(self._failures, len(self._pauses)) - 1])
            except Exception as error:  # whatever a store's client may raise
                message = redact(str(error) or repr(error))
                self._complete = False
                self._report(message, f"{message}; going on without it")
                return True
            else:
                if self._failures:
                    self._failures = 0
                    self._report("back", "answers again")
                return True

    def _report(self, fault: str, message: str) -> None:
        if fault not in self._reported:
            self._reported.add(fault)
            self._warn(f"{self._name}: {message}")
