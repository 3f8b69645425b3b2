"""torch's profiler over a few steps of a phase: a trace of each chosen rank, for Perfetto or `chrome://tracing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from ligo_dist.config import Profile
from ligo_dist.engine import World, gather_objects
from ligo_dist.schedule import PhasePlan
from ligo_dist.tracking import Tracker
from ligo_dist.training.loop import Step

PROFILE_DIRECTORY = "profile"


@dataclass
class StepProfiler:
    """The hook that profiles the steps of one phase. It comes first: a trace ends with its last step, and begins with
    what the other hooks do after the step before its first.

    Attributes:
        section: which steps, on which ranks.
        directory: of the traces.
        world: the ranks.
        tracker: takes the traces as artifacts of the open stage.
        tell: takes messages for the user.
    """

    section: Profile
    directory: Path
    world: World
    tracker: Tracker
    tell: Callable[[str], None]
    every: int = 1
    _running: profile | None = None

    def __call__(self, step: Step) -> None:
        first, last = self.section.start_step, self.section.start_step + self.section.steps - 1
        if first <= step.number and (step.number == last or (step.is_last and step.number < last)):
            self._finish(step)
        else:
            self._start_before(step.number + 1)

    @contextmanager
    def around(self, phase: PhasePlan, done: int) -> Iterator[None]:
        """A phase that goes on after so many steps; a profile that does not come to its end is dropped."""
        self._tell_what_is_missing(phase)
        self._start_before(done + 1)
        try:
            yield
        finally:
            if self._running is not None:
                self._running.stop()
                self._running = None

    def _tell_what_is_missing(self, phase: PhasePlan) -> None:
        if not self.section.steps or not phase.steps:
            return
        if phase.steps < self.section.start_step:
            start = f"profile.start_step: {self.section.start_step}"
            self.tell(f"{start}: {phase.kind} ends at step {phase.steps}, nothing of it is profiled")
        missing = [rank for rank in self.section.ranks if rank >= self.world.size]
        if missing:
            ranks = ", ".join(map(str, missing))
            self.tell(f"profile.ranks: {ranks}: the ranks are 0 to {self.world.size - 1}")

    def _start_before(self, number: int) -> None:
        """Begin with this step if it is the first one, or the phase goes on amid them."""
        section = self.section
        chosen = range(section.start_step, section.start_step + section.steps)
        if number not in chosen or self._running is not None or self.world.rank not in section.ranks:
            return
        activities = [ProfilerActivity.CPU]
        if self.world.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._running = profile(activities=activities)
        self._running.start()

    def _finish(self, step: Step) -> None:
        """Write the trace; the first rank records those of all ranks once they are there. Collective."""
        written: str | OSError | None = None
        if self._running is not None:
            self._running.stop()
            name = f"{step.phase.kind}-rank-{self.world.rank}.json.gz"
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._running.export_chrome_trace(str(self.directory / name))
                written = name
            except (OSError, RuntimeError) as error:  # RuntimeError: torch cannot open the file
                written = OSError(str(error))
            self._running = None
        for rank, outcome in enumerate(gather_objects(written, self.world)):
            if isinstance(outcome, OSError):
                self.tell(f"the profile of rank {rank} could not be written, the run goes on ({outcome})")
            elif outcome is not None:
                path = self.directory / outcome
                self.tracker.artifact(path, f"{PROFILE_DIRECTORY}/{outcome}")
                self.tell(f"profile of rank {rank}, up to {step.phase.kind} step {step.number}: {path}")
