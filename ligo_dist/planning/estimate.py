"""What each phase of a configuration takes: parameters, FLOPs, memory, communication, disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ligo_dist.accounting import parameter_count
from ligo_dist.architectures import ModelShape
from ligo_dist.config.schema import Config, Grow, Stage, Train
from ligo_dist.config.shapes import tokens_per_sample
from ligo_dist.config.ways import learn_batch, learn_steps, ways_to_grow
from ligo_dist.costs import PhaseCost, StageCost, stage_costs
from ligo_dist.growth.layout import GrowthLayout
from ligo_dist.planning.activations import Activations, activations
from ligo_dist.planning.memory import Memory, fullest
from ligo_dist.planning.phases import GrowPhase, LearnPhase, Phase, Trained, TrainPhase
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.traffic import Traffic
from ligo_dist.planning.weights import generated_modules, model_modules

MOST_RANKS = 1 << 20


@dataclass(frozen=True)
class PhaseEstimate:
    """What one phase takes.

    Attributes:
        kind: `learn`, `grow` or `train`.
        source, operator, target: parameters of each; 0 for what the phase has not.
        cost: its steps, tokens and FLOPs, over all ranks.
        moments: bytes on one rank, at each moment that can be the fullest.
        traffic: of one optimizer step; of growing, of all of it.
        checkpoint: bytes on disk of a checkpoint taken in it, over all ranks.
        phase, setting: what this was worked out from.
    """

    kind: str
    source: int
    operator: int
    target: int
    cost: PhaseCost
    moments: list[Memory]
    traffic: Traffic
    checkpoint: int
    phase: Phase
    setting: Setting

    @property
    def fullest(self) -> Memory:
        return fullest(self.moments)

    def fewest_ranks(self, usable: int) -> int | None:
        """The smallest number of ranks on which no rank holds more than so many bytes; None if there is none."""

        def fits(ranks: int) -> bool:
            moments = self.phase.moments(replace(self.setting, ranks=ranks))
            return fullest(moments).total <= usable

        above = 1
        while not fits(above):
            above *= 2
            if above > MOST_RANKS:
                return None
        below = above // 2
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (below, middle) if fits(middle) else (middle, above)
        return above


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes.

    Attributes:
        name: the user's name for it.
        shape, parameters: of its model.
        cost: of its phases.
        phases: in their order; empty for a model that is taken as it is.
        export: bytes on disk of its model, exported.
    """

    name: str
    shape: ModelShape
    parameters: int
    cost: StageCost
    phases: list[PhaseEstimate]
    export: int


def estimate_stages(config: Config, shapes: Sequence[ModelShape], setting: Setting) -> list[StageEstimate]:
    """The estimates of all stages of a checked configuration whose models have these shapes."""
    stages = []
    for index, cost in enumerate(stage_costs(config, shapes, setting.ranks)):
        stage, shape = config.stages[index], shapes[index]
        estimator = _Estimator(config, setting, stage, shape, cost)
        phases = estimator.growth(shapes[index - 1]) if cost.grow is not None else []
        phases += estimator.training()
        parameters = parameter_count(setting.architecture, shape)
        stages.append(StageEstimate(stage.name, shape, parameters, cost, phases, FP32 * parameters))
    return stages


@dataclass(frozen=True)
class _Estimator:
    """Estimates the phases of one stage."""

    config: Config
    setting: Setting
    stage: Stage
    shape: ModelShape
    cost: StageCost

    def training(self) -> list[PhaseEstimate]:
        train = self.stage.train
        if train is None:
            return []
        model = self._model(self.shape, checkpointed=train.activation_checkpointing)
        kept = self._activations(train.micro_batch_size)
        phase = TrainPhase(model, self.shape.layers, train, kept, self._evaluated)
        return [self._estimate("train", phase, self.cost.train, target=model.numel)]

    def growth(self, source: ModelShape) -> list[PhaseEstimate]:
        """Learning the operator, if it is, and applying it."""
        grow, train = self.stage.grow, self.stage.train
        assert grow is not None and train is not None
        layout = growth_layout(self.setting, grow, source, self.shape)
        learned = learn_steps(grow) > 0
        applied = self._grow(layout, grow, learned=learned)
        return [self._learn(layout, grow, train), applied] if learned else [applied]

    def _learn(self, layout: GrowthLayout, grow: Grow, train: Train) -> PhaseEstimate:
        batch = learn_batch(grow.learn, train)
        operator, source = self._operator(layout), self._model(layout.source)
        phase = LearnPhase(
            layout, operator, source, batch, _states(grow), self._activations(batch[1]), self._evaluated
        )
        assert self.cost.learn is not None
        return self._estimate(
            "learn",
            phase,
            self.cost.learn,
            source=source.numel,
            operator=operator.numel,
            target=parameter_count(self.setting.architecture, self.shape),
        )

    def _grow(self, layout: GrowthLayout, grow: Grow, *, learned: bool) -> PhaseEstimate:
        operator, target = self._operator(layout), self._model(self.shape)
        compares = self.config.evaluation.compare_random
        phase = GrowPhase(layout, operator, target, _states(grow), self._evaluated, learned, compares)
        assert self.cost.grow is not None
        return self._estimate(
            "grow",
            phase,
            self.cost.grow,
            source=parameter_count(self.setting.architecture, layout.source),
            operator=operator.numel,
            target=target.numel,
        )

    def _estimate(
        self, kind: str, phase: Phase, cost: PhaseCost, source: int = 0, operator: int = 0, target: int = 0
    ) -> PhaseEstimate:
        setting = self.setting
        moments, traffic = phase.moments(setting), phase.traffic(setting)
        checkpoint = phase.checkpoint(setting)
        return PhaseEstimate(
            kind, source, operator, target, cost, moments, traffic, checkpoint, phase, setting
        )

    def _model(self, shape: ModelShape, *, checkpointed: bool = False) -> Trained:
        modules = model_modules(self.setting.architecture, shape)
        return Trained(modules, self.setting.zero3, checkpointed)

    def _operator(self, layout: GrowthLayout) -> Trained:
        return Trained(generated_modules(layout), self.setting.zero3)

    def _activations(self, sequences: int) -> Activations:
        architecture, length = self.setting.architecture, self.config.data.sequence_length
        return activations(
            self.setting, self.shape, tokens_per_sample(architecture, self.shape, length), sequences
        )

    @property
    def _evaluated(self) -> Activations:
        return self._activations(self.config.evaluation.micro_batch_size)


def growth_layout(setting: Setting, grow: Grow, source: ModelShape, target: ModelShape) -> GrowthLayout:
    """The operator that a `grow` section asks for."""
    ways = ways_to_grow(grow)
    assert ways is not None
    return GrowthLayout.for_ways(
        setting.architecture,
        source,
        target,
        *ways,
        tied=grow.tied,
        identity=grow.identity,
        share_depth=grow.share_depth,
        share_width=grow.share_width,
    )


def _states(grow: Grow) -> int:
    """What grows of each weight: itself, or AdamW's two moments too."""
    return 1 if grow.optimizer_state == "fresh" else 3
