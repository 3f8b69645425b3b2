"""What a configuration will do, in numbers: the shape of each stage's model and the cost of each phase."""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.accounting import growing_flops, learning_step_flops, parameter_count, training_step_flops
from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config import Config, stage_shapes
from ligo_dist.config.phase_checks import learn_batch, ways_to_grow
from ligo_dist.config.schema import Grow, Train
from ligo_dist.config.shapes import tokens_per_sample
from ligo_dist.growth.claims import obstacles  # noqa: TID251 - shapes alone: no torch


@dataclass(frozen=True)
class PhaseCost:
    """What one phase costs over all ranks; evaluation is left out.

    Attributes:
        steps: optimizer steps.
        tokens: tokens that it reads.
        flops: FLOPs.
    """

    steps: int
    tokens: int
    flops: int

    def __add__(self, other: PhaseCost) -> PhaseCost:
        return PhaseCost(self.steps + other.steps, self.tokens + other.tokens, self.flops + other.flops)


@dataclass(frozen=True)
class StagePlan:
    """One stage: its model and its phases; `learn` and `grow` are None in the first.

    Attributes:
        name: the user's name for it.
        source: where its model is taken from; None: from the stage before, or random values.
        method: how it is grown; None in the first.
        obstacles: why the grown model does not compute what the one before does; None in the first, empty where it
            does: then the run verifies it.
        shape, parameters: of its model.
        learn, grow, train: what its phases cost.
    """

    name: str
    source: str | None
    method: str | None
    obstacles: list[str] | None
    shape: ModelShape
    parameters: int
    learn: PhaseCost | None
    grow: PhaseCost | None
    train: PhaseCost

    @property
    def total(self) -> PhaseCost:
        return sum((cost for cost in (self.learn, self.grow) if cost), self.train)


def plan_stages(config: Config, vocabulary: int, world_size: int) -> list[StagePlan]:
    """The stages of a checked configuration; `vocabulary` is the tokenizer's number of pieces, 0 for images."""
    architecture = get_architecture(config.model.family)
    plans: list[StagePlan] = []
    for stage, shape in zip(config.stages, stage_shapes(config, vocabulary), strict=True):
        length = tokens_per_sample(architecture, shape, config.data.sequence_length)
        learn = grow = unkept = None
        if stage.grow is not None:
            pair = _Pair(architecture, plans[-1].shape, shape, stage.grow)
            unkept = pair.obstacles()
            learn = pair.learn_cost(length, stage.train, world_size)
            grow = pair.grow_cost()
        plans.append(
            StagePlan(
                name=stage.name,
                source=stage.from_,
                method=_method_name(stage.grow) if stage.grow else None,
                obstacles=unkept,
                shape=shape,
                parameters=parameter_count(architecture, shape),
                learn=learn,
                grow=grow,
                train=_train_cost(architecture, shape, length, stage.train),
            )
        )
    return plans


def _method_name(grow: Grow) -> str:
    """The method with what replaces its own ways."""
    return " + ".join(name for name in (grow.method, grow.depth, grow.width) if name is not None)


def _train_cost(architecture: Architecture, shape: ModelShape, length: int, train: Train | None) -> PhaseCost:
    if train is None:
        return PhaseCost(0, 0, 0)
    checkpointed = train.activation_checkpointing
    flops = training_step_flops(architecture, shape, length, train.batch_size, checkpointed=checkpointed)
    return PhaseCost(train.steps, train.steps * train.batch_size * length, train.steps * flops)


@dataclass(frozen=True)
class _Pair:
    """A model and the one that it grows into, with what `ligo_dist.costs` knows from the operator itself."""

    architecture: Architecture
    source: ModelShape
    target: ModelShape
    grow: Grow

    def obstacles(self) -> list[str]:
        """Why growing changes the function; empty where it keeps it."""
        ways, grow = ways_to_grow(self.grow), self.grow
        if ways is None:
            return [f"{grow.method!r} starts anew"]
        depth, width = ways
        return obstacles(
            self.architecture,
            self.source,
            self.target,
            depth=depth,
            width=width,
            noise=grow.noise,
            share_depth=grow.share_depth,
        )

    def learn_cost(self, length: int, train: Train | None, world_size: int) -> PhaseCost:
        """Learning the operator, the search for its learning rate included."""
        ways, learn = ways_to_grow(self.grow), self.grow.learn
        if ways is None or train is None or not learn.steps:
            return PhaseCost(0, 0, 0)
        batch, micro = learn_batch(learn, train)
        step = learning_step_flops(
            self.architecture,
            self.source,
            self.target,
            length,
            batch,
            micro_batch_size=micro,
            world_size=world_size,
            columns=self._columns(ways[0]),
        )
        flops = step.model + _times(ways[1]) * (step.mixing + step.expansion)
        steps = learn.steps + (len(learn.sweep.learning_rates) * learn.sweep.steps if learn.sweep else 0)
        return PhaseCost(steps, steps * batch * length, steps * flops)

    def grow_cost(self) -> PhaseCost:
        """Applying the operator; where the optimizer's state grows too, its two moments as well."""
        ways = ways_to_grow(self.grow)
        if ways is None:
            return PhaseCost(0, 0, 0)
        once = growing_flops(self.architecture, self.source, self.target, columns=self._columns(ways[0]))
        states = 1 if self.grow.optimizer_state == "fresh" else 3
        return PhaseCost(0, 0, states * _times(ways[1]) * once)

    def _columns(self, depth: str) -> int:
        """Layers that depth coefficients mix: the source's, and new or constant ones beside them."""
        new = self.target.layers - self.source.layers
        if depth == "random-layers":
            return self.target.layers
        return self.source.layers + (
            1 if new and self.architecture.post_norm and depth == "identity-layers" else 0
        )


def _times(width: str) -> int:
    """New units with depth coefficients of their own are made apart: everything is generated twice."""
    return 2 if width == "bert2bert-aki" else 1
