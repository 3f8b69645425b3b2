"""The ways to grow: not learned, and learned as each experiment has it. All end after the same FLOPs.

Each takes a trial and returns what came of it: `loss` at the end, `grown` right after growing, `learned` after
learning, `learning_flops` that training had to give up, and how far depth coefficients `moved`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.learned.closed_form import CLOSED_FORMS, set_new_outputs
from benchmarks.learned.trial import Trial
from benchmarks.learned.weights import DEPTH, SOURCE, WEIGHTS, Training, Weights

Outcome = dict[str, Any]

_STARTS = ("damped", "stack", "identity", "damped-interlace")
_ROUND = 10
"""Steps of a start in the tournament."""


def not_learned(trial: Trial, start: str) -> Outcome:
    weights = trial.grown(start)
    grown = trial.validation_loss(weights)
    trial.train_target(weights, 0)
    return {"loss": trial.validation_loss(weights), "grown": grown, "learning_flops": 0}


def joint(trial: Trial, source_rate: float, folded_after: int | None, depth_rate: float = 1.0) -> Outcome:
    """E1: remainder, depth coefficients and source in one training step; folded after some steps, or at the end. What
    learning costs beyond training is the mixing alone."""
    weights = trial.grown("damped")
    start, grown = _copied(weights.depth), trial.validation_loss(weights)
    mixed = folded_after or trial.steps - trial.source_steps
    spent = mixed * (trial.joint_flops - trial.step_flops)
    rates = trial.rates(trial.steps_left(spent))
    training = Training(weights, {WEIGHTS: 1.0, DEPTH: depth_rate, SOURCE: source_rate})
    movement: Mapping[str, float] = {}
    for step, inputs in enumerate(islice(trial.batches(trial.source_steps), rates.steps)):
        training.step(inputs, rates(step))
        if step + 1 == min(mixed, rates.steps):
            movement = _movement(weights.depth, start)
            weights.fold()
    return {"loss": trial.validation_loss(weights), "grown": grown, "learning_flops": spent, **movement}


def depth_alone(trial: Trial, steps: int, rate: float, batch_part: int, grown_by: str = "damped") -> Outcome:
    """E2 and LiGO in depth: the coefficients alone at a constant rate, on a part of the batch, then training."""
    weights = trial.grown(grown_by)
    start, grown = _copied(weights.depth), trial.validation_loss(weights)
    size = trial.batch_size // batch_part
    training = Training(weights, {DEPTH: 1.0})
    for inputs in islice(trial.learning_batches(size), steps):
        training.step(inputs, rate)
    movement, learned = _movement(weights.depth, start), trial.validation_loss(weights)
    spent = steps * trial.learning_flops(size)
    trial.train_target(weights, spent)
    loss = trial.validation_loss(weights)
    return {"loss": loss, "grown": grown, "learned": learned, "learning_flops": spent, **movement}


def closed_form(trial: Trial, form: str) -> Outcome:
    """E3: identity copies whose output projections come from one batch."""
    weights = trial.grown("identity")
    grown = trial.validation_loss(weights)
    weights.fold()
    inputs = next(trial.learning_batches(trial.batch_size))
    passes, scale = set_new_outputs(weights, inputs, form)
    learned = trial.validation_loss(weights)
    spent = passes * trial.step_flops / 3
    trial.train_target(weights, spent)
    loss = trial.validation_loss(weights)
    return {"loss": loss, "grown": grown, "learned": learned, "learning_flops": spent, "chosen": f"{scale:g}"}


def tournament(trial: Trial) -> Outcome:
    """E4: ten steps of each start on the same batches; the one of the lowest mean loss on the last three goes on."""
    spent = (len(_STARTS) - 1) * _ROUND * trial.step_flops
    rates = trial.rates(trial.steps_left(spent))
    players: list[tuple[float, str, Weights, Training]] = []
    for start in _STARTS:
        weights = trial.grown(start)
        weights.fold()
        training = Training(weights, {WEIGHTS: 1.0})
        batches = islice(trial.batches(trial.source_steps), _ROUND)
        losses = [training.step(inputs, rates(step)) for step, inputs in enumerate(batches)]
        players.append((sum(losses[-3:]) / 3, start, weights, training))
    _, winner, weights, training = min(players, key=lambda player: player[0])
    learned = trial.validation_loss(weights)
    batches = islice(trial.batches(trial.source_steps + _ROUND), rates.steps - _ROUND)
    for step, inputs in enumerate(batches, _ROUND):
        training.step(inputs, rates(step))
    loss = trial.validation_loss(weights)
    return {"loss": loss, "learned": learned, "learning_flops": spent, "chosen": winner}


def _copied(depth: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {role: tensor.detach().clone() for role, tensor in depth.items()}


def _movement(depth: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, float]:
    """How far the depth coefficients are from their start: on average, and at most."""
    differences = torch.cat([(depth[role].detach() - start[role]).abs().flatten() for role in start])
    return {"moved": float(differences.mean()), "moved_most": float(differences.max())}


WAYS: dict[str, Callable[[Trial], Outcome]] = {
    "damped": partial(not_learned, start="damped"),
    "stack": partial(not_learned, start="stack"),
    **{
        f"joint-{source_rate:g}-{'all' if steps is None else steps}": partial(
            joint, source_rate=source_rate, folded_after=steps
        )
        for source_rate in (1.0, 0.1)
        for steps in (100, None)
    },
    **{
        f"joint-slow-{'all' if steps is None else steps}": partial(
            joint, source_rate=0.1, folded_after=steps, depth_rate=0.1
        )
        for steps in (100, None)
    },
    **{
        f"gates-{steps}-{rate:g}": partial(depth_alone, steps=steps, rate=rate, batch_part=4)
        for steps in (10, 30)
        for rate in (1e-2, 3e-2, 1e-1)
    },
    **{
        f"depth-{steps}-{rate:g}": partial(depth_alone, steps=steps, rate=rate, batch_part=1)
        for steps in (25, 100)
        for rate in (1e-3, 1e-2, 1e-1)
    },
    "identity-gates": partial(depth_alone, steps=10, rate=1e-2, batch_part=4, grown_by="identity"),
    "tournament": tournament,
    **{form: partial(closed_form, form=form) for form in CLOSED_FORMS},
    "damped-interlace": partial(not_learned, start="damped-interlace"),
    "identity": partial(not_learned, start="identity"),
    "random": partial(not_learned, start="random"),
}
"""The most important first."""
