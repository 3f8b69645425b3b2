"""Building the models of a schedule and the engines around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from ligo_dist.architectures import ModelShape
from ligo_dist.checkpoints import Snapshot
from ligo_dist.config import attention_of, read_source_config
from ligo_dist.engine import MATRICES, Engine, Shards, World, engine_config, gather_whole
from ligo_dist.growth import GrowthLayout, LearnedGrowth, SourceShards, operator_name
from ligo_dist.huggingface import (
    FUSED_HEAD,
    apply_liger,
    build_meta_model,
    build_partitioned_model,
    exported_config,
    generation_config,
    huggingface_config,
    initial_shards,
    read_shards,
)
from ligo_dist.schedule import GrowPlan, PhasePlan, Plan, StagePlan

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Builder:
    """Builds what stages need.

    Attributes:
        plan: of the run.
        world: the ranks.
        library_keys: what the corpus adds to the library's configuration in training.
        exported_keys: what it adds to that of an export.
        source: directory of the first stage's model; None: it begins with random values.
    """

    plan: Plan
    world: World
    library_keys: Mapping[str, Any] = field(default_factory=dict)
    exported_keys: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = None

    def exported(self, stage: StagePlan) -> tuple[PretrainedConfig, str | None]:
        """What an export says of a stage's model: its configuration, and what its `generation_config.json` holds (None:
        it has none). All that the source's say, unless growing, the tokenizer or `model.huggingface` changes it.

        Raises:
            LigoError: the source's cannot be read.
        """
        architecture = self.plan.architecture
        keys = {**self._source_says, **self.plan.config.model.huggingface, **self.exported_keys}
        config = exported_config(architecture, stage.shape, keys, stage.epsilon_factor)
        return config, generation_config(architecture, config, self.source, self.exported_keys)

    @cached_property
    def _source_says(self) -> Mapping[str, Any]:
        if self.source is None:
            return {}
        return read_source_config(self.plan.config.model.family, str(self.source)).said

    def huggingface_config(self, stage: StagePlan, precision: str | None = None) -> PretrainedConfig:
        """The library's configuration of a stage's model in training; `precision`: of what it is to compute, None: as
        the run does."""
        return self._huggingface_config(stage.shape, stage.epsilon_factor, precision)

    def _huggingface_config(
        self, shape: ModelShape, epsilon_factor: float = 1.0, precision: str | None = None
    ) -> PretrainedConfig:
        config = self.plan.config
        keys = {**self.library_keys, **config.model.huggingface}
        attention = attention_of(
            config.model, precision or config.precision, on_processors=self.world.device.type == "cpu"
        )
        return huggingface_config(self.plan.architecture, shape, keys, epsilon_factor, attention)

    def model_engine(self, stage: StagePlan) -> Engine:
        """The engine of a stage's model, its weights unset."""
        config = self.huggingface_config(stage)
        model = build_partitioned_model(self.plan.architecture, stage.shape, config, self._dtype)
        if stage.train.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        architecture, kernels = self.plan.architecture, self.plan.config.liger.kernels
        if kernels:
            apply_liger(model, kernels)
        blocks = model.get_submodule(architecture.layers_path).children()
        gather_whole(blocks, compiled=self.plan.config.compile and stage.train.steps > 0)
        keys = self._engine_config(stage.train, stage.block(architecture))
        has_muon = stage.train.optimizer.muon is not None
        kinds = {
            spec.name: MATRICES if has_muon and spec.is_block_matrix else "model"
            for spec in architecture.parameters(stage.shape)
        }
        return Engine(model, stage.train.optimizer, keys, self.world, kind_of=kinds.__getitem__)

    def first_shards(self, stage: StagePlan, tell: Callable[[str], None]) -> Shards:
        """The values that a stage begins with if it does not grow: the given model's, or random ones. `tell` is told
        what of a given model begins anew or is left out, in lines."""
        if stage.index == 0 and self.source is not None:
            config = self.huggingface_config(stage)
            architecture, seed = self.plan.architecture, self.plan.config.seed
            return read_shards(self.source, architecture, stage.shape, config, self.world, seed, tell)
        return self.random_shards(stage)

    def random_shards(self, stage: StagePlan) -> Shards:
        """The library's own random values of a stage's model."""
        config = self.huggingface_config(stage)
        return initial_shards(self.plan.architecture, config, (self.plan.config.seed,), self.world)

    def fresh_layers(self, stage: StagePlan, layout: GrowthLayout) -> Shards | None:
        """The layers, as the library initialises them, that depth coefficients mix beside the source's own."""
        if not layout.fresh_layers:
            return None
        config = self._huggingface_config(replace(layout.source, layers=layout.fresh_layers))
        # Another stream than the first stage's, which may have had such layers too.
        seeds = (self.plan.config.seed, stage.index)
        return initial_shards(self.plan.architecture, config, seeds, self.world, layout.target.layers)

    def stream(self, stage: StagePlan) -> str:
        """What the random numbers of an operator's start are drawn by."""
        return f"{self.plan.config.seed}/{stage.name}"

    def learning_engine(self, stage: StagePlan, grow: GrowPlan, source: SourceShards) -> Engine:
        """The engine of the operator that makes a stage's model, its values unset."""
        config = self.huggingface_config(stage)
        target = build_meta_model(self.plan.architecture, stage.shape, config, self.world.device, self._dtype)
        if kernels := set(self.plan.config.liger.kernels) - {
            FUSED_HEAD
        }:  # the head's weight is made when it is called
            apply_liger(target, kernels)
        checkpointed = grow.learn.activation_checkpointing
        module = LearnedGrowth(
            grow.growth, source, target, self._dtype, self.world, checkpointed=checkpointed
        )
        kinds = {parameter.name: parameter.kind for parameter in grow.layout.operator_parameters}
        return Engine(
            module,
            grow.learn.optimizer,
            self._engine_config(grow.learn, grow.block),
            self.world,
            external_parameters=module.external_parameters(),
            rename=operator_name,
            kind_of=kinds.__getitem__,
        )

    def _engine_config(self, phase: PhasePlan, block: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        config, split = self.plan.config, phase.split(self.world.size)
        return engine_config(
            config.precision,
            split.rows,
            split.micro_steps,
            phase.optimizer.gradient_clipping,
            config.deepspeed,
            block,
        )

    @property
    def _dtype(self) -> torch.dtype:
        return _DTYPES[self.plan.config.precision]


def snapshot_of(engine: Engine, group: str) -> Snapshot:
    """What a checkpoint holds of an engine, in the processors' memory: its weights as `group`, and the optimizer's
    moments."""
    cpu = torch.device("cpu")
    groups, numels = {group: engine.read_shards(cpu), **engine.read_moments(cpu)}, engine.numels
    return Snapshot(groups, {group: {name: numels[name] for name in part} for group, part in groups.items()})
