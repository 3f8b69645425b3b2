"""The estimates of a configuration on certain hardware: how long it takes, where it fits, what growing saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.planning.estimate import PhaseEstimate, StageEstimate
from ligo_dist.planning.hardware import Gpu
from ligo_dist.planning.saving import PUBLISHED, Saving, savings
from ligo_dist.planning.setting import Setting


@dataclass(frozen=True)
class Duration:
    """Seconds: of computing and of sending in one step (in growing, of all of it), and of the phase.

    The slower of the two counts: they overlap where an accelerator has a stream for each.
    """

    computing: float
    sending: float
    total: float


@dataclass(frozen=True)
class Forecast:
    """A configuration's estimates on certain hardware.

    Attributes:
        stages: the estimates.
        setting: what they were made for.
        gpu: what computes.
        utilisation: part of its peak that is reached.
        saving: assumed part of the FLOPs from scratch that a grown stage saves; None: as published.
    """

    stages: Sequence[StageEstimate]
    setting: Setting
    gpu: Gpu
    utilisation: float
    saving: float | None = None

    def duration(self, phase: PhaseEstimate) -> Duration:
        """How long a phase takes; evaluations and checkpoints are left out."""
        steps = max(phase.cost.steps, 1) if phase.kind == "grow" else phase.cost.steps
        flops = phase.cost.flops if phase.kind == "grow" else phase.cost.flops_per_step
        sent = phase.traffic.sent(self.setting.ranks)
        computing, sending = self.gpu.seconds(flops, sent, self.setting.ranks, self.utilisation)
        return Duration(computing, sending, steps * max(computing, sending))

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return sum(self.duration(phase).total for stage in self.stages for phase in stage.phases)

    def fewest_ranks(self) -> list[list[int | None]]:
        """The smallest number of ranks on which each phase of each stage fits; None where none is enough."""
        usable = self.gpu.usable
        return [[phase.fewest_ranks(usable) for phase in stage.phases] for stage in self.stages]

    @property
    def assumed(self) -> tuple[float, str]:
        """The part that growing is assumed to save, and on what ground."""
        if self.saving is not None:
            return self.saving, "as asked for"
        model, part = PUBLISHED.get(self.setting.architecture.objective, ("", 0.0))
        return part, f"LiGO's published saving for {model}" if model else "nothing is published"

    def savings(self) -> list[Saving]:
        return savings(self.stages, self.assumed[0])
