"""Engines around small models, for functions that run on ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import (
    MATRICES,
    Engine,
    MuonSettings,
    OptimizerSettings,
    Shards,
    StepResult,
    World,
    engine_config,
    gather_tensor,
    gather_whole,
    shard_of,
)
from ligo_dist.growth import Growth, LearnedGrowth, SourceShards, get_method, initial_value, operator_name
from ligo_dist.huggingface import build_meta_model, build_partitioned_model, huggingface_config
from small_models import library_model, weights_of

SETTINGS = OptimizerSettings(1e-2, (0.9, 0.95), 1e-8, weight_decay=0.1, gradient_clipping=1.0)
MUON = replace(SETTINGS, gradient_clipping=0.3, muon=MuonSettings(learning_rate=2e-2, momentum=0.9))
NOTHING_WHOLE = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def engine_model_config(family: str, shape: ModelShape, **extra: Any) -> PretrainedConfig:
    return huggingface_config(
        get_architecture(family), shape, {"bos_token_id": 1, "eos_token_id": 2, **extra}
    )


def build_engine(
    world: World,
    family: str,
    shape: ModelShape,
    weights: Mapping[str, Tensor] | None = None,
    *,
    settings: OptimizerSettings = SETTINGS,
    micro_batch_size: int = 2,
    accumulation: int = 1,
    precision: str = "fp32",
    deepspeed: Mapping[str, Any] = NOTHING_WHOLE,
    kind_of: Callable[[str], str] = lambda name: "model",
    block: Iterable[tuple[int, ...]] = (),
    checkpointed: bool = False,
    compiled: bool = False,
) -> Engine:
    """An engine of a family's model; with `weights` (whole tensors), those are written."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = build_partitioned_model(
        get_architecture(family), shape, engine_model_config(family, shape), dtype
    )
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    gather_whole(model.get_submodule(get_architecture(family).layers_path).children(), compiled=compiled)
    clipping = settings.gradient_clipping
    config = engine_config(precision, micro_batch_size, accumulation, clipping, deepspeed, block)
    engine = Engine(model, settings, config, world, kind_of=kind_of)
    if weights is not None:
        engine.write_shards(partitions(world, weights).items())
    return engine


def muon_kinds(family: str, shape: ModelShape) -> Callable[[str], str]:
    """Kinds of a model's parameters where Muon trains the matrices of its blocks."""
    specs = {spec.name: spec for spec in get_architecture(family).parameters(shape)}
    return lambda name: MATRICES if specs[name].is_block_matrix else "model"


def causal(input_ids: Tensor) -> dict[str, Tensor]:
    """A micro-batch for a causal language model."""
    return {"input_ids": input_ids, "labels": input_ids}


def train_on(
    engine: Engine, micro_batches: Iterable[dict[str, Tensor]], rates: Mapping[str, float]
) -> StepResult:
    """A step on micro-batches whose rows all count, equally many on every rank."""
    parts = [(inputs, len(inputs["labels"])) for inputs in micro_batches]
    return engine.train_step(parts, engine.world.size * sum(rows for _, rows in parts), rates)


def interrupted_training(
    build: Callable[[Mapping[str, Tensor] | None], Engine],
    run: Callable[[Engine, range], list[float]],
    weights: Mapping[str, Tensor],
    writing: AbstractContextManager[None] | None = None,
) -> tuple[list[float], list[float], bool]:
    """Losses of five steps, and of three, a new engine, and two more; and whether the weights are the same.

    Args:
        build: an engine, from weights or without values.
        run: takes the steps of those numbers.
        weights: of the model.
        writing: in which the moments are written.
    """
    engine = build(weights)
    losses = run(engine, range(5))
    final = engine.read_shards()
    engine.release()
    engine = build(weights)
    parts = run(engine, range(3))
    shards, moments = engine.read_shards(), engine.read_moments()
    engine.release()
    engine = build(None)
    engine.write_shards(shards.items())
    with writing or nullcontext():
        engine.write_moments(moments, 3)
    parts += run(engine, range(3, 5))
    same = all(torch.equal(shard, final[name]) for name, shard in engine.read_shards().items())
    engine.release()
    return losses, parts, same


def partitions(world: World, weights: Mapping[str, Tensor]) -> Shards:
    return {name: shard_of(weight, world.rank, world.size) for name, weight in weights.items()}


def whole(world: World, family: str, shape: ModelShape, shards: Shards) -> dict[str, Tensor]:
    """A model's tensors from their partitions. Collective."""
    specs = get_architecture(family).parameters(shape)
    return {spec.name: gather_tensor(shards[spec.name], spec.shape, world) for spec in specs}


def bare_learner(
    world: World, growth: Growth, dtype: torch.dtype, *, checkpointed: bool = False
) -> LearnedGrowth:
    """The learner by itself, its parameters set, with no engine around it."""
    weights = weights_of(library_model(growth.architecture.name, growth.source))
    shards = {name: shard_of(weight, world.rank, world.size) for name, weight in weights.items()}
    config = huggingface_config(growth.architecture, growth.target, {})
    target = build_meta_model(growth.architecture, growth.target, config, world.device)
    source = SourceShards.build(growth, shards, world)
    learner = LearnedGrowth(growth, source, target, dtype, world, checkpointed=checkpointed)
    start = {p.name: initial_value(growth, get_method("ligo"), p, "0") for p in growth.operator_parameters}
    for name, parameter in learner.named_parameters():
        parameter.data = start.pop(operator_name(name)).to(dtype)
    assert not start, "every operator parameter is a parameter of the learner"
    return learner
