"""The engine against plain torch, and its partitions open to reading and writing."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from engines import (
    NOTHING_WHOLE,
    SETTINGS,
    build_engine,
    causal,
    interrupted_training,
    partitions,
    train_on,
    whole,
)
from ligo_dist.architectures import ModelShape
from ligo_dist.engine import Engine, EvaluationResult, OptimizerSettings, World, engine_config, gather_numbers
from ranks import run_ranks
from small_models import library_model, logits_of, model_shape, token_ids, weights_of

# 33 and 77: no parameter divides by 2 or by 4 everywhere, and biases of 3 * 33 by nothing.
GPT2 = model_shape((2, 33, 3, 3, 77), True)
LLAMA = model_shape((2, 24, 3, 1, 41), False)
DEEPSPEED = {"nothing whole": NOTHING_WHOLE, "small parameters whole": {}}


# --- partitions ---


def write_and_read(world: World, shape: ModelShape, weights: dict[str, Tensor], deepspeed: Any) -> Any:
    engine = build_engine(world, "gpt2", shape, weights, deepspeed=deepspeed)
    shards = engine.read_shards()
    ids = causal(token_ids(2))
    first = engine.logits(ids)
    mine = token_ids(8, seed=3).chunk(world.size)[world.rank]
    train_on(engine, [causal(mine)], {"model": 0.1})
    trained = engine.logits(ids)
    engine.write_shards(partitions(world, weights).items())
    again = engine.logits(ids)
    numels = engine.numels
    engine.release()
    return shards, first, trained, again, numels


@pytest.mark.parametrize("deepspeed", DEEPSPEED.values(), ids=DEEPSPEED)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_what_is_written_is_read_and_computed_with(world_size: int, deepspeed: Any):
    model = library_model("gpt2", GPT2)
    weights, expected = weights_of(model), logits_of(model, token_ids(2))
    results = run_ranks(write_and_read, world_size, GPT2, weights, deepspeed)
    for rank, (shards, first, trained, again, numels) in enumerate(results):
        world = World(rank, world_size, torch.device("cpu"))
        for name, shard in partitions(world, weights).items():
            assert torch.equal(shards[name], shard), name
        torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)
        assert (trained - expected).abs().max() > 0.01, "the step must have changed something"
        torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)
        assert numels == {name: weight.numel() for name, weight in weights.items()}


def wrong_names(world: World) -> list[str]:
    weights = weights_of(library_model("llama", LLAMA))
    engine = build_engine(world, "llama", LLAMA, weights)
    shards = partitions(world, weights)
    name = "model.layers.1.mlp.up_proj.weight"
    messages = []
    for wrong in (
        [(key, shard) for key, shard in shards.items() if key != name],
        [*shards.items(), ("model.layers.9.x", shards[name])],
        [*shards.items(), (name, shards[name])],
    ):
        with pytest.raises(ValueError) as caught:
            engine.write_shards(wrong)
        messages.append(str(caught.value))
    engine.release()
    return messages


def test_missing_unknown_and_repeated_names_are_errors():
    (messages,) = run_ranks(wrong_names, 1)
    assert messages == [
        "parameters left without a value: model.layers.1.mlp.up_proj.weight",
        "model.layers.9.x: not a parameter of this engine, or written twice",
        "model.layers.1.mlp.up_proj.weight: not a parameter of this engine, or written twice",
    ]


@contextmanager
def getters_that_copy() -> Iterator[None]:
    """DeepSpeed gives copies of what it has offloaded from an accelerator, not views."""
    from ligo_dist.engine import engine

    get = engine.safe_get_local_optimizer_state
    with patch.object(engine, "safe_get_local_optimizer_state", lambda *which: get(*which).clone()):
        yield


def interrupted(world: World, precision: str) -> Any:
    """Losses and weights of five steps, and of three, a new engine, and two more."""
    weights = weights_of(library_model("llama", LLAMA))
    batches = [token_ids(8, seed=step).chunk(world.size)[world.rank] for step in range(5)]

    def run(engine: Any, steps: range) -> list[float]:
        return [train_on(engine, [causal(batches[step])], {"model": 0.01}).loss for step in steps]

    def build(values: Any) -> Any:
        engine = build_engine(world, "llama", LLAMA, values, precision=precision)
        assert engine.read_moments() == {}
        return engine

    return interrupted_training(build, run, weights, getters_that_copy())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_weights_and_moments_are_all_that_training_depends_on(world_size: int, precision: str):
    for losses, parts, same in run_ranks(interrupted, world_size, precision):
        assert parts == losses
        assert losses[-1] < losses[0] + 0.5
        assert same


# --- one step, against plain torch ---


def engine_steps(
    world: World, settings: OptimizerSettings, accumulation: int, rates: list[float]
) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    weights = weights_of(library_model("gpt2", GPT2))
    micro = 8 // world.size // accumulation
    engine = build_engine(
        world, "gpt2", GPT2, weights, settings=settings, accumulation=accumulation, micro_batch_size=micro
    )
    results = []
    for step, rate in enumerate(rates):
        mine = token_ids(8, seed=step).chunk(world.size)[world.rank]
        result = train_on(engine, map(causal, mine.split(micro)), {"model": rate})
        results.append((result.loss, result.gradient_norm))
    final = whole(world, "gpt2", GPT2, engine.read_shards())
    engine.release()
    return results, final


def plain_steps(
    settings: OptimizerSettings, rates: list[float]
) -> tuple[list[tuple[float, float]], dict[str, Tensor]]:
    """The same with torch.optim.AdamW on one process and the whole batch."""
    model = library_model("gpt2", GPT2).train()
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon)
    results = []
    for step, rate in enumerate(rates):
        ids = token_ids(8, seed=step)
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        limit = settings.gradient_clipping or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        results.append((loss.item(), norm))
    return results, weights_of(model)


SETTINGS_TO_COMPARE = {
    "clipped": OptimizerSettings(1e-2, (0.9, 0.95), 1e-8, 0.5, gradient_clipping=0.3),
    "not clipped": OptimizerSettings(1e-2, (0.8, 0.9), 1e-6, 0.0, gradient_clipping=0.0),
}


@pytest.mark.parametrize("settings", SETTINGS_TO_COMPARE.values(), ids=SETTINGS_TO_COMPARE)
@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_steps_are_those_of_plain_adamw(settings: OptimizerSettings, world_size: int, accumulation: int):
    rates = [0.01, 0.02, 0.005]
    expected, expected_weights = plain_steps(settings, rates)
    if settings.gradient_clipping:
        assert all(norm > settings.gradient_clipping for _, norm in expected), "clipping must do something"
    for results, weights in run_ranks(engine_steps, world_size, settings, accumulation, rates):
        for result, wanted in zip(results, expected, strict=True):
            assert result == pytest.approx(wanted, rel=2e-4)
        for name, weight in expected_weights.items():
            # A gradient that is zero but for rounding (the key's bias) has a direction of chance in Adam.
            tolerance = 0.05 if name.endswith("c_attn.bias") else 2e-3
            assert (weights[name] - weight).abs().max() < tolerance * weight.abs().max(), name


def wrong_count(world: World, micro_batches: int, batch_size: int) -> str:
    engine = build_engine(world, "gpt2", GPT2, weights_of(library_model("gpt2", GPT2)), accumulation=2)
    with pytest.raises(AssertionError) as caught:
        engine.train_step([(causal(token_ids(2)), 2)] * micro_batches, batch_size, {"model": 0.1})
    engine.release()
    return str(caught.value)


def test_too_few_micro_batches_or_samples_are_noticed():
    assert run_ranks(wrong_count, 1, 1, 2) == ["1 micro-batches, 2 expected"]
    assert run_ranks(wrong_count, 2, 2, 9) == ["8 counted, 9 expected"] * 2


# --- evaluation ---


def evaluate_with_padding(world: World) -> EvaluationResult:
    """Five sequences of which each rank has its own number, with batches of two."""
    engine = build_engine(world, "gpt2", GPT2, weights_of(library_model("gpt2", GPT2)))
    ids = token_ids(5)
    mine = ids[world.rank :: world.size]
    batches = []
    for first in range(0, -(-5 // world.size), 2):
        rows = mine[first : first + 2]
        inputs = torch.cat([rows, ids[:1].repeat(2 - len(rows), 1)])
        labels = inputs.clone()
        if len(rows):
            labels[len(rows) :] = -100
        batches.append(({"input_ids": inputs, "labels": labels}, len(rows)))
    result = engine.evaluate(batches)
    engine.release()
    return result


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_evaluation_counts_each_token_once(world_size: int):
    ids = token_ids(5)
    with torch.no_grad():
        expected = library_model("gpt2", GPT2)(input_ids=ids, labels=ids).loss.item()
    for result in run_ranks(evaluate_with_padding, world_size):
        assert result.loss == pytest.approx(expected, rel=1e-5)
        assert result.accuracy is None


class Classifier(torch.nn.Module):
    """Of images of one pixel: class 1 if it is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[-1.0], [1.0]]))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Any:
        assert pixel_values.dtype == self.weight.dtype, "images come in the precision of the weights"
        logits = pixel_values.flatten(1) @ self.weight.T
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        return SimpleNamespace(loss=loss, logits=logits)


PIXELS = torch.tensor([-2.0, -1, 1, 2, 3])
CLASSES = torch.tensor([0, 1, 1, 0, 1])


def evaluate_classes(world: World, precision: str) -> EvaluationResult:
    """Five images, two of them judged wrongly; a rank has two batches of two."""
    config = engine_config(precision, 2, 1, 0.0, NOTHING_WHOLE)
    engine = Engine(Classifier(), SETTINGS, config, world)
    batches = []
    for mine in list(range(5))[world.rank :: world.size], []:
        indices = [*mine, 0, 0, 0, 0, 0][:5]
        labels = CLASSES[indices].clone()
        if mine:
            labels[len(mine) :] = -100
        inputs = {"pixel_values": PIXELS[indices].reshape(-1, 1, 1, 1), "labels": labels}
        batches.append((inputs, len(mine)))
    result = engine.evaluate(batches)
    engine.release()
    return result


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_classifiers_have_an_accuracy(world_size: int, precision: str):
    logits = torch.stack([-PIXELS, PIXELS], dim=1)
    expected = torch.nn.functional.cross_entropy(logits, CLASSES).item()
    for result in run_ranks(evaluate_classes, world_size, precision):
        assert result.accuracy == 3 / 5
        assert result.loss == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 1e-2)


# --- kinds of parameters ---


def step_by_kind(world: World) -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[str, float]]]:
    """Weights before and after a step in which the biases, and they alone, have a learning rate."""
    weights = weights_of(library_model("gpt2", GPT2))
    engine = build_engine(world, "gpt2", GPT2, weights, kind_of=lambda name: name.rsplit(".")[-1])
    before = engine.read_shards()
    train_on(engine, [causal(token_ids(2))], {"weight": 0.0, "bias": 0.1})
    groups = [(group["kind"], group["weight_decay"]) for group in engine._engine.optimizer.param_groups]
    after = engine.read_shards()
    engine.release()
    return before, after, groups


def test_each_kind_of_parameter_has_its_own_learning_rate():
    ((before, after, groups),) = run_ranks(step_by_kind, 1)
    assert groups == [("bias", 0.0), ("weight", SETTINGS.weight_decay), ("weight", 0.0)]
    for name, shard in before.items():
        assert torch.equal(after[name], shard) is not name.endswith("bias"), name


# --- releasing ---


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def build_and_release(world: World) -> tuple[list[bool], list[int]]:
    shape = ModelShape(4, 256, 4, 4, 1024, vocab=2000, positions=32, tied=True)
    weights = {name: torch.zeros_like(w) for name, w in weights_of(library_model("gpt2", shape)).items()}
    alive, resident = [], []
    for _ in range(4):
        engine = build_engine(world, "gpt2", shape, weights, deepspeed={})
        train_on(engine, [causal(token_ids(2))], {"model": 0.01})
        references = [weakref.ref(engine), weakref.ref(engine.module), weakref.ref(engine._engine)]
        references += [weakref.ref(parameter) for parameter in engine.parameters.values()]
        engine.release()
        del engine
        gc.collect()
        alive.append(any(reference() is not None for reference in references))
        resident.append(resident_bytes() if sys.platform == "linux" else 0)
    return alive, resident


def test_a_released_engine_leaves_nothing_behind():
    share = 16 * 3_700_000 / 2  # bytes of a rank's weights, gradients and moments
    for alive, resident in run_ranks(build_and_release, 2):
        assert alive == [False] * 4
        assert resident[3] - resident[0] < share / 2, "three more engines, and not half of one remains"


# --- configuration ---


def test_the_users_keys_are_merged_key_by_key():
    config = engine_config(
        "bf16", 4, 2, 0.5, {"zero_optimization": {"reduce_bucket_size": 7}, "comms_logger": {}}
    )
    assert config["zero_optimization"]["reduce_bucket_size"] == 7
    assert config["zero_optimization"]["stage"] == 3
    assert config["bf16"] == {"enabled": True}
    assert config["comms_logger"] == {}
    assert engine_config("fp32", 4, 2, SETTINGS.gradient_clipping, {})["bf16"] == {"enabled": False}


BLOCK = [(700, 2100), (2100,), (700, 700), (700, 2800), (2800, 700)]
FIXED = {"reduce_bucket_size": 5_000_000, "stage3_prefetch_bucket_size": 5_000_000}


def wide_steps(world: World, block: list[tuple[int, ...]], zero: dict[str, int]) -> list[Any]:
    shape = model_shape((2, 700, 7, 7, 77), True)
    weights = weights_of(library_model("gpt2", shape))
    engine = build_engine(world, "gpt2", shape, weights, deepspeed={"zero_optimization": zero}, block=block)
    mine = [token_ids(4, seed=step).chunk(world.size)[world.rank] for step in range(3)]
    results = [train_on(engine, [causal(ids)], {"model": 1e-3}) for ids in mine]
    engine.release()
    return results


def test_sizes_that_follow_the_model_change_no_number():
    sizes = engine_config("fp32", 1, 1, 1.0, {}, BLOCK)["zero_optimization"]
    assert sizes["stage3_prefetch_bucket_size"] == 700 * (2100 + 3 + 700 + 2 * 2800) > 5_000_000
    assert run_ranks(wide_steps, 2, BLOCK, {}) == run_ranks(wide_steps, 2, [], FIXED)


# --- numbers ---


def gather(world: World, lengths: int) -> list[list[float]]:
    return gather_numbers([world.rank + 0.1 * index for index in range(lengths)], world)


def test_numbers_are_gathered_in_the_order_of_the_ranks():
    rows = [[rank + 0.1 * index for index in range(5)] for rank in range(3)]
    assert run_ranks(gather, 3, 5) == [rows] * 3
