"""A run and its restarts: as many attempts as it takes, on the nodes that are there."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from launcher.attempt import Attempt, Outcome, RankFailure
from launcher.command import next_port, shown, start_command
from launcher.environment import launcher_environment, ranks_environment
from launcher.fleet import Fleet, with_own_hostfile
from launcher.signals import Signals
from ligo_dist.config import Config, dump_yaml
from ligo_dist.runtime.console import TERMINAL_VARIABLE
from ligo_dist.runtime.errors import FAILED, FINISHED, HOPELESS, MISTAKE, MORE_NODES, REQUEUE, LigoError
from ligo_dist.runtime.files import RUN_LOG
from ligo_dist.runtime.launch import (
    STOP_FILE,
    WAS_KILLED,
    LaunchDirectory,
    forget_request,
    remove_stale_environments,
)
from ligo_dist.runtime.machine import count_accelerators
from ligo_dist.runtime.out_of_memory import memory_advice
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


class Supervisor:
    """Takes a run to its end, or to where nothing more can be done.

    Args:
        config: what the ranks are to run, its overrides written into it.
        fleet: all nodes that may be used.
    """

    def __init__(self, config: Config, fleet: Fleet) -> None:
        self._config, self._fleet, self._cluster = config, fleet, fleet.cluster
        self._run_dir = fleet.directory / config.run_dir
        self._signals = Signals()
        self._before: tuple[object, ...] | None = None  # what the last failure looked like

    def run(self) -> int:
        """The exit code of the whole: see `ligo_dist.runtime.errors`; 130 after Ctrl-C."""
        cluster, stop_file = self._cluster, self._run_dir / STOP_FILE
        self._keep_out()
        remove_stale_environments(self._run_dir)
        forget_request(self._run_dir)  # of the run before
        with self._signals:
            fleet = self._fleet
            for attempt in range(cluster.max_restarts + 1):
                if attempt:
                    pause = min(cluster.backoff_seconds * 2 ** (attempt - 1), _LONGEST_PAUSE)
                    self._record(
                        f"restart {attempt} of {cluster.max_restarts} in {pause:g} s{self._from_where()}"
                    )
                    if not self._rest(pause):
                        return self._signals.exit_code
                    if stop_file.exists():
                        return REQUEUE
                    present = self._present()
                    if present is None:
                        return self._signals.exit_code if self._signals.order else FAILED
                    fleet = present
                code = self._verdict(self._attempt(fleet))
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
        before = LaunchDirectory.newest(self._run_dir)
        if before is not None and before.has_open_ends() and before.is_watched():
            raise LigoError(f"run_dir: another run is using {self._run_dir}; wait for it, or choose another")

    def _attempt(self, fleet: Fleet) -> Outcome:
        try:
            attempt = self._prepared(fleet)
        except OSError as error:  # a full disk, say
            file = error.filename or self._run_dir
            raise LigoError(f"run_dir: {file} cannot be written: {error.strerror or error}") from None
        return attempt.run()

    def _prepared(self, fleet: Fleet) -> Attempt:
        """An attempt on these nodes whose directory has what the ranks need.

        Raises:
            OSError: it cannot be written.
        """
        config, cluster = self._config, self._cluster
        before, port = LaunchDirectory.newest(self._run_dir), next_port(fleet, self._run_dir)
        launch = LaunchDirectory.make(self._run_dir)
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
        first_is_there = fleet.nodes[0] == self._fleet.nodes[0]
        address = fleet.meeting_address if first_is_there else fleet.nodes[0].address
        if cluster.launcher != "pdsh":  # MPI's do not say where the ranks meet
            ranks |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
        launch.write_environment(ranks)
        if fleet.kind == "hosts":
            fleet = with_own_hostfile(fleet, launch.path / "hosts")
        command = start_command(fleet, (address, port), [str(launch.config)])
        names = [node.name for node in fleet.nodes]
        few = names if len(names) <= 8 else [*names[:7], f"... ({len(names)} nodes)"]
        where = "this machine" if fleet.is_here else ", ".join(few)
        ranks_there = "1 rank" if fleet.world_size == 1 else f"{fleet.world_size} ranks"
        self._say(f"{ranks_there} on {where}; what each prints is in {launch.path}\n  {shown(command)}")
        return Attempt(command, environment, launch, fleet, self._signals)

    def _verdict(self, outcome: Outcome) -> int | None:
        """The exit code of the whole; None where another attempt is worth it."""
        codes = outcome.codes
        if codes == {FINISHED}:
            return FINISHED
        if outcome.order is not None:
            if outcome.order == "preempt" and codes != {REQUEUE}:
                grace = self._cluster.grace_seconds
                resumes = f"the same command resumes{self._from_where()}"
                self._say(f"no checkpoint within cluster.grace_seconds: {grace:g}; {resumes}")
            return self._signals.exit_code
        deserted = [end for end in outcome.ends.values() if end.asked in _DESERTED]
        # When the first has stopped orderly DeepSpeed stops the others itself: of those that stop for more nodes the
        # last may end with the other code, and one that was already done with heeding requests, as if it had failed.
        failed_first = any(not failure.asked for failure in outcome.failures)
        for orderly in (MORE_NODES, REQUEUE):
            if orderly in codes and not failed_first and not deserted:
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
        self._record(f"{who} {failure.reason}{at}{lines}".strip())
        if failure.code is None and failure.reason == WAS_KILLED and not failure.asked:
            # By SIGKILL, which leaves no word: most often the system's answer to a full memory.
            self._say(
                f"if it was the system that killed it (`dmesg` says so), {memory_advice(failure.doing)}"
            )

    def _present(self) -> Fleet | None:
        """The nodes to go on with; None if there are too few, or we are to end."""
        nodes, cluster = self._fleet.nodes, self._cluster
        deadline = time.monotonic() + cluster.node_wait_seconds
        told: dict[str, str] = {}
        while True:
            why = self._fleet.reachable()
            away = {name: reason for name, reason in why.items() if reason is not None}
            if not away:
                return self._fleet
            for name in away.keys() - told.keys():
                self._say(f"{name} stays away: {away[name]}")
            told |= away
            if time.monotonic() > deadline:
                break
            if not self._rest(_POLL_SECONDS):
                return None
        present = [node for node in nodes if node.name not in away]
        if cluster.min_nodes is not None and len(present) >= cluster.min_nodes:
            self._say(f"going on with {len(present)} of {len(nodes)} nodes")
            return replace(self._fleet, nodes=present)
        asks = "is not set" if cluster.min_nodes is None else f"asks for {cluster.min_nodes}"
        self._say(
            f"{len(present)} of {len(nodes)} nodes are there and cluster.min_nodes {asks};"
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
        complete = self._run_dir.glob("checkpoints/step-*/COMPLETE.json")
        return max((path.parent.name for path in complete), default=None)

    def _from_where(self) -> str:
        newest = self._newest_checkpoint()
        return " from the beginning" if newest is None else f" from {newest}"

    def _record(self, text: str) -> None:
        """Say it, in the run's own log too."""
        self._say(text)
        with suppress(OSError), (self._run_dir / RUN_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    def _say(self, text: str) -> None:
        print(f"ligo-dist: {text}", file=sys.stderr, flush=True)
