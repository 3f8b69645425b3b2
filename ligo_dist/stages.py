"""The schedule as flat numbers: stages with their phases, and where a run stands in them.

A stage is grown (`learn`, then the operator is applied) unless it is the first, then trained (`train`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ligo_dist.architectures import Architecture, ModelShape, get_architecture
from ligo_dist.config import Config, stage_shapes
from ligo_dist.config.schema import Grow, Learn, Schedule, Train
from ligo_dist.config.ways import learn_steps
from ligo_dist.costs import StageCost, stage_costs
from ligo_dist.engine import OptimizerSettings
from ligo_dist.growth.methods import Method, build_growth, get_method, norm_epsilon_factor
from ligo_dist.growth.operators import Growth
from ligo_dist.schedules import LearningRate

LEARN, TRAIN = "learn", "train"


@dataclass(frozen=True)
class PhasePlan:
    """One phase of optimizer steps.

    Attributes:
        kind: `learn` (the operator) or `train` (the model).
        steps: optimizer steps.
        batch_size: sequences per step, over all ranks.
        micro_batch_size: the most sequences per rank and forward pass.
        optimizer: AdamW's settings.
        learning_rate: of each step.
        depth_learning_rate: the same for depth coefficients; None: as `learning_rate`.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        first_step: the run's global step when the phase begins.
        first_sample: global number of the first training sample it takes.
    """

    kind: str
    steps: int
    batch_size: int
    micro_batch_size: int
    optimizer: OptimizerSettings
    learning_rate: LearningRate
    activation_checkpointing: bool
    depth_learning_rate: LearningRate | None = None
    first_step: int = 0
    first_sample: int = 0

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate of each kind of parameter at a step of the phase."""
        rate = self.learning_rate(step)
        if self.kind == TRAIN:
            return {"model": rate}
        return {"depth": (self.depth_learning_rate or self.learning_rate)(step), "width": rate}


@dataclass(frozen=True)
class SweepPlan:
    """A short search for the operator's learning rate: a few steps with each candidate, all from the start."""

    learning_rates: tuple[float, ...]
    steps: int


@dataclass(frozen=True)
class GrowPlan:
    """How a stage's model is made from the one before.

    Attributes:
        growth: the pair of models and its operator.
        method: where the operator starts.
        learn: how it is learned.
        sweep: a search for the learning rate before that.
        optimizer_state: `fresh`, `grown` or `asymmetric` moments of AdamW.
    """

    growth: Growth
    method: Method
    learn: PhasePlan
    sweep: SweepPlan | None
    optimizer_state: str


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: the user's name for it.
        index: its place in the schedule.
        shape: of its model.
        grow: how it grows out of the stage before; None for the first, and for one that starts from scratch.
        train: how the model is trained.
        cost: of its phases.
        epsilon_factor: what the library's norm epsilon is multiplied by, all growths so far together.
        nodes: that it asks for; None: any number.
    """

    name: str
    index: int
    shape: ModelShape
    grow: GrowPlan | None
    train: PhasePlan
    cost: StageCost
    epsilon_factor: float = 1.0
    nodes: int | None = None

    @property
    def phases(self) -> list[PhasePlan]:
        return [self.train] if self.grow is None else [self.grow.learn, self.train]


@dataclass
class StageRecord:
    """What is known of a stage so far; see `summary.StageSummary` for those that are shown.

    Attributes:
        operator_learning_rate: what a sweep chose.
        adam_steps: steps that the optimizer's state had seen before the stage's first one.
    """

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    source_loss: float | None = None
    grown_loss: float | None = None
    random_loss: float | None = None
    final_loss: float | None = None
    final_accuracy: float | None = None
    operator_learning_rate: float | None = None
    adam_steps: int = 0


@dataclass
class RunState:
    """Where a run stands; with the weights and the optimizer's moments, all that resuming needs.

    Attributes:
        stage: index of the stage.
        phase: `learn` or `train`.
        step: optimizer steps of the phase that are done.
        tokens: trained on, over the whole run.
        flops: spent on training, learning and growing, over the whole run.
        records: one for each stage begun.
    """

    stage: int = 0
    phase: str = TRAIN
    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    records: list[StageRecord] = field(default_factory=lambda: [StageRecord()])

    @property
    def record(self) -> StageRecord:
        return self.records[self.stage]

    @property
    def seconds(self) -> float:
        """Time spent on steps, their evaluations and growing, over the whole run; what a resumed run takes again counts
        once."""
        return sum(record.seconds for record in self.records)

    def enter(self, stage: int, phase: str) -> None:
        """Go to the beginning of a phase."""
        self.stage, self.phase, self.step = stage, phase, 0
        if len(self.records) == stage:
            self.records.append(StageRecord())

    def add(self, tokens: int, flops: float, seconds: float) -> None:
        self.tokens += tokens
        self.flops += flops
        self.record.tokens += tokens
        self.record.flops += flops
        self.record.seconds += seconds

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        records = [StageRecord(**record) for record in values["records"]]
        return cls(**{**values, "records": records})


def build_stages(config: Config, pieces: int, world_size: int) -> list[StagePlan]:
    """The schedule that a configuration describes; `pieces` is the tokenizer's number of pieces, 0 for images.

    Raises:
        ArchitectureError: for a growth that the family or the method does not allow.
    """
    architecture = get_architecture(config.model.family)
    shapes = stage_shapes(config, pieces)
    costs = stage_costs(config, shapes, world_size)
    plans: list[StagePlan] = []
    epsilon = 1.0
    for index, (stage, shape, cost) in enumerate(zip(config.stages, shapes, costs, strict=True)):
        train = _build_phase(TRAIN, stage.train, stage.train.steps if stage.train else 0, stage.train)
        grow = None
        if stage.grow is not None:
            grow = _build_grow(architecture, shapes[index - 1], shape, stage.grow, stage.train)
            # From scratch nothing is inherited, the rescaled epsilon neither.
            epsilon = 1.0 if grow is None else epsilon * norm_epsilon_factor(grow.growth, grow.method)
        plans.append(StagePlan(stage.name, index, shape, grow, train, cost, epsilon, stage.nodes))
    return list(_numbered(plans))


def _build_grow(
    architecture: Architecture, source: ModelShape, target: ModelShape, section: Grow, train: Train | None
) -> GrowPlan | None:
    method = get_method(section.method, section.depth, section.width, section.noise)
    if method is None:
        return None
    growth = build_growth(
        architecture,
        source,
        target,
        method,
        tied=section.tied,
        identity=section.identity,
        share_depth=section.share_depth,
        share_width=section.share_width,
    )
    steps = learn_steps(section)
    learn = _build_phase(LEARN, section.learn, steps, train)
    sweep = section.learn.sweep
    return GrowPlan(
        growth,
        method,
        learn,
        SweepPlan(tuple(sweep.learning_rates), sweep.steps) if sweep and steps else None,
        section.optimizer_state,
    )


def _build_phase(kind: str, section: Learn | Train | None, steps: int, train: Train | None) -> PhasePlan:
    """A phase; without a section one of no step, for a model that is taken as it is."""
    section = section or _AS_IT_IS
    optimizer = section.optimizer
    depth = section.depth if isinstance(section, Learn) else None
    return PhasePlan(
        kind=kind,
        steps=steps,
        batch_size=section.batch_size or (train or _AS_IT_IS).batch_size,
        micro_batch_size=section.micro_batch_size or (train or _AS_IT_IS).micro_batch_size,
        optimizer=OptimizerSettings(
            optimizer.learning_rate,
            optimizer.betas,
            optimizer.epsilon,
            optimizer.weight_decay,
            optimizer.gradient_clipping,
        ),
        learning_rate=_learning_rate(optimizer.learning_rate, section.schedule, steps),
        depth_learning_rate=_learning_rate(depth.learning_rate, depth.schedule, steps) if depth else None,
        activation_checkpointing=kind == TRAIN
        and isinstance(section, Train)
        and section.activation_checkpointing,
    )


_AS_IT_IS = Train(steps=0, batch_size=1, micro_batch_size=1)


def _learning_rate(peak: float, schedule: Schedule, steps: int) -> LearningRate:
    return LearningRate(
        schedule.kind, peak, steps, schedule.warmup_steps, schedule.decay_steps or 0, schedule.final_ratio
    )


def _numbered(plans: list[StagePlan]) -> Iterator[StagePlan]:
    """Fill in where each phase begins: steps and samples are counted through the whole run."""
    step = sample = 0

    def placed(phase: PhasePlan) -> PhasePlan:
        nonlocal step, sample
        here = replace(phase, first_step=step, first_sample=sample)
        step += phase.steps
        sample += phase.steps * phase.batch_size
        return here

    for plan in plans:
        grow = plan.grow and replace(plan.grow, learn=placed(plan.grow.learn))
        yield replace(plan, grow=grow, train=placed(plan.train))
