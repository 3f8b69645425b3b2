"""lm-evaluation-harness on an export, when its stage ends: the first rank starts it, and all wait for it together."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ligo_dist.config import Harness
from ligo_dist.engine import World, first_rank_only
from ligo_dist.runtime.environment import alone
from ligo_dist.runtime.files import make_empty
from ligo_dist.runtime.heartbeat import beat, enter
from ligo_dist.runtime.signals import StopSignals
from ligo_dist.tracking import EVALUATE, Tracker, harness_command, harness_results
from ligo_dist.training.hooks import stop_if_asked

TASKS_DIRECTORY = "tasks"
"""In the run directory: what the harness printed and found, by stage."""

_LOG = "harness.log"
_LOOK_SECONDS = 1.0
"""How long the first rank waits for the harness before all ranks show that they get on."""


@dataclass
class ExportTasks:
    """Evaluates exports. One that fails costs the run nothing: it is told, and can be done later.

    Attributes:
        harness: the tasks.
        batch_size: questions at a time where it says nothing.
        directory: of what the harness leaves.
        world: the ranks.
        signals: that may ask the run to stop meanwhile.
        tracker: takes the metrics.
        tell: takes messages for the user.
    """

    harness: Harness
    batch_size: int
    directory: Path
    world: World
    signals: StopSignals
    tracker: Tracker
    tell: Callable[[str], None]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def run(self, stage: str, export: Path, step: int) -> None:
        """Evaluate the export of a stage, and record it at the global step at which the stage ended. Collective.

        Raises:
            CheckpointError: the directory cannot be written.
            Preempted: the run was asked to stop.
        """
        if not self.harness.tasks:
            return
        enter(f"{stage} tasks")
        try:
            first_rank_only(lambda: self._start(stage, export), self.world)
            while (code := first_rank_only(self._look, self.world)) is None:
                beat(", ".join(self.harness.tasks))
                stop_if_asked(self.signals, self.world, f"the training of {stage}", lambda: None)
        finally:
            self._end()
        if self.world.is_first:
            self._record(stage, export, step, code)

    def _start(self, stage: str, export: Path) -> None:
        output = self.directory / stage
        make_empty(output, "the tasks'")
        harness = self.harness
        command = harness_command(
            export,
            output,
            ",".join(harness.tasks),
            include_path=harness.include_path,
            num_fewshot=harness.num_fewshot,
            limit=harness.limit,
            batch_size=harness.batch_size or self.batch_size,
            device=str(self.world.device),
        )
        with (output / _LOG).open("wb") as log:
            self._process = subprocess.Popen(
                command, env=alone(os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _look(self) -> int | None:
        """The harness's exit code, if it ends soon."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_LOOK_SECONDS)
        return None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _record(self, stage: str, export: Path, step: int, code: int) -> None:
        output = self.directory / stage
        metrics = harness_results(output) if code == 0 else None
        if metrics is None:
            words = ["ligo-dist", "evaluate", str(export), "--tasks", ",".join(self.harness.tasks)]
            self.tell(
                f"{stage} was not evaluated on its tasks: the harness ended with exit code {code}, {output / _LOG} says"
                f" why; `{shlex.join(words)}` does it later"
            )
            return
        self.tracker.start_phase(EVALUATE)
        self.tracker.log(metrics, step)
        self.tell(f"{stage} on its tasks: {self._shown(metrics)}")

    def _shown(self, metrics: dict[str, float]) -> str:
        """The metrics of the tasks and groups that are named, without those of a group's parts."""
        shown = []
        for name, value in metrics.items():
            _, task, metric = name.split("/", 2)
            if task in self.harness.tasks and "stderr" not in metric:
                shown.append(f"{task}/{metric} {value:.4g}")
        return ", ".join(shown) or f"{len(metrics)} metrics"
