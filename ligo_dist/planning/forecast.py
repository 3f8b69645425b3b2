"""The estimates of a configuration on certain hardware: how long it takes, where it fits, when growing pays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.config.faults import suggestion
from ligo_dist.planning.estimate import MOST_RANKS, PhaseEstimate, StageEstimate
from ligo_dist.planning.setting import Setting
from ligo_dist.runtime.errors import LigoError

RESERVED = 0.1
"""Part of the memory that a plan leaves to the context, the communication library's buffers and fragmentation: an
assumption."""

SECONDS_PER_BLOCK = 0.001
"""The least time of a block's forward and backward pass, however small it is: some hundred kernels to launch, and
ZeRO-3's hooks around each of its modules. An assumption, and a floor: no GPU was measured."""

GPUS_PER_NODE = 8
"""Ranks that the faster link joins: those of one machine of the kind that the makers sell."""

_GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """One accelerator.

    Attributes:
        name: what the command line calls it.
        bf16, fp32: peak of matrix products in either, per second: with fp32 sums and without sparsity; fp32 as torch
            multiplies by default, which is not TF32.
        memory: bytes.
        link: bytes per second that it sends to the others of its machine.
        network: bytes per second that it sends to other machines.
    """

    name: str
    bf16: float
    fp32: float
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

    def peak(self, setting: Setting) -> float:
        """FLOPs per second of one, in the precision of a setting."""
        return self.bf16 if setting.number == 2 else self.fp32


def _gpu(name: str, bf16: float, fp32: float, memory: float, link: float, network: float) -> Gpu:
    """From TFLOPS, GB, and GB/s."""
    return Gpu(name, bf16 * 1e12, fp32 * 1e12, int(memory * _GB), link * _GB, network * _GB)


_GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40", 312, 19.5, 40, 300, 25),
        _gpu("a100-80", 312, 19.5, 80, 300, 25),
        _gpu("h100", 989.4, 67, 80, 450, 50),
        _gpu("h200", 989.4, 67, 141, 450, 50),
        _gpu("b200", 2250, 75, 180, 900, 50),
        _gpu("l40s", 362.05, 91.6, 48, 32, 25),
        _gpu("mi300x", 1307.4, 163.4, 192, 448, 50),
    )
}
"""Sources: docs/internals/accounting.md. A data sheet gives a link's both directions together; here is one."""

_ALIASES = {"a100": "a100-80"}

_DEVICES = {
    "a100-40": r"(NVIDIA )?A100-(SXM4|PCIE)-40GB",
    "a100-80": r"(NVIDIA )?A100(-SXM4-80GB|-PCIE-80GB| 80GB PCIe)",
    "h100": r"NVIDIA H100 80GB HBM3",
    "h200": r"NVIDIA H200",
    "b200": r"NVIDIA B200",
    "l40s": r"NVIDIA L40S",
    "mi300x": r"AMD Instinct MI300X( OAM)?",
}
"""What drivers call them. PCIe and NVL cards of the H100 and H200 have other peaks, and so have slices (MIG)."""

DEFAULT_GPU = "h100"

_EXAMPLE = "989e12,80,50"


def gpu_names() -> list[str]:
    return [*_GPUS, *_ALIASES]


def get_gpu(text: str) -> Gpu:
    """An accelerator by its name, or from `FLOPS,GB,GB/s`: peak per second in the precision of the run, memory, and
    what it sends.

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


def gpu_of_device(name: str) -> Gpu | None:
    """The accelerator that a driver calls so; None for one whose peak is not known."""
    known = (gpu for gpu in _GPUS.values() if re.fullmatch(_DEVICES[gpu.name], name))
    return next(known, None)


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
    return Gpu(text, flops, flops, int(memory * _GB), bandwidth * _GB, bandwidth * _GB)


@dataclass(frozen=True)
class Duration:
    """Seconds: of computing and of sending in one step (in growing, of all of it), and of the phase.

    The slower of the two counts: they overlap where an accelerator has a stream for each. `least` is what a step takes
    however little there is to do.
    """

    computing: float
    sending: float
    least: float
    total: float


@dataclass(frozen=True)
class BreakEven:
    """A grown stage against training its model from scratch.

    Attributes:
        stage: its name.
        so_far: model FLOPs of it and all stages before it.
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
        hfu: hardware FLOPs utilisation: the part of its peak that is reached, what is recomputed counted.
        mfu: model FLOPs utilisation: the same not counted; where it is given, it says how fast it computes.
    """

    stages: Sequence[StageEstimate]
    setting: Setting
    gpu: Gpu
    hfu: float
    mfu: float | None = None

    def duration(self, phase: PhaseEstimate) -> Duration:
        """How long a phase takes; evaluations and checkpoints are left out."""
        cost, ranks, grows = phase.cost, self.setting.ranks, phase.kind == "grow"
        steps = 1 if grows else cost.steps
        model, hardware = (
            (cost.flops, cost.hardware_flops)
            if grows
            else (cost.flops_per_step, cost.hardware_flops_per_step)
        )
        peak = ranks * self.gpu.peak(self.setting)
        computing = hardware / (peak * self.hfu) if self.mfu is None else model / (peak * self.mfu)
        sent = phase.traffic.sent(ranks)
        sending = sent / self.gpu.bandwidth(ranks) if sent else 0.0
        least = SECONDS_PER_BLOCK * phase.blocks
        return Duration(computing, sending, least, steps * max(computing, sending, least))

    def utilisation(self) -> tuple[float, float]:
        """The parts of the peak that all phases together reach: of model and of hardware FLOPs."""
        costs = [phase.cost for stage in self.stages for phase in stage.phases]
        peak = self.setting.ranks * self.gpu.peak(self.setting) * self.seconds
        model, hardware = (
            sum(counts) for counts in zip(*((c.flops, c.hardware_flops) for c in costs), strict=True)
        )
        return (model / peak, hardware / peak) if peak else (0.0, 0.0)

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.duration(phase).total for stage in self.stages for phase in stage.phases)

    @property
    def most_ranks(self) -> int:
        """The largest number of ranks that a run can have: each has a sample of the smallest batch."""
        phases = [phase for stage in self.stages for phase in stage.plan.phases if phase.steps]
        return min((phase.batch_size for phase in phases), default=MOST_RANKS)

    def fewest_ranks(self) -> list[list[int | None]]:
        """The smallest number of ranks on which each phase of each stage fits; None where none is enough."""
        usable, most = self.gpu.usable, self.most_ranks
        return [[phase.fewest_ranks(usable, most) for phase in stage.phases] for stage in self.stages]

    @property
    def fewest(self) -> int | None:
        """The smallest number of ranks on which all phases fit; None if there is none."""
        numbers = [ranks for stage in self.fewest_ranks() for ranks in stage]
        known = [ranks for ranks in numbers if ranks is not None]
        return max(known, default=1) if len(known) == len(numbers) else None

    @property
    def fits(self) -> bool:
        """Whether all phases fit on as many ranks as there are."""
        peaks = [phase.peak.total for stage in self.stages for phase in stage.phases]
        return all(peak <= self.gpu.usable for peak in peaks)

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
