"""What a configuration will do, in numbers: the shape of each stage's model and the cost of each phase."""

from __future__ import annotations

from dataclasses import dataclass

from ligo_dist.accounting import growing_flops, learning_step_flops, parameter_count, training_step_flops
from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config import Config, model_shape
from ligo_dist.config.schema import Grow, Train
from ligo_dist.config.stage_checks import learn_batch


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
    """One stage: its model and its phases; `learn` and `grow` are None in the first."""

    name: str
    method: str | None
    shape: ModelShape
    parameters: int
    learn: PhaseCost | None
    grow: PhaseCost | None
    train: PhaseCost

    @property
    def total(self) -> PhaseCost:
        return sum((cost for cost in (self.learn, self.grow) if cost), self.train)


def plan_stages(config: Config, vocabulary: int, world_size: int) -> list[StagePlan]:
    """The stages of a checked configuration; `vocabulary` is the tokenizer's number of pieces."""
    architecture = get_architecture(config.model.family)
    length = config.data.sequence_length
    plans: list[StagePlan] = []
    for stage in config.stages:
        shape = model_shape(config.model, stage.size, vocabulary)
        learn = grow = None
        if stage.grow is not None:
            source = plans[-1].shape
            learn = _learn_cost(architecture, source, shape, length, stage.grow, stage.train, world_size)
            grow = PhaseCost(0, 0, growing_flops(architecture, source, shape))
        plans.append(
            StagePlan(
                name=stage.name,
                method=stage.grow.method if stage.grow else None,
                shape=shape,
                parameters=parameter_count(architecture, shape),
                learn=learn,
                grow=grow,
                train=_train_cost(architecture, shape, length, stage.train),
            )
        )
    return plans


def _train_cost(architecture: Architecture, shape: ModelShape, length: int, train: Train) -> PhaseCost:
    checkpointed = train.activation_checkpointing
    flops = training_step_flops(architecture, shape, length, train.batch_size, checkpointed=checkpointed)
    return PhaseCost(train.steps, train.steps * train.batch_size * length, train.steps * flops)


def _learn_cost(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    length: int,
    grow: Grow,
    train: Train,
    world_size: int,
) -> PhaseCost:
    batch, micro = learn_batch(grow.learn, train)
    step = learning_step_flops(
        architecture, source, target, length, batch, micro_batch_size=micro, world_size=world_size
    )
    steps = grow.learn.steps
    return PhaseCost(steps, steps * batch * length, steps * step.total)
