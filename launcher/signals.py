"""Signals to the launcher, as what they ask for."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn

from ligo_dist.runtime.errors import REQUEUE
from ligo_dist.runtime.launch import Order

_ASKED: dict[int, Order] = {
    signal.SIGTERM: "preempt",
    signal.SIGUSR1: "preempt",
    signal.SIGHUP: "preempt",
    signal.SIGINT: "stop",
}


@contextmanager
def leave_when_warned() -> Iterator[None]:
    """As long as nothing runs, a warning ends the launcher with the code that asks to be started again: nothing is
    lost. `Signals` does better where there is something to stop."""
    warnings = [signum for signum, order in _ASKED.items() if order == "preempt"]
    heeded = [signum for signum in warnings if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, _leave) for signum in heeded}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Signals:
    """While entered, a signal is noted and does nothing else. The first says what is asked for; one more: `kill`.

    Those that are ignored stay so (`nohup` ignores SIGHUP, and means it). Where one is entered within another, both
    note what comes.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._before: dict[int, Any] = {}

    @property
    def order(self) -> Order | Literal["kill"] | None:
        """What is asked for; None as long as nothing is."""
        if not self.received:
            return None
        # Slurm repeats itself, and a terminal's SIGHUP comes on top of another: only insisting by hand kills.
        insisted = len(self.received) > 1 and self.received[-1] == signal.SIGINT
        return "kill" if insisted else _ASKED[self.received[0]]

    @property
    def exit_code(self) -> int:
        """Of a launcher that ends because of them."""
        return REQUEUE if self.order == "preempt" else 128 + self.received[0]

    def __enter__(self) -> Signals:
        heeded = [signum for signum in _ASKED if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, self._note) for signum in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self.received.append(signum)
        outer = getattr(self._before.get(signum), "__self__", None)
        if isinstance(outer, Signals):
            outer.received.append(signum)


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    print(f"ligo-dist: {signal.Signals(signum).name} before anything was started", file=sys.stderr)
    raise SystemExit(REQUEUE)
