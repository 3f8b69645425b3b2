"""Muon for the matrices of the blocks on ZeRO-3's partitions: against Muon written out on one process, by singular
value decomposition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engines import (
    MUON,
    NOTHING_WHOLE,
    build_engine,
    causal,
    interrupted_training,
    muon_kinds,
    partitions,
    train_on,
    whole,
)
from ligo_dist.engine import MATRICES, World, is_partitioned, orthogonalized, size_factor
from ranks import run_ranks
from small_models import library_model, model_shape, token_ids, weights_of

# Blocks of 8 matrices, of shapes that divide by no number of ranks; and of 14, more and fewer than ranks in a round.
MODELS = {"gpt2": model_shape((2, 33, 3, 3, 77), True), "llama": model_shape((2, 24, 3, 1, 41), False)}
BATCH = 12
RATES = [0.01, 0.02, 0.005]
FACTOR = 2.0
"""Of the rate of the matrices, of that of the rest."""
ONE_BY_ONE: dict[str, Any] = {
    "zero_optimization": {"stage3_param_persistence_threshold": 0, "sub_group_size": 1}
}
OFFLOADED: dict[str, Any] = {
    "zero_optimization": {"stage3_param_persistence_threshold": 0, "offload_optimizer": {"device": "cpu"}}
}


def newton_schulz(matrix: Tensor) -> Tensor:
    """The polynomial of Jordan et al., five times, on singular values that are divided by their norm."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm().clamp(min=1e-7)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left @ values.diag() @ right).to(matrix.dtype)


class Plain:
    """A model on one process, the whole batch at once; its momentum by name."""

    def __init__(self, family: str) -> None:
        self.model = library_model(family, MODELS[family]).train()
        kind = muon_kinds(family, MODELS[family])
        parameters = dict(self.model.named_parameters())
        self.matrices = {name: p for name, p in parameters.items() if kind(name) == MATRICES}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        others = [p for name, p in parameters.items() if name not in self.matrices]
        groups = [
            {"params": [p for p in others if p.dim() > 1], "weight_decay": MUON.weight_decay},
            {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, betas=MUON.betas, eps=MUON.epsilon)

    def step(self, ids: Tensor, rate: float) -> float:
        """One step; the norm of the gradient."""
        self.model.zero_grad()
        self.model(**causal(ids)).loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MUON.gradient_clipping)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        assert MUON.muon is not None
        decay = MUON.muon.momentum
        with torch.no_grad():
            for name, p in self.matrices.items():
                assert p.grad is not None
                self.momentum[name] = decay * self.momentum[name] + (1 - decay) * p.grad
                direction = decay * self.momentum[name] + (1 - decay) * p.grad
                p.mul_(1 - FACTOR * rate * MUON.weight_decay)
                p.sub_(FACTOR * rate * 0.2 * max(p.shape) ** 0.5 * newton_schulz(direction))
        return norm.item()


def rates(rate: float) -> dict[str, float]:
    return {"model": rate, MATRICES: FACTOR * rate}


def muon_engine(world: World, family: str, weights: dict[str, Tensor] | None, **more: Any) -> Any:
    shape = MODELS[family]
    return build_engine(
        world, family, shape, weights, settings=MUON, kind_of=muon_kinds(family, shape), **more
    )


def engine_steps(world: World, family: str, accumulation: int, deepspeed: dict[str, Any]) -> Any:
    micro = BATCH // world.size // accumulation
    weights = weights_of(library_model(family, MODELS[family]))
    engine = muon_engine(
        world, family, weights, accumulation=accumulation, micro_batch_size=micro, deepspeed=deepspeed
    )
    norms = []
    for step, rate in enumerate(RATES):
        mine = token_ids(BATCH, seed=step).chunk(world.size)[world.rank]
        norms.append(train_on(engine, map(causal, mine.split(micro)), rates(rate)).gradient_norm)
    final = whole(world, family, MODELS[family], engine.read_shards())
    momentum = whole(world, family, MODELS[family], engine.read_moments()["exp_avg"])
    engine.release()
    return norms, final, momentum


@pytest.mark.parametrize(
    ("family", "world_size", "accumulation", "deepspeed"),
    [
        ("gpt2", 1, 2, NOTHING_WHOLE),
        ("gpt2", 2, 1, OFFLOADED),
        ("gpt2", 4, 3, {}),
        ("llama", 3, 2, NOTHING_WHOLE),
        ("llama", 2, 1, ONE_BY_ONE),
    ],
)
def test_steps_are_those_of_plain_muon(
    family: str, world_size: int, accumulation: int, deepspeed: dict[str, Any]
):
    plain = Plain(family)
    expected = [plain.step(token_ids(BATCH, seed=step), rate) for step, rate in enumerate(RATES)]
    assert all(norm > MUON.gradient_clipping for norm in expected), "clipping must do something"
    weights = weights_of(plain.model)
    for norms, found, momentum in run_ranks(engine_steps, world_size, family, accumulation, deepspeed):
        assert norms == pytest.approx(expected, rel=2e-4)
        for name, weight in weights.items():
            tolerance = 0.05 if name.endswith("c_attn.bias") else 2e-3
            assert (found[name] - weight).abs().max() < tolerance * weight.abs().max(), name
        for name, mean in plain.momentum.items():
            assert (momentum[name] - mean).abs().max() < 2e-3 * mean.abs().max(), name


# --- that it is active ---


def first_update(world: World) -> Any:
    """What a step without decay changes, over rate and size; and whether the parameters were made in partitions."""
    family, rate = "llama", 0.01
    weights = weights_of(library_model(family, MODELS[family]))
    engine = muon_engine(world, family, weights)
    in_partitions = all(is_partitioned(p) for p in engine.module.parameters())
    for group in engine._engine.optimizer.param_groups:
        group["weight_decay"] = 0.0
    train_on(engine, [causal(token_ids(8).chunk(world.size)[world.rank])], {"model": rate, MATRICES: rate})
    after = whole(world, family, MODELS[family], engine.read_shards())
    kept = {moment: sorted(shards) for moment, shards in engine.read_moments().items()}
    engine.release()
    return {name: (after[name] - weights[name]) / rate for name in weights}, in_partitions, kept


def test_updates_of_matrices_have_singular_values_of_about_one():
    kind = muon_kinds("llama", MODELS["llama"])
    for updates, in_partitions, kept in run_ranks(first_update, 2):
        assert in_partitions
        matrices = [name for name in updates if kind(name) == MATRICES]
        assert len(matrices) == 2 * 7
        for name in matrices:
            values = torch.linalg.svdvals(updates[name] / size_factor(tuple(updates[name].shape)))
            assert values.max() < 1.3, name
            assert (values > 0.5).float().mean() > 0.8, (
                name
            )  # what had next to no gradient is not lifted so far
        others = [update for name, update in updates.items() if kind(name) != MATRICES]
        assert all(update.abs().max() == pytest.approx(1, abs=1e-3) for update in others), (
            "AdamW's first step"
        )
        assert kept["exp_avg"] == sorted(updates)
        assert kept["exp_avg_sq"] == sorted(set(updates) - set(matrices))


@pytest.mark.parametrize("shape", [(12, 31), (31, 12), (20, 20)])
def test_it_is_torchs_own_in_bf16(shape: tuple[int, int]):
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(shape, generator=generator)
    theirs = weights.clone().requires_grad_()
    optimizer = torch.optim.Muon(
        [theirs], lr=0.1, weight_decay=0.5, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    momentum = torch.zeros(shape)
    for _ in range(2):
        gradient = torch.randn(shape, generator=generator)
        theirs.grad = gradient.clone()
        optimizer.step()
        momentum.lerp_(gradient, 1 - 0.9)
        update = orthogonalized(gradient.lerp(momentum, 0.9).bfloat16())
        weights.mul_(1 - 0.1 * 0.5).add_(update, alpha=-0.1 * size_factor(shape))
        assert torch.equal(weights, theirs)


@pytest.mark.parametrize("shape", [(7, 19), (19, 7), (5, 5)])
def test_singular_values_go_through_the_polynomial(shape: tuple[int, int]):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalized(matrix), newton_schulz(matrix), rtol=1e-4, atol=1e-5)
    assert torch.equal(orthogonalized(torch.zeros(shape)), torch.zeros(shape))


# --- going on ---


def interrupted(world: World, precision: str) -> Any:
    """Losses of five steps, and of three, a new engine, and two more; and whether the weights are the same."""
    family = "llama"
    weights = weights_of(library_model(family, MODELS[family]))
    batches = [token_ids(8, seed=step).chunk(world.size)[world.rank] for step in range(5)]

    def run(engine: Any, steps: range) -> list[float]:
        return [train_on(engine, [causal(batches[step])], rates(0.01)).loss for step in steps]

    return interrupted_training(
        lambda values: muon_engine(world, family, values, precision=precision), run, weights
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_weights_and_moments_are_all_that_training_depends_on(world_size: int, precision: str):
    for losses, parts, same in run_ranks(interrupted, world_size, precision):
        assert parts == losses
        assert losses[-1] < losses[0]
        assert same


# --- new elements ---

FROZEN, STEPS, NEW_RATE = 2, 4, 0.25


def what_is_new(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last layer, and the last rows of all other matrices."""
    new = {name: torch.zeros(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    for name, weight in weights.items():
        if ".1." in name:
            new[name][:] = True
        elif weight.dim() > 1:
            new[name][-2:] = True
    return new


def partly_frozen(world: World, start: dict[str, Tensor] | None) -> Any:
    """Weights and momentum after the steps that train what is new alone, and after those that train all."""
    family, shape = "llama", MODELS["llama"]
    weights = weights_of(library_model(family, shape))
    engine = muon_engine(world, family, weights)
    if start is not None:
        seconds = {name: torch.zeros_like(m) for name, m in start.items()}
        both = {"exp_avg": partitions(world, start), "exp_avg_sq": partitions(world, seconds)}
        engine.write_moments(both, 0)
    masks = {name: mask.float() for name, mask in what_is_new(weights).items()}
    engine.mark_new({name: part > 0 for name, part in partitions(world, masks).items()}, NEW_RATE)
    seen = []
    for step in range(STEPS):
        engine.train_new_alone(step < FROZEN)
        train_on(engine, [causal(token_ids(4, seed=step).chunk(world.size)[world.rank])], rates(0.01))
        if step + 1 in (FROZEN, STEPS):
            state = (engine.read_shards(), engine.read_moments()["exp_avg"])
            seen.append([whole(world, family, shape, shards) for shards in state])
    engine.release()
    return seen


def plainly_frozen() -> Any:
    """The same on one process, from no momentum."""
    plain = Plain("llama")
    new = what_is_new(weights_of(plain.model))
    names = dict(plain.model.named_parameters())
    assert MUON.muon is not None
    decay, seen = MUON.muon.momentum, []
    for step in range(STEPS):
        alone, before = step < FROZEN, weights_of(plain.model)
        plain.model.zero_grad()
        plain.model(**causal(token_ids(4, seed=step))).loss.backward()
        for name, p in names.items():
            assert p.grad is not None
            p.grad *= new[name] | (not alone)
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), MUON.gradient_clipping)
        adamw_steps(plain, new, alone)
        with torch.no_grad():
            for name, p in plain.matrices.items():
                moves = new[name] | (not alone)
                mean = decay * plain.momentum[name] * moves + (1 - decay) * p.grad
                plain.momentum[name] = torch.where(moves, mean, plain.momentum[name])
                change = 0.2 * max(p.shape) ** 0.5 * newton_schulz(decay * mean + (1 - decay) * p.grad)
                rate = FACTOR * 0.01 * torch.where(new[name], NEW_RATE, 1.0) * moves
                p.copy_(before[name] - rate * (MUON.weight_decay * before[name] + change))
        if step + 1 in (FROZEN, STEPS):
            seen.append((weights_of(plain.model), {name: m.clone() for name, m in plain.momentum.items()}))
    return seen


def adamw_steps(plain: Plain, new: dict[str, Tensor], alone: bool) -> None:
    """AdamW's part, with what is frozen put back."""
    names = {n: p for n, p in plain.model.named_parameters() if n not in plain.matrices}
    before = {name: p.detach().clone() for name, p in names.items()}
    for group in plain.adamw.param_groups:
        group["lr"] = 0.01
    plain.adamw.step()
    with torch.no_grad():
        for name, p in names.items():
            moved = before[name] + torch.where(new[name], NEW_RATE, 1.0) * (p - before[name])
            p.copy_(torch.where(new[name] | (not alone), moved, before[name]))


def test_what_is_frozen_has_no_part_in_what_is_orthogonalized():
    expected = plainly_frozen()
    for seen in run_ranks(partly_frozen, 2, None):
        for (weights, momentum), (other, mean) in zip(seen, expected, strict=True):
            for name in mean:
                torch.testing.assert_close(weights[name], other[name], rtol=2e-3, atol=2e-4, msg=name)
                torch.testing.assert_close(momentum[name], mean[name], rtol=2e-3, atol=2e-6, msg=name)


def test_momentum_that_was_there_stays_and_moves_nothing_that_is_frozen():
    weights = weights_of(library_model("llama", MODELS["llama"]))
    generator = torch.Generator().manual_seed(5)
    start = {name: torch.randn(w.shape, generator=generator) * 1e-3 for name, w in weights.items()}
    seen = run_ranks(partly_frozen, 2, start)[0]
    kind = muon_kinds("llama", MODELS["llama"])
    for name, mask in what_is_new(weights).items():
        if kind(name) == MATRICES:
            assert torch.equal(seen[0][0][name][~mask], weights[name][~mask])
            assert torch.equal(seen[0][1][name][~mask], start[name][~mask])
            assert not torch.equal(seen[1][1][name], start[name])
