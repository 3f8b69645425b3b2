"""New layers and units trained alone for some steps, and at another rate: against AdamW written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engines import SETTINGS, build_engine, causal, partitions, whole
from ligo_dist.engine import World
from ranks import run_ranks
from small_models import library_model, model_shape, token_ids, weights_of

SHAPE = model_shape((2, 24, 3, 1, 41), False)
STEPS, FROZEN, RATE, FACTOR = 5, 3, 0.01, 0.25
OFFLOAD: dict[str, Any] = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
SUB_GROUPS: dict[str, Any] = {
    "zero_optimization": {"sub_group_size": 500, "stage3_param_persistence_threshold": 0}
}


def what_is_new(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last layer as a whole; of all matrices the last rows, and outside the blocks nothing else."""
    new = {}
    for name, weight in weights.items():
        new[name] = torch.zeros(weight.shape, dtype=torch.bool)
        if ".1." in name:
            new[name][:] = True
        elif weight.dim() > 1:
            new[name][-2:] = True
    return new


def steps(world: World, deepspeed: dict[str, Any], accumulation: int) -> Any:
    """Some steps of an engine; weights and moments after those that train what is new alone, and at the end."""
    weights = weights_of(library_model("llama", SHAPE))
    engine = build_engine(world, "llama", SHAPE, weights, deepspeed=deepspeed, accumulation=accumulation)
    new = {name: part > 0 for name, part in partitions(world, as_numbers(what_is_new(weights))).items()}
    engine.mark_new(new, FACTOR)
    seen, norms = [], []
    for step in range(STEPS):
        ids = token_ids(4, seed=step).chunk(world.size)[world.rank].chunk(accumulation)
        parts = [(causal(part), len(part)) for part in ids]
        engine.train_new_alone(step < FROZEN)
        result = engine.train_step(parts, 4, {"model": RATE})
        norms.append(result.gradient_norm)
        if step + 1 in (FROZEN, STEPS):
            state = {"weight": engine.read_shards(), **engine.read_moments()}
            seen.append({key: whole(world, "llama", SHAPE, shards) for key, shards in state.items()})
    engine.release()
    return norms, seen


def as_numbers(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: mask.float() for name, mask in masks.items()}


def plain_steps() -> Any:
    """The same on one process, AdamW written out (Loshchilov & Hutter, algorithm 2)."""
    model = library_model("llama", SHAPE)
    new, names = what_is_new(weights_of(model)), dict(model.named_parameters())
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in names.items()}
    (first, second), seen, norms = SETTINGS.betas, [], []
    for step in range(STEPS):
        ids = token_ids(4, seed=step)
        model.zero_grad()
        model(**causal(ids)).loss.backward()
        alone = step < FROZEN
        gradients = {
            name: p.grad * (new[name] | (not alone)) for name, p in names.items() if p.grad is not None
        }
        norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        norms.append(float(norm))
        with torch.no_grad():
            for name, p in names.items():
                moves = new[name] | (not alone)
                gradient = gradients[name] * (SETTINGS.gradient_clipping / (norm + 1e-6)).clamp(max=1)
                mean, square = moments[name]
                mean.copy_(torch.where(moves, first * mean + (1 - first) * gradient, mean))
                square.copy_(torch.where(moves, second * square + (1 - second) * gradient**2, square))
                direction = mean / (1 - first ** (step + 1))
                direction /= (square / (1 - second ** (step + 1))).sqrt() + SETTINGS.epsilon
                decay = SETTINGS.weight_decay if p.dim() > 1 else 0.0
                rate = RATE * torch.where(new[name], FACTOR, 1.0) * moves
                p.copy_(p * (1 - rate * decay) - rate * direction)
        if step + 1 in (FROZEN, STEPS):
            values = {
                name: (p.detach().clone(), *(m.clone() for m in moments[name])) for name, p in names.items()
            }
            kinds = ("weight", "exp_avg", "exp_avg_sq")
            seen.append(
                {kind: {name: row[i] for name, row in values.items()} for i, kind in enumerate(kinds)}
            )
    return norms, seen


@pytest.fixture(scope="module")
def expected() -> Any:
    return plain_steps()


@pytest.mark.parametrize(
    ("world_size", "deepspeed", "accumulation"), [(1, SUB_GROUPS, 2), (2, {}, 1), (2, OFFLOAD, 2)]
)
def test_steps_are_those_of_adamw_on_what_may_move(
    expected: Any, world_size: int, deepspeed: dict[str, Any], accumulation: int
):
    norms, seen = run_ranks(steps, world_size, deepspeed, accumulation)[0]
    assert norms == pytest.approx(expected[0], rel=1e-4)
    for state, other in zip(seen, expected[1], strict=True):
        for kind, tensors in other.items():
            for name, tensor in tensors.items():
                torch.testing.assert_close(
                    state[kind][name], tensor, rtol=2e-4, atol=2e-6, msg=f"{kind} {name}"
                )
    weights = weights_of(library_model("llama", SHAPE))
    for name, mask in what_is_new(weights).items():
        # To the last bit where nothing may move.
        assert torch.equal(seen[0]["weight"][name][~mask], weights[name][~mask])
        assert not seen[0]["exp_avg"][name][~mask].any()
