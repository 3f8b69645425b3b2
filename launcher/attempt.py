"""One attempt at a run: the command that starts the ranks, from its start until all that it started has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from launcher.fleet import Fleet
from launcher.hosts import address_of
from launcher.signals import Signals
from ligo_dist.runtime.console import FAILURE_TAG
from ligo_dist.runtime.errors import FINISHED, HOPELESS, INTERRUPTED, MORE_NODES, REQUEUE, LigoError
from ligo_dist.runtime.launch import LaunchDirectory, Lines, Order, RankEnd

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.5
"""Between two looks at how ranks have ended."""

_SETTLE_SECONDS = 1.0
"""How long further failures are waited for after the first: the one that was heard of first need not be the cause."""

_STOP_SECONDS = 10.0
"""How long all processes have to end when they are told to, and DeepSpeed's once all ranks have said how they ended."""

_LAST_WORD_SECONDS = 3.0
"""How long the ends of ranks are waited for when the command has ended."""

_NEVER = float("inf")

_BEGIN_SECONDS = 10.0
"""Ranks begin within so long of each other, whatever else the machines do."""

_NOT_BEGUN = "has not begun, long after others have"

_CONSEQUENCE = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|timed? ?out|remote process exited|socket",
    re.I,
)
"""What the other ranks say when one has gone."""

_NODE_ENDED = re.compile(r"pdsh@\S+: (\S+): .*exit(?:ed with)? (?:exit )?code (\d+)")
"""What pdsh says when a command on a host has failed, or its connection has."""


@dataclass(frozen=True)
class RankFailure:
    """A rank, or a node, that ended before the run did.

    Attributes:
        node: name of its node; empty: of none.
        rank: its number; None: the node itself is lost, or no rank has begun.
        code: its exit code; None: it was ended.
        reason: in words: `was killed`.
        doing: what it was at; empty: it had not begun.
        asked: whether it had been asked to stop before.
        lines: the last that it printed.
        is_own: whether the error it ended with is not another rank's, as far as that is known.
    """

    node: str
    rank: int | None
    code: int | None
    reason: str
    doing: str = ""
    asked: bool = False
    lines: Sequence[str] = ()
    is_own: bool = True

    @property
    def likelihood(self) -> int:
        """How little it looks like the cause of others: 0, it hardly follows from anything. What a rank itself calls
        hopeless does not, however the others end then."""
        if self.rank is not None and self.code in HOPELESS:
            return -1
        if "SIGSTOP" in self.reason:
            return 0
        if self.asked:
            return 5
        if self.rank is None:
            return 1
        if self.code is None:
            return 3 if "has not got on" in self.reason else 0
        return 4 if any(_CONSEQUENCE.search(line) for line in self.lines[-8:]) else 2


@dataclass
class Outcome:
    """What became of an attempt.

    Attributes:
        world_size: number of ranks.
        ends: how they ended, as far as they said.
        failures: in the order in which they were heard of.
        order: what was asked for from outside; None if nothing was.
    """

    world_size: int
    ends: dict[int, RankEnd] = field(default_factory=dict)
    failures: list[RankFailure] = field(default_factory=list)
    order: Order | Literal["kill"] | None = None

    @property
    def codes(self) -> set[int | None]:
        """The exit codes of all ranks; None among them: one was ended, or said nothing."""
        silent = {None} if len(self.ends) < self.world_size else set()
        return {end.code for end in self.ends.values()} | silent

    @property
    def cause(self) -> RankFailure | None:
        """The failure that the others followed from, as far as can be told."""
        return min(self.failures, key=lambda failure: (failure.likelihood, not failure.is_own), default=None)


class Attempt:
    """Starts the command, and watches until all is over.

    Args:
        command: what starts the ranks.
        environment: of the command.
        launch: where the ranks are heard.
        fleet: their nodes, and how long things may take.
        signals: what the launcher has been asked for.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        launch: LaunchDirectory,
        fleet: Fleet,
        signals: Signals,
    ) -> None:
        self._command, self._environment, self._directory = command, environment, fleet.directory
        self._launch, self._cluster, self._signals = launch, fleet.cluster, signals
        self._homes = [node.name for node in fleet.nodes for _ in range(node.num_ranks)]
        self._shown, self._said = Lines(launch.log(0)), Lines(launch.output)
        self._last_words: dict[str, str] = {}  # of the nodes' connections
        self._lost: dict[str, float] = {}  # nodes whose command failed, and when
        self._unheard = set(range(len(self._homes)))  # ranks that have not begun
        self._first_began = _NEVER
        self._stop_at = self._kill_at = _NEVER
        self._was_stopped = False  # by us: what ends then need not be a failure
        self.outcome = Outcome(len(self._homes))

    def run(self) -> Outcome:
        """Carry the attempt to its end; nothing that it started here is left then."""
        with self._launch.counting(self._cluster.lost_seconds), self._launch.output.open("ab") as output:
            process = self._start(output)
            try:
                self._watch(process)
                self._hear_last_words(process.returncode)
            finally:
                _kill(process)
                process.wait()
                self._launch.forget_environment()
        return self.outcome

    def _start(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """
        Raises:
            LigoError: there is no such program.
        """
        try:
            # A session of its own: neither Ctrl-C nor a hangup of the terminal reaches DeepSpeed's launcher.
            return subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            self._launch.forget_environment()
            raise LigoError(f"{self._command[0]!r} cannot be started: {error.strerror}") from None

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        looked = 0.0
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            self._pass_on()
            now = time.monotonic()
            if now - looked > _LOOK_SECONDS:
                looked = now
                self._look(now)
            self._act(now)
            if now > self._kill_at:
                _kill(process)

    def _hear_last_words(self, code: int) -> None:
        """The command has ended: hear of all ranks, and find out about those that say nothing."""
        deadline = time.monotonic() + _LAST_WORD_SECONDS
        while len(self.outcome.ends) < len(self._homes) and time.monotonic() < deadline:
            self._look(time.monotonic())
            time.sleep(_POLL_SECONDS)
        self._pass_on()
        self._look(_NEVER)
        if not self.outcome.ends and not self.outcome.failures:
            reason = f"`{Path(self._command[0]).name}` ended with exit code {code}"
            self._fail(RankFailure("", None, code, reason, lines=list(self._said.tail)))
        told = {failure.node for failure in self.outcome.failures}
        for rank, node in enumerate(self._homes):
            if rank not in self.outcome.ends and node not in told:
                asked = self.outcome.order is not None or bool(self.outcome.failures)
                self._fail(RankFailure(node, rank, None, "ended without a word", asked=asked))

    def _pass_on(self) -> None:
        for line in self._shown.new():
            # How the first rank failed is told with the verdict, if it was not only for want of another.
            if not line.startswith(FAILURE_TAG.format(0)):
                _show(line)
        names = {address_of(node): node for node in self._homes}
        for line in self._said.new():
            node, _, words = line.partition(": ")
            if node in names and not words.startswith("["):  # DeepSpeed's own log
                self._last_words[names[node]] = words
            ended = _NODE_ENDED.search(line)
            if ended and ended[1] in names:
                self._lost.setdefault(names[ended[1]], time.monotonic())

    def _look(self, now: float) -> None:
        """Take note of the ranks that have ended since, and of nodes that are lost with theirs."""
        known = self.outcome.ends
        self.outcome.ends = self._launch.ends(known)
        for rank in self.outcome.ends.keys() - known.keys():
            end = self.outcome.ends[rank]
            if not self._is_orderly(end.code):
                asked, node = bool(end.asked) or self._was_stopped, self._homes[rank]
                is_own = end.follows in (None, rank)
                self._fail(RankFailure(node, rank, end.code, end.reason, end.doing, asked, end.lines, is_own))
        heard = {self._homes[rank] for rank in self.outcome.ends} | {
            one.node for one in self.outcome.failures
        }
        for node, since in self._lost.items():
            if now > since + _SETTLE_SECONDS and node not in heard:
                words = self._last_words.get(node)
                reason = "has lost its connection" + (f": {words}" if words else "")
                self._fail(RankFailure(node, None, None, reason))
        self._look_for_the_unheard(now)
        if len(self.outcome.ends) == len(self._homes) and self._kill_at == _NEVER:
            # DeepSpeed gives those that are left half a minute: nobody is.
            self._kill_at = time.monotonic() + _STOP_SECONDS

    def _look_for_the_unheard(self, now: float) -> None:
        """A rank that was stopped before it was watched can only be missed."""
        self._unheard -= {rank for rank in self._unheard if self._launch.log(rank).exists()}
        if len(self._unheard) < len(self._homes):
            self._first_began = min(self._first_began, now)
        patience = max(self._cluster.hang_seconds, _BEGIN_SECONDS)
        if _NEVER > now > self._first_began + patience and not self.outcome.failures:
            for rank in sorted(self._unheard):
                self._fail(RankFailure(self._homes[rank], rank, None, _NOT_BEGUN))

    def _is_orderly(self, code: int | None) -> bool:
        return code in (FINISHED, REQUEUE, MORE_NODES) or (code == INTERRUPTED and self._was_stopped)

    def _fail(self, failure: RankFailure) -> None:
        self.outcome.failures.append(failure)
        if self._stop_at == _NEVER:
            self._stop_at = time.monotonic() + _SETTLE_SECONDS

    def _act(self, now: float) -> None:
        """Ask for what is to be asked now."""
        order = self._signals.order
        if order is not None and order != self.outcome.order:
            self.outcome.order, self._was_stopped = order, True
            if order == "kill":
                self._kill_at = now
            else:
                self._launch.ask(order)
                patience = self._cluster.grace_seconds if order == "preempt" else 0.0
                self._kill_at = now + patience + _STOP_SECONDS
        if now > self._stop_at and not self._was_stopped:
            self._was_stopped = True
            self._launch.ask("stop")
            self._kill_at = min(self._kill_at, now + 2 * _STOP_SECONDS)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it has started here; not by a signal that it could heed: DeepSpeed's own way to stop
    ends processes of others on all hosts."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _show(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # whoever watched has gone; the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
