"""FLOPs of the phases of a schedule: what `accounting` says of models, applied to stages."""

from __future__ import annotations

from ligo_dist.accounting import growing_flops, learning_step_flops, training_step_flops
from ligo_dist.architectures import Architecture
from ligo_dist.stages import GrowPlan, StagePlan


def train_step(architecture: Architecture, stage: StagePlan, tokens_per_sample: int) -> float:
    """One optimizer step of a stage's model, over all ranks."""
    phase = stage.train
    return training_step_flops(
        architecture,
        stage.shape,
        tokens_per_sample,
        phase.batch_size,
        checkpointed=phase.activation_checkpointing,
    )


def learn_step(architecture: Architecture, grow: GrowPlan, tokens_per_sample: int, world_size: int) -> float:
    """One optimizer step of a growth operator, over all ranks."""
    growth, phase = grow.growth, grow.learn
    flops = learning_step_flops(
        architecture,
        growth.source,
        growth.target,
        tokens_per_sample,
        phase.batch_size,
        micro_batch_size=phase.micro_batch_size,
        world_size=world_size,
        columns=growth.columns,
    )
    return flops.model + _times(grow) * (flops.mixing + flops.expansion)


def grow_once(architecture: Architecture, grow: GrowPlan) -> float:
    """Applying the operator; where the optimizer's state grows too, three times: each moment has its own map."""
    growth = grow.growth
    once = growing_flops(architecture, growth.source, growth.target, columns=growth.columns)
    states = 1 if grow.optimizer_state == "fresh" else 3
    return states * _times(grow) * once


def schedule(
    architecture: Architecture, stages: list[StagePlan], tokens_per_sample: int, world_size: int
) -> float:
    """The whole schedule, over all ranks, without evaluation."""
    total = 0.0
    for stage in stages:
        total += stage.train.steps * train_step(architecture, stage, tokens_per_sample)
        if stage.grow is not None:
            steps = stage.grow.learn.steps + sweep_steps(stage.grow)
            total += steps * learn_step(architecture, stage.grow, tokens_per_sample, world_size)
            total += grow_once(architecture, stage.grow)
    return total


def sweep_steps(grow: GrowPlan) -> int:
    """Optimizer steps that the search for a learning rate takes."""
    return len(grow.sweep.learning_rates) * grow.sweep.steps if grow.sweep else 0


def _times(grow: GrowPlan) -> int:
    """New units with depth coefficients of their own are made apart: everything is generated twice."""
    return 2 if grow.growth.new_depth else 1
