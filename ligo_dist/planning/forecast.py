"""The estimates of a configuration on certain hardware: how long it takes, where it fits, when growing pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.config.faults import suggestion
from ligo_dist.planning.estimate import PhaseEstimate, StageEstimate
from ligo_dist.planning.setting import Setting
from ligo_dist.runtime.errors import LigoError

RESERVED = 0.1
"""Part of the memory that a plan leaves to the context, the communication library's buffers and fragmentation: an
assumption."""

GPUS_PER_NODE = 8
"""Ranks that the faster link joins: those of one machine of the kind that the makers sell."""

_GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """One accelerator.

    Attributes:
        name: what the command line calls it.
        flops: peak of bf16 matrix products with fp32 sums, without sparsity, per second.
        memory: bytes.
        link: bytes per second that it sends to the others of its machine.
        network: bytes per second that it sends to other machines.
    """

    name: str
    flops: float
    memory: int
    link: float
    network: float

    @property
    def usable(self) -> int:
        """Bytes of memory that a plan may fill."""
        return int(self.memory * (1 - RESERVED))

    def bandwidth(self, ranks: int) -> float:
        """Bytes per second that a rank sends: over the slower of the links that join them all."""
        return self.link if ranks <= GPUS_PER_NODE else self.network

    def seconds(self, flops: float, sent: float, ranks: int, mfu: float) -> tuple[float, float]:
        """Computing `flops` of all ranks at a part of their peak, and sending `sent` bytes from each."""
        computing = flops / (ranks * self.flops * mfu)
        return computing, sent / self.bandwidth(ranks) if sent else 0.0


def _gpu(name: str, teraflops: float, memory: float, link: float, network: float) -> Gpu:
    return Gpu(name, teraflops * 1e12, int(memory * _GB), link * _GB, network * _GB)


_GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40", 312, 40, 300, 25),
        _gpu("a100-80", 312, 80, 300, 25),
        _gpu("h100", 989.4, 80, 450, 50),
        _gpu("h200", 989.4, 141, 450, 50),
        _gpu("b200", 2250, 180, 900, 50),
        _gpu("l40s", 362.05, 48, 32, 25),
        _gpu("mi300x", 1307.4, 192, 448, 50),
    )
}
"""Sources: docs/internals/accounting.md. A data sheet gives a link's both directions together; here is one."""

_ALIASES = {"a100": "a100-80"}

DEFAULT_GPU = "h100"

_EXAMPLE = "989e12,80,50"


def gpu_names() -> list[str]:
    return [*_GPUS, *_ALIASES]


def get_gpu(text: str) -> Gpu:
    """An accelerator by its name, or from `FLOPS,GB,GB/s`: peak per second, memory, and what it sends.

    Raises:
        LigoError: for a name that is not known, or figures that are none.
    """
    if "," in text:
        return _given(text)
    name = text.lower()
    name = _ALIASES.get(name, name)
    if name in _GPUS:
        return _GPUS[name]
    near = suggestion(name, gpu_names())
    raise LigoError(f"--gpu: {text!r} is not known{near}; or its figures as FLOPS,GB,GB/s: {_EXAMPLE}")


def _given(text: str) -> Gpu:
    try:
        flops, memory, bandwidth = (float(part) for part in text.split(","))
    except ValueError:
        flops = memory = bandwidth = 0.0
    if not min(flops, memory, bandwidth) > 0 or max(flops, memory, bandwidth) == float("inf"):
        raise LigoError(
            f"--gpu: {text!r} should be three numbers above 0: peak FLOPS, memory in GB, bandwidth in GB/s;"
            f" {_EXAMPLE} would be right"
        )
    return Gpu(text, flops, int(memory * _GB), bandwidth * _GB, bandwidth * _GB)


@dataclass(frozen=True)
class Duration:
    """Seconds: of computing and of sending in one step (in growing, of all of it), and of the phase.

    The slower of the two counts: they overlap where an accelerator has a stream for each.
    """

    computing: float
    sending: float
    total: float


@dataclass(frozen=True)
class BreakEven:
    """A grown stage against training its model from scratch.

    Attributes:
        stage: its name.
        so_far: FLOPs of it and all stages before it.
        scratch_steps: steps from scratch that cost as much: growing pays if the same loss takes more of them.
        train_steps: steps that the stage itself trains.
    """

    stage: str
    so_far: int
    scratch_steps: float
    train_steps: int


@dataclass(frozen=True)
class Forecast:
    """A configuration's estimates on certain hardware.

    Attributes:
        stages: the estimates.
        setting: what they were made for.
        gpu: what computes.
        mfu: model FLOPs utilisation, the part of its peak that is reached.
    """

    stages: Sequence[StageEstimate]
    setting: Setting
    gpu: Gpu
    mfu: float

    def duration(self, phase: PhaseEstimate) -> Duration:
        """How long a phase takes; evaluations and checkpoints are left out."""
        steps = max(phase.cost.steps, 1) if phase.kind == "grow" else phase.cost.steps
        flops = phase.cost.flops if phase.kind == "grow" else phase.cost.flops_per_step
        sent = phase.traffic.sent(self.setting.ranks)
        computing, sending = self.gpu.seconds(flops, sent, self.setting.ranks, self.mfu)
        return Duration(computing, sending, steps * max(computing, sending))

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.duration(phase).total for stage in self.stages for phase in stage.phases)

    def fewest_ranks(self) -> list[list[int | None]]:
        """The smallest number of ranks on which each phase of each stage fits; None where none is enough."""
        usable = self.gpu.usable
        return [[phase.fewest_ranks(usable) for phase in stage.phases] for stage in self.stages]

    def break_evens(self) -> list[BreakEven]:
        """One for each stage that is grown and trained."""
        found, so_far = [], 0
        for stage in self.stages:
            cost = stage.plan.cost
            so_far += cost.total.flops
            train = cost.train
            if cost.grow is not None and train.flops_per_step:
                found.append(BreakEven(stage.name, so_far, so_far / train.flops_per_step, train.steps))
        return found
