"""A run and its restarts: as many attempts as it takes, on the nodes that are there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.attempt import Attempt, Outcome
from launcher.hosts import Node
from launcher.messages import Failure, Job, NodeJob
from launcher.signals import Signals
from launcher.transports import Transport
from ligo_dist.config.cluster import Cluster
from ligo_dist.exit_codes import FAILED, FINISHED, HOPELESS, MISTAKE, MORE_NODES, REQUEUE

_LONGEST_PAUSE = 300.0
_POLL_SECONDS = 2.0
_LOCK_SECONDS = "LIGO_DIST_LOCK_SECONDS"
"""Tells the worker to wait for the run directory: see `ligo_dist.resume`, which would load torch."""

ReachableNodes = Callable[[Sequence[Node], Cluster], dict[str, str | None]]
"""Gives for each node why it cannot be reached, None where it can."""


@dataclass(frozen=True)
class Launch:
    """What is launched.

    Attributes:
        config, overrides: of the ranks.
        cluster: how failures are met.
        directory: working directory of the ranks.
        run_dir: the run's directory, as the launcher sees it.
        nodes: all that may be used.
        environment: variables that the job carries.
        console: file descriptor of a terminal for the first rank; None: what it prints is passed on.
        master_address, master_port: where the ranks meet; the port of the first attempt.
        port_is_given: the user named the port: all attempts take it.
    """

    config: str
    overrides: tuple[str, ...]
    cluster: Cluster
    directory: Path
    run_dir: Path
    nodes: tuple[Node, ...]
    environment: dict[str, str]
    master_address: str
    master_port: int
    port_is_given: bool
    console: int | None = None


class Supervisor:
    """Takes a launch to the run's end, or to where nothing more can be done."""

    def __init__(self, launch: Launch, transport: Transport, reachable: ReachableNodes) -> None:
        self._launch, self._transport, self._reachable = launch, transport, reachable
        self._signals = Signals()
        self._before: tuple[object, ...] | None = None  # what the last failure looked like

    def run(self) -> int:
        """The exit code of the whole: see `ligo_dist.exit_codes`; 130 after Ctrl-C."""
        cluster = self._launch.cluster
        with self._signals:
            nodes: Sequence[Node] | None = self._launch.nodes
            for attempt in range(cluster.max_restarts + 1):
                if attempt:
                    pause = min(cluster.backoff_seconds * 2 ** (attempt - 1), _LONGEST_PAUSE)
                    self._say(
                        f"restart {attempt} of {cluster.max_restarts} in {pause:g} s{self._from_where()}"
                    )
                    if not self._rest(pause):
                        return self._signals.exit_code
                    nodes = self._present_nodes()
                    if nodes is None:
                        return self._signals.exit_code if self._signals.order else FAILED
                assert nodes is not None
                outcome = self._attempt(nodes, attempt)
                code = self._verdict(outcome, nodes)
                if code is not None:
                    return code
            self._say(
                f"cluster.max_restarts: {cluster.max_restarts} is reached; the same command resumes{self._from_where()}"
            )
            return FAILED

    def _attempt(self, nodes: Sequence[Node], attempt: int) -> Outcome:
        launch = self._launch
        logs = _next_directory(launch.run_dir / "logs")
        first = launch.nodes[0].name == nodes[0].name
        job = Job(
            nodes=_numbered(nodes),
            master_address=launch.master_address if first else nodes[0].name,
            master_port=launch.master_port + (0 if launch.port_is_given else attempt),
            directory=str(launch.directory),
            config=launch.config,
            overrides=launch.overrides,
            wrapper=tuple(launch.cluster.wrapper),
            environment={**launch.environment, _LOCK_SECONDS: "60"} if attempt else launch.environment,
            logs=str(logs.absolute()),
            hang_seconds=launch.cluster.hang_seconds,
            lost_seconds=launch.cluster.lost_seconds,
            grace_seconds=launch.cluster.grace_seconds,
            console=launch.console,
        )
        ranks = "1 rank" if job.world_size == 1 else f"{job.world_size} ranks"
        where = "this machine" if self._transport.is_local else ", ".join(_few([node.name for node in nodes]))
        self._say(f"{ranks} on {where}; what each prints is in {logs}")
        channels = self._transport.start(nodes, launch.console)
        with (logs / "connections.log").open("a", encoding="utf-8") as noise:

            def note(line: str) -> None:
                print(line, file=noise, flush=True)

            return Attempt(job, channels, lambda: self._signals.order, _show, note).run()

    def _verdict(self, outcome: Outcome, nodes: Sequence[Node]) -> int | None:
        """The exit code of the whole; None where another attempt is worth it."""
        codes = set(outcome.codes.values())
        if codes == {FINISHED} and not outcome.failures:
            return FINISHED
        if outcome.order is not None:
            if outcome.order == "preempt" and codes != {REQUEUE}:
                self._say(
                    f"no checkpoint within cluster.grace_seconds: {self._launch.cluster.grace_seconds:g};"
                    f" the same command resumes{self._from_where()}"
                )
            return self._signals.exit_code
        for orderly in (REQUEUE, MORE_NODES):
            if orderly in codes and not outcome.failures:
                return orderly
        cause = outcome.cause
        if cause is None:  # every rank ended orderly, but not all alike
            self._say(f"the ranks ended with different exit codes: {sorted(codes)}")
            return None
        self._describe(cause, nodes)
        if cause.code in HOPELESS:
            return cause.code
        looks = (cause.code, cause.reason, list(cause.tail)[-1:], self._newest_checkpoint())
        if cause.code < 128 and cause.rank is not None and looks == self._before:
            self._say("it failed in the same way as before, with no checkpoint in between: not started again")
            return FAILED
        self._before = looks
        return None

    def _describe(self, failure: Failure, nodes: Sequence[Node]) -> None:
        """Name who failed, where and at what, with the last lines it printed."""
        name = nodes[failure.node].name if failure.node < len(nodes) else f"node {failure.node}"
        if failure.rank is None:
            self._say(f"{name} {failure.reason}")
            return
        if failure.code == MISTAKE and failure.rank == 0:
            return  # what it said has been shown
        at = f" at {failure.place}" if failure.place else ""
        lines = "".join(f"\n  {line}" for line in failure.tail) if failure.rank or failure.code < 128 else ""
        self._say(f"rank {failure.rank} on {name} {failure.reason}{at}{lines}")

    def _present_nodes(self) -> list[Node] | None:
        """The nodes to go on with; None if there are too few, or we are to end."""
        launch, cluster = self._launch, self._launch.cluster
        if self._transport.is_local:
            return list(launch.nodes)
        deadline = time.monotonic() + cluster.node_wait_seconds
        told: dict[str, str] = {}
        while True:
            why = self._reachable(launch.nodes, cluster)
            away = {name: reason for name, reason in why.items() if reason is not None}
            if not away:
                return list(launch.nodes)
            for name in away.keys() - told.keys():
                self._say(f"{name} stays away: {away[name]}")
            told |= away
            if time.monotonic() > deadline:
                break
            if not self._rest(_POLL_SECONDS):
                return None
        present = [node for node in launch.nodes if node.name not in away]
        if cluster.min_nodes is not None and len(present) >= cluster.min_nodes:
            self._say(f"going on with {len(present)} of {len(launch.nodes)} nodes")
            return present
        needed = cluster.min_nodes or len(launch.nodes)
        self._say(
            f"{len(present)} of {len(launch.nodes)} nodes are there and cluster.min_nodes asks for {needed};"
            f" the same command resumes{self._from_where()}"
        )
        return None

    def _rest(self, seconds: float) -> bool:
        """Wait; False if we are to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._signals.order is None:
            time.sleep(0.1)
        return self._signals.order is None

    def _newest_checkpoint(self) -> str | None:
        complete = self._launch.run_dir.glob("checkpoints/step-*/COMPLETE.json")
        return max((path.parent.name for path in complete), default=None)

    def _from_where(self) -> str:
        newest = self._newest_checkpoint()
        return " from the beginning" if newest is None else f" from {newest}"

    def _say(self, text: str) -> None:
        print(f"ligo-dist: {text}", file=sys.stderr, flush=True)


def _numbered(nodes: Sequence[Node]) -> tuple[NodeJob, ...]:
    jobs: list[NodeJob] = []
    for node in nodes:
        first = sum(len(job.devices) for job in jobs)
        jobs.append(NodeJob(node.name, first, node.devices))
    return tuple(jobs)


def _next_directory(parent: Path) -> Path:
    """A new directory, numbered after those that are there."""
    numbers = [int(path.name) for path in parent.glob("[0-9]*") if path.name.isdecimal()]
    path = parent / f"{max(numbers, default=0) + 1:03d}"
    path.mkdir(parents=True)
    return path


def _few(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) <= 8 else [*names[:7], f"... ({len(names)} nodes)"]


def _show(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # whoever watched has gone; the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
