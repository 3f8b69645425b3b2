"""What phases cost: `flops`, applied to the phases of a schedule. Known before anything runs, and what the run itself
counts; without torch, as the launcher shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ligo_dist.architectures import Architecture, ModelShape, Selection
from ligo_dist.growth import GrowthLayout
from ligo_dist.schedule.batch_split import BatchSplit
from ligo_dist.schedule.flops import (
    growing_flops,
    learning_step_flops,
    orthogonalizing_flops,
    training_step_flops,
)


@dataclass(frozen=True)
class Attended:
    """Pairs of positions of a sequence that attend to each other, on average; None: each to each.

    Attributes:
        by_documents: where documents are kept apart; what the mathematics takes.
        computed: what the hardware computes: with a mask each to each, and by documents where attention passes over
            what is masked.
    """

    by_documents: int | None = None
    computed: int | None = None


EACH_TO_EACH = Attended()


@dataclass(frozen=True)
class PhaseCost:
    """What one phase costs over all ranks; evaluation is left out.

    Attributes:
        steps: optimizer steps.
        tokens: tokens that it reads.
        flops: model FLOPs, which know no recomputation; savings are stated in them.
        hardware_flops: the same and what is recomputed in the backward pass.
        padding: part of what its ranks compute that is padding, which tokens and FLOPs leave out.
    """

    steps: int = 0
    tokens: int = 0
    flops: int = 0
    hardware_flops: int = 0
    padding: float = 0.0

    @property
    def flops_per_step(self) -> int:
        """Of one of its steps; 0 if it has none."""
        return self.flops // self.steps if self.steps else 0

    @property
    def hardware_flops_per_step(self) -> int:
        return self.hardware_flops // self.steps if self.steps else 0

    def __add__(self, other: PhaseCost) -> PhaseCost:
        return PhaseCost(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.hardware_flops + other.hardware_flops,
        )


@dataclass(frozen=True)
class StageCost:
    """What the phases of one stage cost; `learn` and `grow` are None where nothing grows."""

    learn: PhaseCost | None
    grow: PhaseCost | None
    train: PhaseCost

    @property
    def total(self) -> PhaseCost:
        return sum((cost for cost in (self.learn, self.grow) if cost), self.train)


def training_cost(
    architecture: Architecture,
    shape: ModelShape,
    steps: int,
    split: BatchSplit,
    tokens: int,
    *,
    checkpointed: bool,
    muon: bool = False,
    attended: Attended = EACH_TO_EACH,
) -> PhaseCost:
    """Training a model.

    Args:
        architecture: the family.
        shape: the model.
        steps: optimizer steps.
        split: of their batches over the ranks.
        tokens: of one sample.
        checkpointed: the blocks' activations are computed again in the backward pass.
        muon: it trains the blocks' matrices.
        attended: of one sample.
    """
    own = orthogonalizing_flops(architecture, shape) if muon else 0
    model, hardware = (
        training_step_flops(architecture, shape, tokens, split.batch_size, checkpointed=again, attended=pairs)
        for again, pairs in ((False, attended.by_documents), (checkpointed, attended.computed))
    )
    return _cost(steps, split, tokens, model + own, hardware + own)


def learning_cost(
    layout: GrowthLayout,
    steps: int,
    split: BatchSplit,
    tokens: int,
    *,
    checkpointed: bool,
    attended: Attended = EACH_TO_EACH,
) -> PhaseCost:
    """Learning an operator, which AdamW always does; the arguments as in `training_cost`."""
    model, hardware = (
        learning_step_flops(
            layout, tokens, split, checkpointed=checkpointed, hardware=hardware, attended=pairs
        )
        for hardware, pairs in ((False, attended.by_documents), (True, attended.computed))
    )
    return _cost(steps, split, tokens, model, hardware)


def growing_cost(layout: GrowthLayout, states: Iterable[Selection]) -> PhaseCost:
    """Applying an operator to the weights, and to the moments that grow too: each has its own map, and the parameters
    that have it."""
    flops = sum(growing_flops(layout, selection) for selection in states)
    return PhaseCost(flops=flops, hardware_flops=flops)


def _cost(steps: int, split: BatchSplit, tokens: int, flops: int, hardware_flops: int) -> PhaseCost:
    """A phase of so many steps: the split of their batches, the tokens of one sample, the FLOPs of one step."""
    padding = split.padding if steps else 0.0
    return PhaseCost(steps, steps * split.batch_size * tokens, steps * flops, steps * hardware_flops, padding)
