"""One rank of `benchmarks.growth_memory`: learns a growth for two steps and applies it, in one of the two ways, or as
ours with its times taken."""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call
from transformers import PretrainedConfig

from benchmarks.growth_memory import SEQUENCES, TOKENS, build_growth
from benchmarks.processes import PeakMemory
from ligo_dist.engine import (
    Engine,
    OptimizerSettings,
    Shards,
    World,
    engine_config,
    gather_tensor,
    partition_size,
    seed_everything,
    shard_of,
    start_world,
    stop_world,
)
from ligo_dist.growth import (
    Growth,
    LearnedGrowth,
    SourceShards,
    gathered_operator,
    get_method,
    grown_shards,
    initial_operator_shards,
    initial_value,
    operator_name,
)
from ligo_dist.huggingface import build_meta_model, build_partitioned_model, huggingface_config

ADAM = OptimizerSettings(1e-4, (0.9, 0.95), 1e-8, 0.0, 1.0)
STEPS, TIMED = 2, 5
KEYS = {"bos_token_id": 1, "eos_token_id": 2}


def main() -> None:
    arguments, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    world = start_world(600)
    growth = build_growth(arguments["family"], arguments["width"], arguments["layers"])
    config = huggingface_config(growth.architecture, growth.target, KEYS)
    if arguments["way"] == "time":
        result.write_text(json.dumps(_timed(growth, config, world)))
        stop_world()
        return
    run = {"ours": _ours, "plain": _plain}[arguments["way"]]
    # Once in small, so that what the libraries load and reserve at first use is not counted as the growth's.
    small = build_growth(arguments["family"], 64, 1)
    run(small, huggingface_config(small.architecture, small.target, KEYS), world, PeakMemory())
    gc.collect()
    result.write_text(json.dumps(run(growth, config, world, PeakMemory())))
    stop_world()


def _random_source(growth: Growth, world: World) -> Shards:
    seed_everything(0, world.rank)
    specs = growth.architecture.parameters(growth.source)
    return {spec.name: 0.02 * torch.randn(partition_size(spec.numel, world.size)) for spec in specs}


def _ours(growth: Growth, config: PretrainedConfig, world: World, memory: PeakMemory) -> dict[str, int]:
    source = SourceShards.build(growth, _random_source(growth, world), world)
    engine = _learning_engine(growth, source, config, world)
    method = get_method("ligo")
    assert method is not None
    engine.write_shards(initial_operator_shards(growth, method, "0", world))
    memory.restart()
    for step in range(STEPS):
        batch = _batch(growth, step, world)
        engine.train_step([({"input_ids": batch, "labels": batch}, len(batch))], world.size, {"model": 1e-4})
    learn = memory.peak()
    operator = engine.read_shards()
    engine.release()
    memory.restart()
    grown = _partitioned_target(growth, config, world)
    grown.write_shards(grown_shards(growth, source, gathered_operator(growth, operator, world), world))
    grow = memory.peak()
    grown.release()
    return {"learn": learn, "grow": grow}


def _timed(growth: Growth, config: PretrainedConfig, world: World) -> dict[str, float]:
    """Seconds of processor time of a learning step, and of growing: medians, the first ones left out."""
    source = SourceShards.build(growth, _random_source(growth, world), world)
    engine = _learning_engine(growth, source, config, world, SEQUENCES // world.size)
    method = get_method("ligo")
    assert method is not None
    engine.write_shards(initial_operator_shards(growth, method, "0", world))
    learn, grow = [], []
    for step in range(TIMED + 1):
        batch = _batch(growth, step, world, SEQUENCES // world.size)
        began = time.process_time()
        engine.train_step([({"input_ids": batch, "labels": batch}, len(batch))], SEQUENCES, {"model": 1e-4})
        learn.append(time.process_time() - began)
    operator = engine.read_shards()
    engine.release()
    grown = _partitioned_target(growth, config, world)
    for _ in range(TIMED + 1):
        began = time.process_time()
        grown.write_shards(grown_shards(growth, source, gathered_operator(growth, operator, world), world))
        grow.append(time.process_time() - began)
    return {"learn": statistics.median(learn[1:]), "grow": statistics.median(grow[1:])}


def _plain(growth: Growth, config: PretrainedConfig, world: World, memory: PeakMemory) -> dict[str, int]:
    shards = _random_source(growth, world)
    method = get_method("ligo")
    assert method is not None
    specs = growth.architecture.parameters(growth.source)
    source = {spec.name: gather_tensor(shards.pop(spec.name), spec.shape, world).clone() for spec in specs}
    operator: dict[str, Tensor] = {
        p.name: initial_value(growth, method, p, "0").requires_grad_() for p in growth.operator_parameters
    }
    target = build_meta_model(growth.architecture, growth.target, config, world.device)
    optimizer = torch.optim.AdamW(list(operator.values()), lr=1e-4)
    memory.restart()
    for step in range(STEPS):
        weights = growth.grow_dense(source, operator)
        batch = _batch(growth, step, world)
        inputs = {"input_ids": batch, "labels": batch, "use_cache": False}
        functional_call(target, weights, kwargs=inputs, tie_weights=True).loss.backward()
        del weights
        for parameter in operator.values():
            if parameter.grad is not None and world.size > 1:
                torch.distributed.all_reduce(parameter.grad)
        optimizer.step()
        optimizer.zero_grad()
    learn = memory.peak()
    del optimizer, target
    memory.restart()
    engine = _partitioned_target(growth, config, world)
    with torch.no_grad():
        whole = growth.grow_dense(source, operator)
    engine.write_shards((name, shard_of(tensor, world.rank, world.size)) for name, tensor in whole.items())
    grow = memory.peak()
    engine.release()
    return {"learn": learn, "grow": grow}


def _learning_engine(
    growth: Growth, source: SourceShards, config: PretrainedConfig, world: World, sequences: int = 1
) -> Engine:
    target = build_meta_model(growth.architecture, growth.target, config, world.device)
    module = LearnedGrowth(growth, source, target, torch.float32, world)
    external = module.external_parameters()
    return Engine(module, ADAM, _engine_config(sequences), world, external, rename=operator_name)


def _partitioned_target(growth: Growth, config: PretrainedConfig, world: World) -> Engine:
    model = build_partitioned_model(growth.architecture, growth.target, config, torch.float32)
    return Engine(model, ADAM, _engine_config(), world)


def _engine_config(sequences: int = 1) -> dict[str, object]:
    return engine_config(
        "fp32", sequences, 1, 1.0, {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    )


def _batch(growth: Growth, step: int, world: World, sequences: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + world.rank)
    return torch.randint(0, growth.target.vocab, (sequences, TOKENS), generator=generator)


if __name__ == "__main__":
    main()
