"""What is done between optimizer steps: guarding, counting, measuring, showing, saving, stopping."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ligo_dist.engine import EvaluationResult, World, gather_numbers, max_over_ranks
from ligo_dist.planning import gpu_of_device
from ligo_dist.runtime.errors import NonFiniteLossError, Preempted
from ligo_dist.runtime.progress import PhaseProgress
from ligo_dist.runtime.signals import StopReason, StopSignals
from ligo_dist.schedule import PhaseCost, Plan, RunState, StageRecord
from ligo_dist.tracking import SystemMetrics, Tracker
from ligo_dist.training.loop import Step


@dataclass
class StopAtNonFinite:
    """Stops the run when the loss or the gradient is not a number any more; all ranks see the same and stop alike."""

    stage: str
    last_checkpoint: Callable[[], Path | None]
    every: int = 1

    def __call__(self, step: Step) -> None:
        loss, norm = step.result.loss, step.result.gradient_norm
        if step.result.is_finite:
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm}"
        raise NonFiniteLossError(
            f"stage {self.stage}, {step.phase.kind} step {step.number} (global step {step.global_number}): {what};"
            f" {last_good_checkpoint(self.last_checkpoint())}"
        )


def last_good_checkpoint(path: Path | None) -> str:
    """What a message says of where to go on from."""
    return f"the last good checkpoint is {path}" if path else "there is no checkpoint yet"


@dataclass
class Account:
    """Adds each step to what the run has cost."""

    state: RunState
    tokens_per_step: int
    cost: PhaseCost
    every: int = 1

    def __call__(self, step: Step) -> None:
        self.state.step = step.number
        cost = self.cost
        self.state.add(self.tokens_per_step, cost.flops_per_step, cost.hardware_flops_per_step, step.seconds)


@dataclass
class Evaluate:
    """Measures the validation loss, and of classifiers the accuracy."""

    measure: Callable[[], EvaluationResult | None]
    state: RunState
    tracker: Tracker
    every: int
    measured: Step | None = None

    def __call__(self, step: Step) -> None:
        self.run(step.global_number)
        self.measured = step

    def run(self, global_step: int) -> None:
        """Measure now, and record it."""
        began = time.perf_counter()
        measured = self.measure()
        if measured is None:
            return
        record = self.state.record
        keep_last(record, measured)
        record.seconds += time.perf_counter() - began
        self.tracker.log({**evaluated(measured), **cumulative(self.state)}, global_step)


@dataclass
class Show:
    """Shows each step to whoever is watching, with the validation loss where it was just measured."""

    show: PhaseProgress
    tokens_per_step: int
    evaluation: Evaluate
    metrics: LogMetrics
    remaining_fraction: Callable[[], float]
    every: int = 1

    def __call__(self, step: Step) -> None:
        evaluated = self.evaluation.measured is step
        record = self.evaluation.state.record
        self.show.update(
            step.number,
            loss=step.result.loss,
            learning_rate=step.learning_rate,
            gradient_norm=step.result.gradient_norm,
            tokens_per_second=self.tokens_per_step / step.seconds,
            memory=self.metrics.peak_bytes,
            validation_loss=record.final_loss if evaluated else None,
            accuracy=record.final_accuracy if evaluated else None,
            remaining_fraction=self.remaining_fraction(),
        )


@dataclass
class LogMetrics:
    """Records the metrics of a step, and with some steps the load of the nodes.

    Attributes:
        seconds_at_peak: that a step's model FLOPs take at the peak of the ranks' devices; None: it is not known.
        epochs: metrics of how often each source of a mixture was gone through, after a step of the phase.
        peak_bytes: the most memory that a rank has held, when it was last recorded.
    """

    state: RunState
    tracker: Tracker
    tokens_per_step: int
    world: World
    every: int
    system: SystemMetrics | None = None
    seconds_at_peak: float | None = None
    epochs: Callable[[int], dict[str, float]] = lambda step: {}
    peak_bytes: float | None = None

    def __call__(self, step: Step) -> None:
        kind = step.phase.kind
        held = float(memory_bytes(self.world.device))
        # On processors the system counts the peak now and then, and may be behind what it says is held.
        memory = [held, max(held, float(peak_memory_bytes(self.world.device)))]
        # One exchange for all: another one would cost every rank more than what it carries.
        rows = gather_numbers([*memory, *(self.system.row() if self.system else ())], self.world)
        most_held, self.peak_bytes = (max(row[index] for row in rows) for index in range(len(memory)))
        speed = {f"{kind}/tokens_per_second": self.tokens_per_step / step.seconds}
        if self.seconds_at_peak is not None:
            speed[f"{kind}/mfu"] = self.seconds_at_peak / step.seconds
        self.tracker.log(
            {
                f"{kind}/loss": step.result.loss,
                f"{kind}/learning_rate": step.learning_rate,
                f"{kind}/gradient_norm": step.result.gradient_norm,
                **speed,
                **self.epochs(step.number),
                "memory/held_bytes": most_held,
                "memory/peak_bytes": self.peak_bytes,
                **cumulative(self.state),
            },
            step.global_number,
        )
        load = self.system.record([row[len(memory) :] for row in rows]) if self.system else {}
        if load:
            self.tracker.log(load, step.global_number)


@dataclass
class CompleteCheckpoint:
    """Completes the checkpoint that is being written, as soon as every rank has done its part."""

    advance: Callable[[], None]
    every: int = 1

    def __call__(self, step: Step) -> None:
        self.advance()


@dataclass
class SaveCheckpoint:
    """Saves what is needed to go on from here."""

    save: Callable[[int], None]
    every: int
    saved: Step | None = None

    def __call__(self, step: Step) -> None:
        self.save(step.global_number)
        self.saved = step

    def save_once(self, step: Step) -> None:
        """Save a step now, unless it has just been saved."""
        if self.saved is not step:
            self(step)


@dataclass
class SaveAtSteps:
    """Saves after the global steps whose checkpoints are to stay; comes after `SaveCheckpoint`."""

    checkpoint: SaveCheckpoint
    steps: Collection[int]
    every: int = 1

    def __call__(self, step: Step) -> None:
        if step.global_number in self.steps:
            self.checkpoint.save_once(step)


def keep_last(record: StageRecord, measured: EvaluationResult) -> None:
    """Note an evaluation as the stage's last."""
    record.final_loss, record.final_accuracy = measured.loss, measured.accuracy
    record.final_losses = {name: part.loss for name, part in measured.parts.items()}


def evaluated(measured: EvaluationResult) -> dict[str, float]:
    """The metrics of an evaluation: of the whole, and of each part under its name."""
    metrics: dict[str, float] = {}
    for name, part in {"": measured, **measured.parts}.items():
        suffix = f"/{name}" if name else ""
        metrics[f"evaluate/loss{suffix}"] = part.loss
        if part.accuracy is not None:
            metrics[f"evaluate/accuracy{suffix}"] = part.accuracy
    return metrics


def cumulative(state: RunState) -> dict[str, float]:
    """What the run has cost so far, beside every loss."""
    return {
        "cumulative/tokens": state.tokens,
        "cumulative/flops": state.flops,
        "cumulative/hardware_flops": state.hardware_flops,
        "cumulative/seconds": state.seconds,
    }


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


def seconds_at_peak(plan: Plan, cost: PhaseCost, device: torch.device) -> float | None:
    """The time that the model FLOPs of a phase's step would take at the peak of all ranks' devices, in the precision of
    the plan; None on processors, and on devices whose peak is not known."""
    if device.type != "cuda":
        return None
    gpu = gpu_of_device(torch.cuda.get_device_name(device))
    return None if gpu is None else cost.flops_per_step / (plan.world_size * gpu.peak(plan.config.precision))


def stop_if_asked(signals: StopSignals, world: World, where: str, save: Callable[[], object]) -> None:
    """Stop here if any rank has been asked to. Collective.

    Args:
        signals: of this rank.
        world: the ranks.
        where: for the message: `medium learn step 17`.
        save: writes what is not in a complete checkpoint yet; done before stopping.

    Raises:
        Preempted: on every rank.
    """
    number = int(max_over_ranks(float(signals.requested or 0), world))
    if number:
        save()
        words = StopReason(number).words
        raise Preempted(f"{words} after {where}; the same command goes on from the last checkpoint")


@dataclass
class StopWhenAsked:
    """The hook of each step; it comes last.

    Attributes:
        stage: name of the stage.
        signals: of this rank.
        world: the ranks.
        save: has a step in a complete checkpoint.
        ends_run: whether nothing follows the phase but the export: then its last step stops nothing.
    """

    stage: str
    signals: StopSignals
    world: World
    save: Callable[[Step], None]
    ends_run: bool
    every: int = 1

    def __call__(self, step: Step) -> None:
        if step.is_last and self.ends_run:
            return
        where = f"{self.stage} {step.phase.kind} step {step.number} (global step {step.global_number})"
        stop_if_asked(self.signals, self.world, where, lambda: self.save(step))
