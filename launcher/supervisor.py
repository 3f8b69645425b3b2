"""A run and its restarts: as many attempts as it takes, on the nodes that are there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.attempt import Attempt, Outcome, RankFailure
from launcher.command import free_port, shown, start_command
from launcher.environment import launcher_environment, ranks_environment
from launcher.fleet import FIRST_PORT, Fleet
from launcher.hosts import Node
from launcher.signals import Signals
from ligo_dist.config import Config
from ligo_dist.config.cluster import Cluster
from ligo_dist.config.yaml_text import dump_yaml
from ligo_dist.runtime.console import TERMINAL_VARIABLE
from ligo_dist.runtime.errors import FAILED, FINISHED, HOPELESS, MISTAKE, MORE_NODES, REQUEUE, LigoError
from ligo_dist.runtime.launch import STOP_FILE, LaunchDirectory, forget_request, remove_stale_environments
from ligo_dist.runtime.machine import count_accelerators
from ligo_dist.runtime.redaction import holds_secret, redact
from ligo_dist.runtime.signals import StopReason

_LONGEST_PAUSE = 300.0
_POLL_SECONDS = 2.0
_LOCK_SECONDS = "LIGO_DIST_LOCK_SECONDS"
"""Tells the worker to wait for the run directory: see `ligo_dist.training.resume`, which would load torch."""

_OF_RANKS = {"lost_seconds", "hang_seconds", "grace_seconds"}
"""What the ranks need of the section `cluster`."""


_DESERTED = {
    StopReason.PARENT_GONE.name: "what DeepSpeed runs there has gone, and its ranks have stopped",
    StopReason.LAUNCHER_GONE.name: "its ranks saw no sign of life of the launcher, and have stopped",
}
"""Why ranks stop that nobody has asked to."""


@dataclass(frozen=True)
class Launch:
    """What is launched.

    Attributes:
        config: what the ranks are to run, its overrides written into it.
        fleet: all nodes that may be used.
        directory: working directory of the ranks.
        run_dir: the run's directory.
        master_port: where the ranks meet on all attempts; None: on a free port, or on the first one and those after it.
    """

    config: Config
    fleet: Fleet
    directory: Path
    run_dir: Path
    master_port: int | None

    def port(self) -> int:
        """Where the ranks of the next attempt meet: those of the last may hold theirs still."""
        if self.master_port is not None:
            return self.master_port
        before = LaunchDirectory.newest(self.run_dir)
        number = int(before.path.name) if before else 0
        return free_port() if self.fleet.is_here else FIRST_PORT + number % 1000


class Supervisor:
    """Takes a launch to the run's end, or to where nothing more can be done."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._signals = Signals()
        self._before: tuple[object, ...] | None = None  # what the last failure looked like

    def run(self) -> int:
        """The exit code of the whole: see `ligo_dist.runtime.errors`; 130 after Ctrl-C."""
        cluster, stop_file = self._launch.config.cluster, self._launch.run_dir / STOP_FILE
        self._keep_out()
        remove_stale_environments(self._launch.run_dir)
        forget_request(self._launch.run_dir)  # of the run before
        with self._signals:
            nodes = self._launch.fleet.nodes
            for attempt in range(cluster.max_restarts + 1):
                if attempt:
                    pause = min(cluster.backoff_seconds * 2 ** (attempt - 1), _LONGEST_PAUSE)
                    self._say(
                        f"restart {attempt} of {cluster.max_restarts} in {pause:g} s{self._from_where()}"
                    )
                    if not self._rest(pause):
                        return self._signals.exit_code
                    if stop_file.exists():
                        return REQUEUE
                    present = self._present_nodes()
                    if present is None:
                        return self._signals.exit_code if self._signals.order else FAILED
                    nodes = present
                code = self._verdict(self._attempt(nodes))
                if code is not None:
                    return code
            self._say(
                f"cluster.max_restarts: {cluster.max_restarts} is reached; the same command resumes{self._from_where()}"
            )
            return FAILED

    def _keep_out(self) -> None:
        """
        Raises:
            LigoError: another launcher watches a run in this directory.
        """
        before = LaunchDirectory.newest(self._launch.run_dir)
        if before is not None and before.has_open_ends() and before.is_watched():
            raise LigoError(
                f"run_dir: another run is using {self._launch.run_dir}; wait for it, or choose another"
            )

    def _attempt(self, nodes: Sequence[Node]) -> Outcome:
        try:
            attempt = self._prepared(nodes)
        except OSError as error:  # a full disk, say
            file = error.filename or self._launch.run_dir
            raise LigoError(f"run_dir: {file} cannot be written: {error.strerror or error}") from None
        return attempt.run()

    def _prepared(self, nodes: Sequence[Node]) -> Attempt:
        """An attempt whose directory has what the ranks need.

        Raises:
            OSError: it cannot be written.
        """
        config, fleet, cluster = self._launch.config, self._launch.fleet, self._launch.config.cluster
        before, port = LaunchDirectory.newest(self._launch.run_dir), self._launch.port()
        launch = LaunchDirectory.make(self._launch.run_dir)
        ranks = ranks_environment(cluster, os.environ, inherits=fleet.kind != "hosts")
        if before is not None and before.has_open_ends():
            # They stop by themselves, once they miss their launcher.
            ranks[_LOCK_SECONDS] = str(cluster.lost_seconds + cluster.grace_seconds)
            self._say(
                f"ranks of {before.path} have not said how they ended; if they still run, they are waited for"
            )
        if fleet.is_here and sys.stdout.isatty():
            ranks[TERMINAL_VARIABLE] = os.ttyname(sys.stdout.fileno())
        values = config.values() | {"cluster": cluster.model_dump(mode="json", include=_OF_RANKS)}
        if config.tracking.uri is not None and holds_secret(config.tracking.uri):
            ranks["MLFLOW_TRACKING_URI"], values["tracking"]["uri"] = config.tracking.uri, None
        launch.config.write_text(dump_yaml(values), encoding="utf-8")
        on_processors = fleet.is_here and count_accelerators() == 0
        environment = launcher_environment(cluster, os.environ, launch, on_processors)
        if fleet.kind == "hosts":
            cluster = _of_present_hosts(cluster, launch, nodes)
        address = fleet.meeting_address(cluster) if nodes[0] == fleet.nodes[0] else nodes[0].address
        meeting = (address, port)
        if cluster.launcher != "pdsh":  # MPI's do not say where the ranks meet
            ranks |= {"MASTER_ADDR": meeting[0], "MASTER_PORT": str(meeting[1])}
        launch.write_environment(ranks)
        command = start_command(cluster, fleet, nodes, meeting, [str(launch.config)])
        num_ranks = sum(node.num_ranks for node in nodes)
        names = [node.name for node in nodes]
        few = names if len(names) <= 8 else [*names[:7], f"... ({len(names)} nodes)"]
        where = "this machine" if fleet.is_here else ", ".join(few)
        ranks_there = "1 rank" if num_ranks == 1 else f"{num_ranks} ranks"
        self._say(f"{ranks_there} on {where}; what each prints is in {launch.path}\n  {shown(command)}")
        directory, signals = self._launch.directory, self._signals
        return Attempt(command, environment, directory, launch, nodes, cluster, signals, _show)

    def _verdict(self, outcome: Outcome) -> int | None:
        """The exit code of the whole; None where another attempt is worth it."""
        codes = outcome.codes
        if codes == {FINISHED}:
            return FINISHED
        if outcome.order is not None:
            if outcome.order == "preempt" and codes != {REQUEUE}:
                grace = self._launch.config.cluster.grace_seconds
                resumes = f"the same command resumes{self._from_where()}"
                self._say(f"no checkpoint within cluster.grace_seconds: {grace:g}; {resumes}")
            return self._signals.exit_code
        deserted = [end for end in outcome.ends.values() if end.asked in _DESERTED]
        # Of ranks that stop for more nodes, DeepSpeed may stop the last itself, which ends with the other code.
        for orderly in (MORE_NODES, REQUEUE):
            if orderly in codes and not outcome.failures and not deserted:
                return orderly
        cause = outcome.cause
        if cause is None:  # every rank ended orderly, but not all alike, or though nobody wanted it
            words = [f"{end.host}: {_DESERTED[end.asked]}" for end in deserted]
            self._say(
                "; ".join(dict.fromkeys(words)) or f"the ranks ended with different exit codes: {codes}"
            )
            return None
        self._describe(cause)
        if cause.code in HOPELESS and cause.rank is not None:
            return cause.code
        looks = (cause.code, cause.reason, list(cause.lines)[-1:], self._newest_checkpoint())
        if cause.code is not None and looks == self._before:
            self._say("it failed in the same way as before, with no checkpoint in between: not started again")
            return FAILED
        self._before = looks
        return None

    def _describe(self, failure: RankFailure) -> None:
        """Name who failed, where and at what, with the last lines it printed."""
        if failure.code == MISTAKE and failure.rank == 0:
            return  # what it said has been shown
        who = failure.node if failure.rank is None else f"rank {failure.rank} on {failure.node}"
        at = f" at {failure.doing}" if failure.doing else ""
        told = failure.lines if failure.rank or failure.code is not None else ()
        lines = "".join(f"\n  {redact(line)}" for line in told)
        self._say(f"{who} {failure.reason}{at}{lines}".strip())

    def _present_nodes(self) -> list[Node] | None:
        """The nodes to go on with; None if there are too few, or we are to end."""
        fleet, cluster = self._launch.fleet, self._launch.config.cluster
        deadline = time.monotonic() + cluster.node_wait_seconds
        told: dict[str, str] = {}
        while True:
            why = fleet.reachable(cluster)
            away = {name: reason for name, reason in why.items() if reason is not None}
            if not away:
                return list(fleet.nodes)
            for name in away.keys() - told.keys():
                self._say(f"{name} stays away: {away[name]}")
            told |= away
            if time.monotonic() > deadline:
                break
            if not self._rest(_POLL_SECONDS):
                return None
        present = [node for node in fleet.nodes if node.name not in away]
        if cluster.min_nodes is not None and len(present) >= cluster.min_nodes:
            self._say(f"going on with {len(present)} of {len(fleet.nodes)} nodes")
            return present
        asks = "is not set" if cluster.min_nodes is None else f"asks for {cluster.min_nodes}"
        self._say(
            f"{len(present)} of {len(fleet.nodes)} nodes are there and cluster.min_nodes {asks};"
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


def _of_present_hosts(cluster: Cluster, launch: LaunchDirectory, nodes: Sequence[Node]) -> Cluster:
    """The same with a host file of these nodes alone, in words that DeepSpeed and pdsh take as they are meant."""
    file = launch.path / "hosts"
    with_pdsh, lines, gaps = cluster.launcher == "pdsh", [], []
    for node in nodes:
        # pdsh takes what stands before a colon for the way to reach a host.
        name = f"ssh:{node.name}" if with_pdsh and ":" in node.name else node.name
        slots = max(node.devices) + 1
        lines.append(f"{name} slots={slots}\n")
        unused = [str(slot) for slot in range(slots) if slot not in node.devices]
        gaps += [f"{name}:{','.join(unused)}"] if unused else []
    file.write_text("".join(lines), encoding="utf-8")
    return cluster.model_copy(
        update={"hostfile": str(file), "include": None, "exclude": "@".join(gaps) or None}
    )


def _show(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # whoever watched has gone; the run goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
