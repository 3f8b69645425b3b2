"""Building the models of a schedule and the engines around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from ligo_dist.architectures import Architecture
from ligo_dist.batch_split import BatchSplit
from ligo_dist.checkpoints import Snapshot
from ligo_dist.distributed import World
from ligo_dist.engine import Engine, engine_config
from ligo_dist.growth.learner import LearnedGrowth, operator_name
from ligo_dist.growth.sharded import SourceShards
from ligo_dist.models import build_meta_model, build_partitioned_model, huggingface_config, initial_shards
from ligo_dist.pretrained import read_shards
from ligo_dist.shards import Shards
from ligo_dist.stages import GrowPlan, PhasePlan, StagePlan

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class ModelSettings:
    """How the models and their engines are built.

    Attributes:
        architecture: the family.
        seed: of initial values.
        precision: `bf16` or `fp32`.
        huggingface: further keys of the library's configuration.
        deepspeed: the user's keys of the DeepSpeed configuration.
        compare_random: evaluate a random model of the target's size beside each grown one.
        source: directory of the first stage's model; None: it begins with random values.
    """

    architecture: Architecture
    seed: int
    precision: str
    huggingface: Mapping[str, Any]
    deepspeed: Mapping[str, Any]
    compare_random: bool
    source: Path | None = None


@dataclass(frozen=True)
class Builder:
    """Builds what stages need.

    Attributes:
        models: how.
        world: the ranks.
    """

    models: ModelSettings
    world: World

    def huggingface_config(self, stage: StagePlan) -> PretrainedConfig:
        """The library's configuration of a stage's model."""
        models = self.models
        return huggingface_config(models.architecture, stage.shape, models.huggingface, stage.epsilon_factor)

    def model_engine(self, stage: StagePlan) -> Engine:
        """The engine of a stage's model, its weights unset."""
        config = self.huggingface_config(stage)
        dtype = _DTYPES[self.models.precision]
        model = build_partitioned_model(self.models.architecture, stage.shape, config, dtype)
        if stage.train.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return Engine(model, stage.train.optimizer, self._engine_config(stage.train), self.world)

    def first_shards(self, stage: StagePlan) -> Shards:
        """The values that a stage begins with if it does not grow: the given model's, or random ones."""
        if stage.index == 0 and self.models.source is not None:
            config = self.huggingface_config(stage)
            return read_shards(self.models.source, self.models.architecture, stage.shape, config, self.world)
        return self.random_shards(stage)

    def random_shards(self, stage: StagePlan) -> Shards:
        """The library's own random values of a stage's model."""
        config = self.huggingface_config(stage)
        return initial_shards(self.models.architecture, config, self.models.seed, self.world)

    def learning_engine(self, stage: StagePlan, grow: GrowPlan, source: SourceShards) -> Engine:
        """The engine of the operator that makes a stage's model, its values unset."""
        config = self.huggingface_config(stage)
        dtype = _DTYPES[self.models.precision]
        target = build_meta_model(self.models.architecture, stage.shape, config, self.world.device, dtype)
        module = LearnedGrowth(grow.growth, source, target, dtype, self.world)
        kinds = {parameter.name: parameter.kind for parameter in grow.growth.operator_parameters}
        return Engine(
            module,
            grow.learn.optimizer,
            self._engine_config(grow.learn),
            self.world,
            external_parameters=module.external_parameters(),
            rename=operator_name,
            kind_of=kinds.__getitem__,
        )

    def _engine_config(self, phase: PhasePlan) -> dict[str, Any]:
        split = BatchSplit(phase.batch_size, phase.micro_batch_size, self.world.size)
        return engine_config(
            self.models.precision,
            split.rows,
            split.micro_steps,
            phase.optimizer.gradient_clipping,
            self.models.deepspeed,
        )


def snapshot_of(engine: Engine, group: str) -> Snapshot:
    """What a checkpoint holds of an engine: its weights as `group`, and the optimizer's moments."""
    groups = {group: engine.read_shards(), **engine.read_moments()}
    return Snapshot(groups, dict.fromkeys(groups, engine.numels))
