"""A small model whose steps benchmarks measure something beside."""

from __future__ import annotations

import torch

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.engine import (
    Engine,
    OptimizerSettings,
    StepResult,
    World,
    engine_config,
    partition_size,
    seed_everything,
)
from ligo_dist.huggingface import build_partitioned_model, huggingface_config

VOCAB, LENGTH, SEQUENCES = 4096, 64, 2
ADAM = OptimizerSettings(1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0)


class SmallTraining:
    """A gpt2 model that is trained on random tokens.

    Args:
        world: the ranks.
        width: of the model.
        layers: of the model.

    Attributes:
        world: the ranks.
        engine: holds the model.
        taken: steps that were taken.
    """

    def __init__(self, world: World, width: int, layers: int) -> None:
        self.world = world
        self.engine = _build_engine(world, width, layers)
        self.taken = 0

    def take_step(self) -> StepResult:
        self.taken += 1
        generator = torch.Generator().manual_seed(1000 * self.taken + self.world.rank)
        batch = torch.randint(0, VOCAB, (SEQUENCES, LENGTH), generator=generator)
        micro_batch = {"input_ids": batch, "labels": batch}, SEQUENCES
        return self.engine.train_step([micro_batch], SEQUENCES * self.world.size, {"model": 1e-4})


def _build_engine(world: World, width: int, layers: int) -> Engine:
    architecture = get_architecture("gpt2")
    heads = width // 64
    shape = ModelShape(
        layers, width, heads, heads, 4 * width, architecture.tied_by_default, vocab=VOCAB, positions=LENGTH
    )
    config = huggingface_config(architecture, shape, {"bos_token_id": 1, "eos_token_id": 2})
    model = build_partitioned_model(architecture, shape, config, torch.float32)
    engine = Engine(model, ADAM, engine_config("fp32", SEQUENCES, 1, 1.0, {}), world)
    seed_everything(0, world.rank)
    engine.write_shards(
        (spec.name, 0.02 * torch.randn(partition_size(spec.numel, world.size)))
        for spec in architecture.parameters(shape)
    )
    return engine
