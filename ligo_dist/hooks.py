"""What is done between optimizer steps: guarding, counting, measuring, showing, saving."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ligo_dist.distributed import World, max_over_ranks
from ligo_dist.errors import NonFiniteLossError
from ligo_dist.loop import Step
from ligo_dist.progress import PhaseProgress
from ligo_dist.stages import RunState
from ligo_dist.tracking import Tracker


@dataclass
class StopAtNonFinite:
    """Stops the run when the loss or the gradient is not a number any more; all ranks see the same and stop alike."""

    stage: str
    last_checkpoint: Callable[[], Path | None]
    every: int = 1

    def __call__(self, step: Step) -> None:
        loss, norm = step.result.loss, step.result.gradient_norm
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
        last = self.last_checkpoint()
        where = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise NonFiniteLossError(
            f"stage {self.stage}, {step.phase.kind} step {step.number} (global step {step.global_number}): {what};"
            f" {where}"
        )


@dataclass
class Account:
    """Adds each step to what the run has cost."""

    state: RunState
    sequence_length: int
    flops_per_step: float
    every: int = 1

    def __call__(self, step: Step) -> None:
        self.state.step = step.number
        tokens = step.phase.batch_size * self.sequence_length
        self.state.add(tokens, self.flops_per_step, step.seconds)


@dataclass
class Evaluate:
    """Measures the validation loss."""

    measure: Callable[[], float]
    state: RunState
    tracker: Tracker
    every: int
    measured: Step | None = None

    def __call__(self, step: Step) -> None:
        began = time.perf_counter()
        loss = self.measure()
        self.state.record.final_loss = loss
        self.state.record.seconds += time.perf_counter() - began
        self.tracker.log({"evaluate/loss": loss, **cumulative(self.state)}, step.global_number)
        self.measured = step


@dataclass
class Show:
    """Shows each step to whoever is watching, with the validation loss where it was just measured."""

    show: PhaseProgress
    tokens_per_step: int
    evaluation: Evaluate
    remaining_fraction: Callable[[], float]
    every: int = 1

    def __call__(self, step: Step) -> None:
        evaluated = self.evaluation.measured is step
        self.show.update(
            step.number,
            loss=step.result.loss,
            tokens_per_second=self.tokens_per_step / step.seconds,
            validation_loss=self.evaluation.state.record.final_loss if evaluated else None,
            remaining_fraction=self.remaining_fraction(),
        )


@dataclass
class LogMetrics:
    """Records the metrics of a step."""

    state: RunState
    tracker: Tracker
    tokens_per_step: int
    world: World
    every: int

    def __call__(self, step: Step) -> None:
        kind = step.phase.kind
        held = max_over_ranks(memory_bytes(self.world.device), self.world)
        peak = max_over_ranks(peak_memory_bytes(self.world.device), self.world)
        self.tracker.log(
            {
                f"{kind}/loss": step.result.loss,
                f"{kind}/learning_rate": step.learning_rate,
                f"{kind}/gradient_norm": step.result.gradient_norm,
                f"{kind}/tokens_per_second": self.tokens_per_step / step.seconds,
                "memory/held_bytes": held,
                "memory/peak_bytes": peak,
                **cumulative(self.state),
            },
            step.global_number,
        )


@dataclass
class SaveCheckpoint:
    """Saves what is needed to go on from here."""

    save: Callable[[int], None]
    every: int

    def __call__(self, step: Step) -> None:
        self.save(step.global_number)


def cumulative(state: RunState) -> dict[str, float]:
    """What the run has cost so far, beside every loss."""
    return {"cumulative/tokens": state.tokens, "cumulative/flops": state.flops}


def memory_bytes(device: torch.device) -> int:
    """The memory this process holds now: of the accelerator, or resident where there is none."""
    if device.type != "cpu":
        return torch.get_device_module(device).memory_allocated(device)
    return psutil.Process().memory_info().rss


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: of the accelerator, or resident where there is none."""
    if device.type != "cpu":
        return torch.get_device_module(device).max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
