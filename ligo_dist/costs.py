"""What a schedule costs: `accounting`, applied to the stages of a configuration. Known before anything runs, and what
the run itself counts; without torch, as the launcher shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ligo_dist.accounting import growing_flops, learning_step_flops, training_step_flops
from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.batch_split import BatchSplit
from ligo_dist.config.schema import Config, Grow, Train
from ligo_dist.config.shapes import tokens_per_sample
from ligo_dist.config.ways import learn_batch, learn_steps, sweep_steps, ways_to_grow
from ligo_dist.growth.claims import fresh_layers, has_new_depth, needs_unit_layer


@dataclass(frozen=True)
class PhaseCost:
    """What one phase costs over all ranks; evaluation is left out.

    Attributes:
        steps: optimizer steps.
        tokens: tokens that it reads.
        flops: FLOPs.
        flops_per_step: the same for one of its steps; 0 if it has none.
        padding: part of what its ranks compute that is padding, which tokens and FLOPs leave out.
    """

    steps: int = 0
    tokens: int = 0
    flops: int = 0
    flops_per_step: int = 0
    padding: float = 0.0

    def __add__(self, other: PhaseCost) -> PhaseCost:
        return PhaseCost(self.steps + other.steps, self.tokens + other.tokens, self.flops + other.flops)


@dataclass(frozen=True)
class StageCost:
    """What the phases of one stage cost; `learn` (with the search for its learning rate) and `grow` are None where
    nothing grows."""

    learn: PhaseCost | None
    grow: PhaseCost | None
    train: PhaseCost

    @property
    def total(self) -> PhaseCost:
        return sum((cost for cost in (self.learn, self.grow) if cost), self.train)


def stage_costs(config: Config, shapes: Sequence[ModelShape], world_size: int) -> list[StageCost]:
    """The costs of all stages, over all ranks.

    Args:
        config: a checked configuration.
        shapes: of the stages' models.
        world_size: number of ranks; mixing is done once by all of them together.
    """
    architecture = get_architecture(config.model.family)
    costs: list[StageCost] = []
    for index, (stage, shape) in enumerate(zip(config.stages, shapes, strict=True)):
        tokens = tokens_per_sample(architecture, shape, config.data.sequence_length)
        learn = grow = None
        if stage.grow is not None and ways_to_grow(stage.grow) is not None:
            pair = _Pair(architecture, shapes[index - 1], shape, stage.grow)
            learn = pair.learn_cost(tokens, stage.train, world_size)
            grow = pair.grow_cost()
        train = _train_cost(architecture, shape, tokens, stage.train, world_size)
        costs.append(StageCost(learn, grow, train))
    return costs


def _train_cost(
    architecture: Architecture, shape: ModelShape, tokens: int, train: Train | None, world_size: int
) -> PhaseCost:
    if train is None:
        return PhaseCost()
    checkpointed = train.activation_checkpointing
    flops = training_step_flops(architecture, shape, tokens, train.batch_size, checkpointed=checkpointed)
    split = BatchSplit(train.batch_size, train.micro_batch_size, world_size)
    return _phase(train.steps, split, tokens, flops)


@dataclass(frozen=True)
class _Pair:
    """A model and the one that it grows into."""

    architecture: Architecture
    source: ModelShape
    target: ModelShape
    grow: Grow

    def learn_cost(self, tokens: int, train: Train | None, world_size: int) -> PhaseCost:
        """Learning the operator, the search for its learning rate included."""
        if train is None:
            return PhaseCost()
        batch, micro = learn_batch(self.grow.learn, train)
        step = learning_step_flops(
            self.architecture,
            self.source,
            self.target,
            tokens,
            batch,
            micro_batch_size=micro,
            world_size=world_size,
            columns=self._columns,
        )
        flops = step.model + self._times * (step.mixing + step.expansion)
        split = BatchSplit(batch, micro, world_size)
        return _phase(learn_steps(self.grow) + sweep_steps(self.grow), split, tokens, flops)

    def grow_cost(self) -> PhaseCost:
        """Applying the operator; where the optimizer's state grows too, three times: each moment has its own map."""
        once = growing_flops(self.architecture, self.source, self.target, columns=self._columns)
        states = 1 if self.grow.optimizer_state == "fresh" else 3
        return PhaseCost(flops=states * self._times * once)

    @property
    def _ways(self) -> tuple[str, str]:
        ways = ways_to_grow(self.grow)
        assert ways is not None
        return ways

    @property
    def _columns(self) -> int:
        """Layers that depth coefficients mix."""
        depth = self._ways[0]
        unit = needs_unit_layer(self.architecture, self.source, self.target, depth)
        return self.source.layers + fresh_layers(self.source, self.target, depth) + unit

    @property
    def _times(self) -> int:
        """New units with depth coefficients of their own are made apart: everything is generated twice."""
        return 2 if has_new_depth(self._ways[1]) else 1


def _phase(steps: int, split: BatchSplit, tokens: int, flops: int) -> PhaseCost:
    """A phase of so many steps: the split of their batches, the tokens of one sample, the FLOPs of one step."""
    if not steps:
        return PhaseCost()
    return PhaseCost(steps, steps * split.batch_size * tokens, steps * flops, flops, split.padding)
