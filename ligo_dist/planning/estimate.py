"""What each phase of a plan takes on any number of ranks: parameters, FLOPs, memory, communication, disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from ligo_dist.architectures import ModelShape
from ligo_dist.growth.layout import GrowthLayout
from ligo_dist.planning.activations import Activations, activations
from ligo_dist.planning.memory import (
    EngineMemory,
    Memory,
    SourceBytes,
    growing_peaks,
    learning_peaks,
    peak_of,
    training_peaks,
)
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.traffic import Traffic, engine_traffic, generation_traffic, transfer_traffic
from ligo_dist.planning.weights import (
    Gathered,
    Module,
    Weight,
    all_weights,
    forward_and_backward,
    gathered,
    generated_modules,
    model_modules,
    partitioned,
    whole_blocks,
)
from ligo_dist.runtime.zero3 import Zero3
from ligo_dist.schedule.costs import PhaseCost
from ligo_dist.schedule.plan import GrowPlan, PhasePlan, Plan, StagePlan
from ligo_dist.schedule.state import TRAIN


class Phase(Protocol):
    """What a phase takes in a setting, whose number of ranks may be any."""

    def peaks(self, setting: Setting) -> list[Memory]:
        """Bytes on one rank, at each point that can be the peak."""

    def traffic(self, setting: Setting) -> Traffic:
        """Of one optimizer step; of growing, of all of it."""

    def checkpoint(self, setting: Setting) -> int:
        """Bytes on disk of a checkpoint that is taken in it, over all ranks."""

    def blocks(self, setting: Setting) -> int:
        """How many blocks a rank runs forward and backward in one optimizer step, one after the other."""


@dataclass(frozen=True)
class TrainedModules:
    """The modules that an engine trains, and what a micro-step gathers of them."""

    modules: list[Module]
    zero3: Zero3
    checkpointed: bool = False
    weights: list[Weight] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", all_weights(self.modules))

    @cached_property
    def gathered(self) -> Gathered:
        uses = forward_and_backward(self.modules, checkpointed=self.checkpointed)
        return gathered(uses, len(self.modules), self.zero3)

    def engine(self, setting: Setting) -> EngineMemory:
        return EngineMemory(replace(setting, zero3=self.zero3), self.weights, self.gathered)

    @property
    def numel(self) -> int:
        return sum(weight.numel for weight in self.weights)

    def padded(self, ranks: int) -> int:
        """Elements of all ranks' partitions together."""
        return ranks * partitioned(self.weights, ranks)


@dataclass(frozen=True)
class TrainPhase:
    """Training a model of so many blocks.

    Attributes:
        model: its weights.
        layers: its blocks.
        train: how it is trained.
        kept, evaluated: activations of a micro-batch of the training, and of the evaluation.
    """

    model: TrainedModules
    layers: int
    train: PhasePlan
    kept: Activations
    evaluated: Activations

    def peaks(self, setting: Setting) -> list[Memory]:
        return training_peaks(
            self.model.engine(setting),
            self.kept,
            self.evaluated,
            self.layers,
            checkpointed=self.train.activation_checkpointing,
        )

    def traffic(self, setting: Setting) -> Traffic:
        steps = self.train.split(setting.ranks).micro_steps
        return engine_traffic(setting, self.model.weights, self.model.gathered, steps)

    def checkpoint(self, setting: Setting) -> int:
        return 3 * FP32 * self.model.padded(setting.ranks)

    def blocks(self, setting: Setting) -> int:
        return self.layers * self.train.split(setting.ranks).micro_steps


@dataclass(frozen=True)
class LearnPhase:
    """Learning an operator.

    Attributes:
        layout: the pair of models.
        operator, source: their weights.
        learn: how it is learned.
        states: what grows of each weight: 1, or 3 with AdamW's moments.
        kept, evaluated: activations of a micro-batch of the learning, and of the evaluation.
    """

    layout: GrowthLayout
    operator: TrainedModules
    source: TrainedModules
    learn: PhasePlan
    states: int
    kept: Activations
    evaluated: Activations

    def peaks(self, setting: Setting) -> list[Memory]:
        source = SourceBytes.of(setting, self.layout, with_moments=self.states > 1)
        return learning_peaks(
            self.operator.engine(setting),
            self.layout,
            source,
            self.kept,
            self.evaluated,
            checkpointed=self.learn.activation_checkpointing,
        )

    def traffic(self, setting: Setting) -> Traffic:
        steps = self.learn.split(setting.ranks).micro_steps
        own = engine_traffic(setting, self.operator.weights, self.operator.gathered, steps)
        return own + generation_traffic(setting, self.layout, steps)

    def checkpoint(self, setting: Setting) -> int:
        ranks = setting.ranks
        return FP32 * (3 * self.operator.padded(ranks) + self.states * self.source.padded(ranks))

    def blocks(self, setting: Setting) -> int:
        return self.layout.target.layers * self.learn.split(setting.ranks).micro_steps


@dataclass(frozen=True)
class GrowPhase:
    """Applying an operator; the attributes as in `LearnPhase`, `learned` and `compares` as in `growing_peaks`."""

    layout: GrowthLayout
    operator: TrainedModules
    target: TrainedModules
    states: int
    evaluated: Activations
    learned: bool
    compares: bool

    def peaks(self, setting: Setting) -> list[Memory]:
        return growing_peaks(
            self.target.engine(setting),
            self.layout,
            SourceBytes.of(setting, self.layout, with_moments=self.states > 1),
            self.operator.weights,
            self.evaluated,
            learned=self.learned,
            compares=self.compares,
        )

    def traffic(self, setting: Setting) -> Traffic:
        return transfer_traffic(setting, self.layout, learned=self.learned) * self.states

    def checkpoint(self, setting: Setting) -> int:
        return self.states * FP32 * self.target.padded(setting.ranks)

    def blocks(self, setting: Setting) -> int:
        return 0


MOST_RANKS = 1 << 20


@dataclass(frozen=True)
class PhaseEstimate:
    """What one phase takes.

    Attributes:
        kind: `learn`, `grow` or `train`.
        source, operator, target: parameters of each; 0 for what the phase has not.
        cost: its steps, tokens and FLOPs, over all ranks.
        peaks: bytes on one rank, at each point that can be the peak.
        traffic: of one optimizer step; of growing, of all of it.
        checkpoint: bytes on disk of a checkpoint taken in it, over all ranks.
        phase, setting: what this was worked out from.
    """

    kind: str
    source: int
    operator: int
    target: int
    cost: PhaseCost
    peaks: list[Memory]
    traffic: Traffic
    checkpoint: int
    phase: Phase
    setting: Setting

    @property
    def peak(self) -> Memory:
        return peak_of(self.peaks)

    @property
    def blocks(self) -> int:
        """As `Phase.blocks`."""
        return self.phase.blocks(self.setting)

    def fewest_ranks(self, usable: int, most: int = MOST_RANKS) -> int | None:
        """The smallest number of ranks, up to `most`, on which no rank holds more than so many bytes; None if there
        is none."""

        def fits(ranks: int) -> bool:
            return peak_of(self.phase.peaks(replace(self.setting, ranks=ranks))).total <= usable

        below, above = 0, 1
        while not fits(above):
            if above == most:
                return None
            below, above = above, min(2 * above, most)
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (below, middle) if fits(middle) else (middle, above)
        return above


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes.

    Attributes:
        plan: of the stage.
        phases: in their order; empty for a model that is taken as it is.
        export: bytes on disk of its model, exported.
    """

    plan: StagePlan
    phases: list[PhaseEstimate]
    export: int

    @property
    def name(self) -> str:
        return self.plan.name


def estimate_stages(plan: Plan, setting: Setting) -> list[StageEstimate]:
    """The estimates of all stages of a plan, in a setting."""
    stages = []
    for stage in plan.stages:
        estimator = _Estimator(plan, setting, stage)
        phases = estimator.growth(stage.grow) if stage.grow is not None else []
        phases += estimator.training()
        stages.append(StageEstimate(stage, phases, FP32 * stage.parameters))
    return stages


@dataclass(frozen=True)
class _Estimator:
    """Estimates the phases of one stage."""

    plan: Plan
    setting: Setting
    stage: StagePlan

    def training(self) -> list[PhaseEstimate]:
        stage, train = self.stage, self.stage.train
        if stage.section.train is None:
            return []
        model = self._model(stage.shape, checkpointed=train.activation_checkpointing)
        kept = self._activations(train.micro_batch_size)
        phase = TrainPhase(model, stage.shape.layers, train, kept, self._evaluated)
        return [self._estimate(TRAIN, phase, stage.cost.train, target=model.numel)]

    def growth(self, grow: GrowPlan) -> list[PhaseEstimate]:
        """Learning the operator, if it is, and applying it."""
        learned = grow.learn.steps > 0
        applied = self._grow(grow, learned=learned)
        return [self._learn(grow), applied] if learned else [applied]

    def _learn(self, grow: GrowPlan) -> PhaseEstimate:
        layout = grow.layout
        operator, source = self._operator(layout), self._model(layout.source)
        kept = self._activations(grow.learn.micro_batch_size)
        phase = LearnPhase(layout, operator, source, grow.learn, grow.states, kept, self._evaluated)
        assert self.stage.cost.learn is not None
        return self._estimate(
            "learn",
            phase,
            self.stage.cost.learn,
            source=source.numel,
            operator=operator.numel,
            target=self.stage.parameters,
        )

    def _grow(self, grow: GrowPlan, *, learned: bool) -> PhaseEstimate:
        layout = grow.layout
        operator, target = self._operator(layout), self._model(self.stage.shape)
        compares = self.plan.config.evaluation.compare_random
        phase = GrowPhase(layout, operator, target, grow.states, self._evaluated, learned, compares)
        assert self.stage.cost.grow is not None
        return self._estimate(
            "grow",
            phase,
            self.stage.cost.grow,
            source=self._model(layout.source).numel,
            operator=operator.numel,
            target=target.numel,
        )

    def _estimate(
        self, kind: str, phase: Phase, cost: PhaseCost, source: int = 0, operator: int = 0, target: int = 0
    ) -> PhaseEstimate:
        setting = self.setting
        peaks, traffic = phase.peaks(setting), phase.traffic(setting)
        checkpoint = phase.checkpoint(setting)
        return PhaseEstimate(kind, source, operator, target, cost, peaks, traffic, checkpoint, phase, setting)

    def _model(self, shape: ModelShape, *, checkpointed: bool = False) -> TrainedModules:
        modules = model_modules(self.setting.architecture, shape)
        if self.plan.config.compile:
            modules = whole_blocks(modules)
        return self._trained(modules, checkpointed=checkpointed)

    def _operator(self, layout: GrowthLayout) -> TrainedModules:
        return self._trained(generated_modules(layout))

    def _trained(self, modules: list[Module], *, checkpointed: bool = False) -> TrainedModules:
        """Modules, gathered and reduced by the sizes that fit one of their blocks."""
        block = [weight.shape for module in modules if module.layer == 0 for weight in module.weights]
        return TrainedModules(
            modules, Zero3.from_keys(self.plan.config.deepspeed, block), checkpointed=checkpointed
        )

    def _activations(self, sequences: int) -> Activations:
        return activations(self.setting, self.stage.shape, self.plan.tokens_per_sample, sequences)

    @property
    def _evaluated(self) -> Activations:
        return self._activations(self.plan.config.evaluation.micro_batch_size)


@dataclass(frozen=True)
class Needs:
    """Bytes that a run needs.

    Attributes:
        memory: on one rank, at the peak of all phases: on its accelerator, or where there is none in the
            machine's memory, beside what the process takes anyway.
        checkpoints: on disk, while the largest checkpoint is written beside those that are kept.
        exports: on disk, of all models that are exported.
    """

    memory: int
    checkpoints: int
    exports: int


def needs(plan: Plan, *, on_gpu: bool = True) -> Needs:
    """The needs of a plan; `on_gpu`: its ranks compute on GPUs, where attention keeps no scores."""
    checkpoints = plan.config.checkpoints
    stages = estimate_stages(plan, Setting.of(plan, on_gpu=on_gpu))
    phases = [phase for stage in stages for phase in stage.phases]
    exported = stages if checkpoints.export_stages else stages[-1:]
    return Needs(
        max(phase.peak.total for phase in phases),
        max(phase.checkpoint for phase in phases) * (checkpoints.keep + 1),
        sum(stage.export for stage in exported),
    )
