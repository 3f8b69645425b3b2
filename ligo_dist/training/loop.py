"""The training loop: a generator of optimizer steps, and what hangs on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

from ligo_dist.corpus import Batches
from ligo_dist.engine import Engine, StepResult, fed, seed_everything
from ligo_dist.runtime.heartbeat import beating
from ligo_dist.schedule import PhasePlan


@dataclass(frozen=True)
class Step:
    """One optimizer step that was done.

    Attributes:
        number: within its phase, from 1.
        phase: the phase it belongs to.
        result: loss and gradient norm.
        learning_rate: it was taken with.
        seconds: wall time of the step.
    """

    number: int
    phase: PhasePlan
    result: StepResult
    learning_rate: float
    seconds: float

    @property
    def is_last(self) -> bool:
        return self.number == self.phase.steps

    @property
    def global_number(self) -> int:
        """Optimizer steps of the whole run, this one included."""
        return self.phase.first_step + self.number


class Hook(Protocol):
    """Something that is done every so many steps, and after the last one."""

    every: int

    def __call__(self, step: Step) -> None: ...


def training_steps(
    engine: Engine, batches: Batches, phase: PhasePlan, done: int, seed: int
) -> Iterator[Step]:
    """The steps of a phase from `done` on; each is a function of the weights, the seed and its number alone."""
    world, numbers = engine.world, range(done, phase.steps)
    size, in_a_step = phase.micro_batch_size, phase.split(world.size).micro_steps
    all_steps = (batches.micro_batches(number, world.rank, world.size, size) for number in numbers)
    micro_batches = fed(chain.from_iterable(all_steps), world.device, batches.finish)
    for number in numbers:
        began = time.perf_counter()
        seed_everything(seed, phase.first_step + number, world.rank)
        beats = beating(islice(micro_batches, in_a_step), f"step {number + 1}")
        if phase.marks_new:
            engine.train_new_alone(number < phase.freeze)
        result = engine.train_step(beats, batches.weight(number), phase.rates(number))
        yield Step(number + 1, phase, result, phase.learning_rate(number), time.perf_counter() - began)


def run_phase(
    engine: Engine, batches: Batches, phase: PhasePlan, done: int, seed: int, hooks: Sequence[Hook]
) -> None:
    """Take all steps of a phase, calling the hooks in their order."""
    for step in training_steps(engine, batches, phase, done, seed):
        for hook in hooks:
            if step.number % hook.every == 0 or step.is_last:
                hook(step)
