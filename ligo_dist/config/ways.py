"""What a `grow` section comes to, its defaults and its method's filled in."""

from __future__ import annotations

from ligo_dist.config.schema import Grow, Learn, Train
from ligo_dist.growth.names import METHODS, resolve


def ways_to_grow(grow: Grow) -> tuple[str, str] | None:
    """The ways in depth and in width that a `grow` stands for; None if it has none, or an unknown method."""
    return resolve(grow.method, grow.depth, grow.width) if grow.method in METHODS else None


def learn_steps(grow: Grow) -> int:
    """Steps that the operator is learned for: those asked for, else the method's own; none without an operator."""
    if ways_to_grow(grow) is None:
        return 0
    return METHODS[grow.method].learn_steps if grow.learn.steps is None else grow.learn.steps


def sweep_steps(grow: Grow) -> int:
    """Steps that the search for the operator's learning rate takes."""
    sweep = grow.learn.sweep
    return len(sweep.learning_rates) * sweep.steps if sweep and learn_steps(grow) else 0


def learn_batch(learn: Learn, train: Train) -> tuple[int, int]:
    """Batch and micro-batch with which the operator is learned: its own, else the stage's."""
    return learn.batch_size or train.batch_size, learn.micro_batch_size or train.micro_batch_size
