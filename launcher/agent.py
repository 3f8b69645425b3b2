"""The agent: `python -m launcher.agent NODE` on each node starts its ranks, watches them, and ends them.

It is told what to do on its standard input (or in a file, `--messages`), and says what happens on its standard output;
see `launcher.messages`. No rank outlives it: when the launcher is gone or silent it ends them itself, and should it be
killed, the ranks ask the kernel to be killed with it.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from launcher.line_io import FileReader, LineReader, LineWriter
from launcher.messages import Failure, Job, Order, event_line, read_order
from launcher.rank_process import RankProcess
from ligo_dist.exit_codes import FINISHED, INTERRUPTED, MORE_NODES, REQUEUE

_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0
"""How long ranks have to end by themselves when they are stopped, and the others after one has failed."""

_DRAIN_SECONDS = 5.0
"""How long the last events may take to be read."""

_ORDERLY = (FINISHED, REQUEUE, MORE_NODES)


class Agent:
    """The ranks of one node."""

    def __init__(self, node: int, job: Job, orders: LineReader, events: LineWriter, scratch: Path) -> None:
        self._node, self._job, self._orders, self._events = node, job, orders, events
        self._heard = self._said = time.monotonic()
        self._deadline: float | None = None  # when what still runs is killed
        self._is_killing = False
        self._reported: set[int | None] = set()  # ranks whose failure has been told
        self._selector = selectors.DefaultSelector()
        self._ranks = [
            RankProcess(job, node, local_rank, scratch) for local_rank in range(len(job.nodes[node].devices))
        ]
        for rank in self._ranks:
            self._selector.register(rank.output, selectors.EVENT_READ, rank)

    def run(self) -> None:
        """Watch the ranks until the last one has ended."""
        while any(rank.code is None for rank in self._ranks):
            self._forward(_POLL_SECONDS)
            self._listen()
            self._watch()
            self._beat()
        while self._selector.get_map() and self._forward(0):
            pass
        self._watch()
        for rank in self._ranks:
            rank.kill()  # what it may have left behind
            rank.close()
        self._events.write(
            event_line("ended", self._node, codes={str(rank.rank): rank.code for rank in self._ranks})
        )

    def _forward(self, seconds: float) -> bool:
        """Pass on what the first rank prints; whether any of the ranks printed something."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            rank: RankProcess = key.data
            lines = rank.read()
            if lines is None:
                self._selector.unregister(rank.output)
            elif rank.rank == 0:
                for line in lines:
                    self._events.write(event_line("output", self._node, rank=0, text=line), may_drop=True)
        if not ready and seconds and not self._selector.get_map():
            time.sleep(seconds)
        return bool(ready)

    def _listen(self) -> None:
        lines = self._orders.read()
        if lines is None:  # the launcher is gone; what was learned so far is saved
            self.obey("preempt")
            self._heard = float("inf")
            return
        for line in lines:
            self._heard = time.monotonic()
            self.obey(read_order(line))
        if time.monotonic() - self._heard > self._job.lost_seconds:
            self.obey("stop")
            self._heard = float("inf")

    def obey(self, order: Order) -> None:
        """Do what the launcher asks for. What has been asked before is only ever sped up."""
        if order == "preempt" and self._deadline is None:
            self._end(signal.SIGTERM, self._job.grace_seconds)
        elif order == "stop":
            self._end(signal.SIGINT, _STOP_SECONDS)
        elif order == "kill":
            self._is_killing = True
            self._end(signal.SIGKILL, 0.0)

    def _end(self, signum: int | None, seconds: float) -> None:
        """Give the ranks so long to end; `signum` tells them, where they do not know yet."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        for rank in self._ranks:
            if signum is not None:
                rank.send(signum)

    def _watch(self) -> None:
        """Report each rank that fails, and end the others; kill what is still there at its deadline."""
        for rank in self._ranks:
            failure = None if rank.rank in self._reported or self._is_killing else self._failure(rank)
            if failure is not None and failure.rank not in self._reported:
                self._reported |= {rank.rank, failure.rank}
                self._events.write(event_line("failed", self._node, **_without_node(failure)))
                self._end(None, _STOP_SECONDS)
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._is_killing = True
            for rank in self._ranks:
                if rank.code is None:
                    rank.kill()

    def _failure(self, rank: RankProcess) -> Failure | None:
        code = rank.code
        if code is not None:
            # Ranks that have been told to end do so with this code.
            if code in _ORDERLY or (code == INTERRUPTED and self._deadline is not None):
                return None
            self._forward(0)  # what it has said last
            return Failure(self._node, rank.rank, code, rank.ending, rank.place, list(rank.tail))
        silent = rank.silent_seconds()
        if silent <= self._job.hang_seconds or self._deadline is not None:
            return None
        # The one that was stopped is the cause; those that wait for it look the same otherwise.
        culprit = next((other for other in self._ranks if other.is_stopped), rank)
        reason = "was stopped (SIGSTOP)" if culprit.is_stopped else f"has not got on for {silent:.0f} s"
        return Failure(
            self._node, culprit.rank, 128 + signal.SIGKILL, reason, culprit.place, list(culprit.tail)
        )

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._said > beat_seconds(self._job.lost_seconds):
            self._said = now
            self._events.write(event_line("beat", self._node), may_drop=True)
        self._events.flush()


def beat_seconds(lost_seconds: float) -> float:
    """Pause between two signs of life, of the launcher and of an agent."""
    return min(5.0, lost_seconds / 5)


def _without_node(failure: Failure) -> dict[str, object]:
    return {name: value for name, value in asdict(failure).items() if name != "node"}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when all ranks have ended, however: what became of them is said on standard output."""
    parser = argparse.ArgumentParser(prog="python -m launcher.agent", description=__doc__)
    parser.add_argument(
        "node", help="number of this node, or its name in the job, or `slurm`: as SLURM_NODEID says"
    )
    parser.add_argument("--messages", type=Path, help="file to read instead of standard input")
    arguments = parser.parse_args(argv)
    for signum in (signal.SIGINT, signal.SIGHUP):  # of a terminal; what counts comes from the launcher
        signal.signal(signum, signal.SIG_IGN)
    orders = FileReader(arguments.messages) if arguments.messages else LineReader(sys.stdin.buffer)
    lines = orders.first_lines()
    if lines is None:  # the launcher has gone before it said anything
        return 0
    job = Job.from_line(lines[0])
    events = LineWriter(sys.stdout.buffer)
    with tempfile.TemporaryDirectory(prefix="ligo_dist-") as scratch:
        agent = Agent(_own_number(arguments.node, job), job, orders, events, Path(scratch))
        signal.signal(signal.SIGTERM, lambda *_: agent.obey("preempt"))
        for line in lines[1:]:
            agent.obey(read_order(line))
        agent.run()
    events.drain(_DRAIN_SECONDS)
    return 0


def _own_number(word: str, job: Job) -> int:
    if word == "slurm":
        return int(os.environ["SLURM_NODEID"])
    names = [node.name for node in job.nodes]
    return names.index(word) if word in names else int(word)


if __name__ == "__main__":
    sys.exit(main())
