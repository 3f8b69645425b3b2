"""The estimates of a plan on certain hardware: how long it takes, where it fits, when growing pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ligo_dist.planning.estimate import GROW, MOST_RANKS, PhaseEstimate, estimate_phases, fewest_ranks
from ligo_dist.planning.hardware import Gpu
from ligo_dist.schedule import Plan, StagePlan

SECONDS_PER_BLOCK = 0.001
"""The least time of a block's forward and backward pass, however small it is: some hundred kernels to launch, and
ZeRO-3's hooks around each of its modules. An assumption, and a floor: no GPU was measured."""


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
class Forecast:
    """A plan's estimates on certain hardware.

    Attributes:
        plan: with its number of ranks.
        gpu: what computes.
        hfu: hardware FLOPs utilisation: the part of its peak that is reached, what is recomputed counted.
        mfu: model FLOPs utilisation: the same not counted; where it is given, it says how fast it computes.
    """

    plan: Plan
    gpu: Gpu
    hfu: float
    mfu: float | None = None

    @cached_property
    def phases(self) -> list[PhaseEstimate]:
        """The estimates, stage by stage."""
        return estimate_phases(self.plan)

    def duration(self, phase: PhaseEstimate) -> Duration:
        """How long a phase takes; evaluations and checkpoints are left out."""
        cost, ranks, grows = phase.cost, self.plan.world_size, phase.kind == GROW
        if self.mfu is None:
            flops, reached = cost.hardware_flops if grows else cost.hardware_flops_per_step, self.hfu
        else:
            flops, reached = cost.flops if grows else cost.flops_per_step, self.mfu
        computing = flops / (self._peak * reached)
        sent = phase.traffic.sent(ranks)
        sending = sent / self.gpu.bandwidth(ranks) if sent else 0.0
        least = SECONDS_PER_BLOCK * phase.blocks
        steps = 1 if grows else cost.steps
        return Duration(computing, sending, least, steps * max(computing, sending, least))

    @property
    def _peak(self) -> float:
        """FLOPs per second of all ranks."""
        return self.plan.world_size * self.gpu.peak(self.plan.config.precision)

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.duration(phase).total for phase in self.phases)

    def utilisation(self) -> tuple[float, float]:
        """The parts of the peak that all phases together reach: of model and of hardware FLOPs."""
        peak, cost = self._peak * self.seconds, self.plan.cost
        return (cost.flops / peak, cost.hardware_flops / peak) if peak else (0.0, 0.0)

    @property
    def most_ranks(self) -> int:
        """The largest number of ranks that a run can have: each has a sample of the smallest batch."""
        phases = [phase for stage in self.plan.stages for phase in stage.phases if phase.steps]
        return min((phase.batch_size for phase in phases), default=MOST_RANKS)

    def fewest_ranks(self, phases: Sequence[PhaseEstimate]) -> int | None:
        """The smallest number of ranks on which these phases fit; None if there is none."""
        return fewest_ranks(phases, self.gpu.usable, self.most_ranks)

    @cached_property
    def fewest(self) -> int | None:
        """The smallest number of ranks on which all phases fit; None if there is none."""
        return self.fewest_ranks(self.phases)

    @property
    def fits(self) -> bool:
        """Whether all phases fit on as many ranks as there are."""
        return all(phase.peak.total <= self.gpu.usable for phase in self.phases)

    def break_evens(self) -> list[tuple[StagePlan, int, float]]:
        """Each stage that is grown and trained against training its model from scratch.

        Returns:
            The stage, the model FLOPs of it and all stages before it, and the steps from scratch that cost as much:
            growing pays if the same loss takes more of them.
        """
        found, so_far = [], 0
        for stage in self.plan.stages:
            so_far += stage.cost.total.flops
            step = stage.cost.train.flops_per_step
            if stage.cost.grow is not None and step:
                found.append((stage, so_far, so_far / step))
        return found
