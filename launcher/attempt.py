"""One attempt at a run: the agents of all nodes, from their start until the last one has ended or is given up."""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.agent import beat_seconds
from launcher.line_io import LineReader
from launcher.messages import Failure, Job, Order, order_line, read_event
from launcher.transports import Channel

_SETTLE_SECONDS = 1.0
"""How long further failures are waited for after the first: the one that was heard of first need not be the cause."""

_STOP_SECONDS = 20.0
"""How long agents may take to stop their ranks (ten seconds are theirs), and to say so."""

_KILL_SECONDS = 5.0
_START_SECONDS = 120.0
"""How long an agent may take to say its first word: a login, and python from a shared file system."""

_CONSEQUENCE = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|timed? ?out|remote process exited|socket",
    re.I,
)
"""What the other ranks say when one has gone."""


@dataclass
class Outcome:
    """What became of an attempt.

    Attributes:
        codes: exit code of each rank that is known to have ended.
        failures: in the order in which they were heard of.
        order: what was asked for from outside; None if nothing was.
    """

    codes: dict[int, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    order: Order | None = None

    @property
    def cause(self) -> Failure | None:
        """The failure that the others followed from, as far as can be told."""
        return min(self.failures, key=_rank_of_cause, default=None)


def _rank_of_cause(failure: Failure) -> int:
    if failure.rank is None:
        return 1
    if failure.code > 128:
        return 0 if "has not got on" not in failure.reason else 3
    return 4 if any(_CONSEQUENCE.search(line) for line in failure.tail[-8:]) else 2


class Attempt:
    """Talks to the agents until all is over.

    Args:
        job: what they run.
        channels: the agents, already started.
        asked: what the launcher has been asked for (a signal), None for nothing.
        show: takes each line that the first rank prints.
        note: takes what the connections themselves say.
    """

    def __init__(
        self,
        job: Job,
        channels: Sequence[Channel],
        asked: Callable[[], Order | None],
        show: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._job, self._channels, self._asked, self._show, self._note = job, channels, asked, show, note
        now = time.monotonic()
        nodes = [node for channel in channels for node in channel.nodes]
        self._open = set(nodes)  # nodes that have neither ended nor been given up
        self._patience = dict.fromkeys(nodes, now + max(_START_SECONDS, job.lost_seconds))
        self._said = now
        self._last_words: dict[int, str] = {}
        self._stop_at: float | None = None
        self._kill_at: float | None = None
        self._give_up_at: float | None = None
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Carry the attempt to its end."""
        with selectors.DefaultSelector() as selector:
            for channel in self._channels:
                selector.register(channel.events, selectors.EVENT_READ, (channel, True))
                selector.register(channel.noise, selectors.EVENT_READ, (channel, False))
                channel.send(self._job.to_line())
            while self._open:
                for key, _ in selector.select(0.1):
                    reader = key.fileobj
                    assert isinstance(reader, LineReader)
                    if not self._read(reader, *key.data):
                        selector.unregister(reader)
                self._act(time.monotonic())
        for channel in self._channels:
            channel.kill() if self.outcome.failures else channel.flush()
            channel.close()
        return self.outcome

    def _read(self, reader: LineReader, channel: Channel, are_events: bool) -> bool:
        """Take what has come; whether more can come."""
        lines = reader.read()
        if lines is None:
            if are_events:
                self._connection_ended(channel)
            return False
        for line in lines:
            event = read_event(line) if are_events else None
            if event is not None:
                self._take(event)
            elif line.strip():
                self._last_words |= dict.fromkeys(channel.nodes, line.strip())
                self._note(line)
        return True

    def _take(self, event: dict[str, Any]) -> None:
        node = event["node"]
        self._patience[node] = time.monotonic() + self._job.lost_seconds
        if event["event"] == "output":
            self._show(event["text"])
        elif event["event"] == "failed":
            self._fail(Failure(**{name: value for name, value in event.items() if name != "event"}))
        elif event["event"] == "ended":
            self.outcome.codes |= {int(rank): code for rank, code in event["codes"].items()}
            self._open.discard(node)

    def _connection_ended(self, channel: Channel) -> None:
        for node in self._open & set(channel.nodes):
            words = self._last_words.get(node)
            self._lose(node, "has lost its agent" + (f": {words}" if words else ""))

    def _lose(self, node: int, reason: str) -> None:
        self._open.discard(node)
        self._fail(Failure(node, None, 1, reason))

    def _fail(self, failure: Failure) -> None:
        self.outcome.failures.append(failure)
        if self._stop_at is None:
            self._stop_at = time.monotonic() + _SETTLE_SECONDS

    def _act(self, now: float) -> None:
        """Say what is to be said now."""
        order = self._asked()
        if order is not None and order != self.outcome.order:
            self.outcome.order = order
            self._send(order)
            patience = self._job.grace_seconds if order == "preempt" else 0.0
            self._kill_at = now + patience + _STOP_SECONDS if order != "kill" else now
        for node in [node for node in self._open if now > self._patience[node]]:
            self._lose(node, f"has not been heard of for {self._job.lost_seconds:.0f} s")
        if self._stop_at is not None and now > self._stop_at:
            self._stop_at = float("inf")
            self._send("stop")
            self._kill_at = min(self._kill_at or float("inf"), now + _STOP_SECONDS)
        if self._kill_at is not None and now > self._kill_at:
            self._kill_at, self._give_up_at = float("inf"), now + _KILL_SECONDS
            self._send("kill")
        if self._give_up_at is not None and now > self._give_up_at:
            for node in list(self._open):
                self._lose(node, "did not end when it was told to")
        if now - self._said > beat_seconds(self._job.lost_seconds):
            self._said = now
            self._send("beat")
        for channel in self._channels:
            channel.flush()

    def _send(self, order: Order) -> None:
        for channel in self._channels:
            channel.send(order_line(order))
