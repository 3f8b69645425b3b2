"""The schedule, stage by stage: learn how to grow, grow, train. Resumable after any step of any phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PretrainedConfig

from ligo_dist.accounting import growing_flops, learning_step_flops, parameter_count, training_step_flops
from ligo_dist.architectures import Architecture
from ligo_dist.checkpoint import Checkpoint, Snapshot, read_groups
from ligo_dist.engine import ADAM_MOMENTS, Engine, engine_config
from ligo_dist.growth.learner import LearnedGrowth, operator_name
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards
from ligo_dist.growth.transfer import (
    OperatorValues,
    gathered_operator,
    grown_shards,
    initial_operator,
    initial_operator_shards,
)
from ligo_dist.hooks import cumulative
from ligo_dist.models import build_meta_model, build_partitioned_model, huggingface_config, initial_shards
from ligo_dist.phases import PhaseRunner
from ligo_dist.shards import Shards
from ligo_dist.stages import LEARN, TRAIN, PhasePlan, RunState, StagePlan

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
    """

    architecture: Architecture
    seed: int
    precision: str
    huggingface: Mapping[str, Any]
    deepspeed: Mapping[str, Any]
    compare_random: bool


StageEnd = Callable[[StagePlan, PretrainedConfig, Shards], None]
"""Called with a trained stage, the library's configuration of its model, and its partitions."""


class Trainer:
    """Takes a run from where it stands to the end of its schedule.

    Args:
        stages: the schedule.
        models: how models are built.
        runner: runs the phases; it holds the run's state.
        on_stage_end: what is done with a trained stage.
    """

    def __init__(
        self, stages: list[StagePlan], models: ModelSettings, runner: PhaseRunner, on_stage_end: StageEnd
    ) -> None:
        self.stages, self.models, self.runner, self.on_stage_end = stages, models, runner, on_stage_end
        self.world, self.tracker = runner.world, runner.tracker

    @property
    def state(self) -> RunState:
        return self.runner.state

    def run(self, checkpoint: Checkpoint | None) -> None:
        """Run all stages, from a checkpoint or from the beginning."""
        groups: dict[str, Shards] = {}
        if checkpoint is not None:
            self.runner.state, self.runner.last_checkpoint = checkpoint.state, checkpoint.path
            groups = read_groups(checkpoint, self.world, ("model", "source", "operator", *ADAM_MOMENTS))
        source = groups.pop("source", {})
        for stage in self.stages[self.state.stage :]:
            self.tracker.start_stage(stage.name, self._description(stage))
            if "model" in groups and self.state.step == stage.train.steps:
                model = groups["model"]
            else:
                model = self._train(stage, self._engine_to_train(stage, source, groups))
            groups = {}
            self.on_stage_end(stage, self.huggingface_config(stage), model)
            self.tracker.end_stage()
            source = model

    def huggingface_config(self, stage: StagePlan) -> PretrainedConfig:
        return huggingface_config(self.models.architecture, stage.shape, self.models.huggingface)

    def _engine_to_train(self, stage: StagePlan, source: Shards, groups: dict[str, Shards]) -> Engine:
        """The engine of a stage's model with its weights: resumed, grown, or (in the first stage) initialised."""
        if stage.growth is not None and "model" not in groups:
            return self._grow(stage, source, groups)
        engine = self._target_engine(stage)
        if "model" in groups:
            self._restore(engine, "model", groups)
        else:
            self._initialise(engine, stage)
        return engine

    def _initialise(self, engine: Engine, stage: StagePlan) -> None:
        """Give an engine's model the library's own random values."""
        config = self.huggingface_config(stage)
        shards = initial_shards(self.models.architecture, config, self.models.seed, self.world)
        engine.write_shards(shards.items())

    def _train(self, stage: StagePlan, engine: Engine) -> Shards:
        """Train a stage's model; returns its weights, the engine released."""
        phase = stage.train
        flops = phase_flops(self.models.architecture, stage, phase, self._sequence_length, self.world.size)
        self.runner.run(stage, phase, engine, flops, lambda: _snapshot(engine, "model"))
        model = engine.read_shards()
        engine.release()
        return model

    def _grow(self, stage: StagePlan, source: Shards, groups: dict[str, Shards]) -> Engine:
        """Learn the operator and apply it: the engine of the grown model."""
        assert stage.growth is not None and stage.method is not None and stage.learn is not None
        if self.state.stage != stage.index:
            source_loss = self.state.record.final_loss
            self.state.enter(stage.index, LEARN)
            self.state.record.source_loss = source_loss
        frozen = SourceShards.build(stage.growth, source)
        if stage.learn.steps:
            operator = self._learn(stage, frozen, groups)
        else:
            operator = initial_operator(stage.growth, stage.method, self.models.seed, self.world)
        return self._apply(stage, frozen, operator)

    def _learn(self, stage: StagePlan, source: SourceShards, groups: dict[str, Shards]) -> OperatorValues:
        growth, method, phase = stage.growth, stage.method, stage.learn
        assert growth is not None and method is not None and phase is not None
        architecture = self.models.architecture
        engine = self._learning_engine(stage, phase, growth, source)
        if "operator" in groups:
            self._restore(engine, "operator", groups)
        else:
            engine.write_shards(initial_operator_shards(growth, method, self.models.seed, self.world))
        source_numels = {spec.name: spec.numel for spec in architecture.parameters(growth.source)}

        def snapshot() -> Snapshot:
            learned = _snapshot(engine, "operator")
            return Snapshot(
                {"source": source.unstacked(), **learned.groups}, {"source": source_numels, **learned.numels}
            )

        flops = phase_flops(architecture, stage, phase, self._sequence_length, self.world.size)
        self.runner.run(stage, phase, engine, flops, snapshot)
        operator = engine.read_shards()
        engine.release()
        return gathered_operator(growth, operator, self.world)

    def _learning_engine(
        self, stage: StagePlan, phase: PhasePlan, growth: Growth, source: SourceShards
    ) -> Engine:
        """The engine of the operator, its weights unset."""
        config = self.huggingface_config(stage)
        target = build_meta_model(self.models.architecture, stage.shape, config, self.world.device)
        module = LearnedGrowth(growth, source, target, _DTYPES[self.models.precision], self.world)
        return Engine(
            module,
            phase.optimizer,
            self._engine_config(phase),
            self.world,
            external_parameters=module.external_parameters(),
            rename=operator_name,
        )

    def _apply(self, stage: StagePlan, source: SourceShards, operator: OperatorValues) -> Engine:
        """Build the target's engine and write the grown model into its partitions."""
        growth, record, architecture = stage.growth, self.state.record, self.models.architecture
        assert growth is not None
        self.tracker.start_phase("grow")
        engine = self._target_engine(stage)
        if self.models.compare_random:
            self._initialise(engine, stage)
            record.random_loss = self.runner.validation_loss(engine)
        began = time.perf_counter()
        engine.write_shards(grown_shards(growth, source, operator, self.world))
        seconds = time.perf_counter() - began
        self.state.add(0, growing_flops(architecture, growth.source, growth.target), seconds)
        record.grown_loss = record.final_loss = self.runner.validation_loss(engine)
        self._report_growth(stage, seconds)
        self.state.phase, self.state.step = TRAIN, 0
        self.runner.save(stage.train.first_step, _snapshot(engine, "model"))
        return engine

    def _report_growth(self, stage: StagePlan, seconds: float) -> None:
        record = self.state.record
        losses = {
            "grow/source_loss": record.source_loss,
            "grow/grown_loss": record.grown_loss,
            "grow/random_loss": record.random_loss,
            "evaluate/loss": record.grown_loss,
        }
        known = {name: loss for name, loss in losses.items() if loss is not None}
        metrics = {**known, "grow/seconds": seconds, **cumulative(self.state)}
        self.tracker.log(metrics, stage.train.first_step)
        random = "" if record.random_loss is None else f" (random initialisation: {record.random_loss:.3f})"
        self.runner.progress.message(
            f"grown into {stage.name} in {seconds:.1f} s: validation loss"
            f" {record.source_loss:.3f} -> {record.grown_loss:.3f}{random}"
        )

    def _target_engine(self, stage: StagePlan) -> Engine:
        """The engine of a stage's model, its weights unset."""
        dtype = _DTYPES[self.models.precision]
        config = self.huggingface_config(stage)
        model = build_partitioned_model(self.models.architecture, stage.shape, config, dtype)
        if stage.train.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return Engine(model, stage.train.optimizer, self._engine_config(stage.train), self.world)

    def _engine_config(self, phase: PhasePlan) -> dict[str, Any]:
        return engine_config(
            self.models.precision,
            phase.micro_batch_size,
            phase.batch_size // (phase.micro_batch_size * self.world.size),
            phase.optimizer.gradient_clipping,
            self.models.deepspeed,
        )

    def _restore(self, engine: Engine, group: str, groups: dict[str, Shards]) -> None:
        engine.write_shards(groups.pop(group).items())
        moments = {moment: groups.pop(moment) for moment in ADAM_MOMENTS if moment in groups}
        if moments:
            engine.write_moments(moments, self.state.step)

    @property
    def _sequence_length(self) -> int:
        return self.runner.corpus.train.sequence_length

    def _description(self, stage: StagePlan) -> dict[str, Any]:
        """A stage's parameters for the tracker."""
        growth = stage.growth
        return {
            "shape": asdict(stage.shape),
            "parameters": parameter_count(self.models.architecture, stage.shape),
            "method": None if stage.method is None else stage.method.name,
            "tied": None if growth is None else growth.tied,
            **{phase.kind: asdict(phase) for phase in stage.phases},
        }


def phase_flops(
    architecture: Architecture, stage: StagePlan, phase: PhasePlan, sequence_length: int, world_size: int
) -> float:
    """FLOPs of one optimizer step of a phase, over all ranks."""
    if phase.kind == TRAIN:
        checkpointed = phase.activation_checkpointing
        return training_step_flops(
            architecture, stage.shape, sequence_length, phase.batch_size, checkpointed=checkpointed
        )
    assert stage.growth is not None
    return learning_step_flops(
        architecture,
        stage.growth.source,
        stage.growth.target,
        sequence_length,
        phase.batch_size,
        micro_batch_size=phase.micro_batch_size,
        world_size=world_size,
    ).total


def planned_flops(
    architecture: Architecture, stages: list[StagePlan], sequence_length: int, world_size: int
) -> float:
    """FLOPs of the whole schedule."""
    total = 0.0
    for stage in stages:
        for phase in stage.phases:
            total += phase.steps * phase_flops(architecture, stage, phase, sequence_length, world_size)
        if stage.growth is not None:
            total += growing_flops(architecture, stage.growth.source, stage.growth.target)
    return total


def _snapshot(engine: Engine, group: str) -> Snapshot:
    groups = {group: engine.read_shards(), **engine.read_moments()}
    return Snapshot(groups, dict.fromkeys(groups, engine.numels))
