"""The schedule as flat numbers: stages with their phases, and where a run stands in them.

A stage is grown (`learn`, then the operator is applied) unless it is the first, then trained (`train`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ligo_dist.architectures import ModelShape, get_architecture
from ligo_dist.config import model_shape
from ligo_dist.engine import OptimizerSettings
from ligo_dist.growth.methods import Method, get_method, resolve_tied
from ligo_dist.growth.operators import Growth
from ligo_dist.schedules import LearningRate

if TYPE_CHECKING:
    from ligo_dist.config import Config
    from ligo_dist.config.schema import Learn, Train

LEARN, TRAIN = "learn", "train"


@dataclass(frozen=True)
class PhasePlan:
    """One phase of optimizer steps.

    Attributes:
        kind: `learn` (the operator) or `train` (the model).
        steps: optimizer steps.
        batch_size: sequences per step, over all ranks.
        micro_batch_size: sequences per rank and forward pass.
        optimizer: AdamW's settings.
        learning_rate: of each step.
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
    first_step: int = 0
    first_sample: int = 0


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name: the user's name for it.
        index: its place in the schedule.
        shape: of its model.
        growth: from the stage before; None for the first.
        method: where the operator starts; None for the first.
        learn: how the operator is learned; None for the first.
        train: how the model is trained.
    """

    name: str
    index: int
    shape: ModelShape
    growth: Growth | None
    method: Method | None
    learn: PhasePlan | None
    train: PhasePlan

    @property
    def phases(self) -> list[PhasePlan]:
        return [phase for phase in (self.learn, self.train) if phase is not None]


@dataclass
class StageRecord:
    """What is known of a stage so far; see `summary.StageSummary` for the fields."""

    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    source_loss: float | None = None
    grown_loss: float | None = None
    random_loss: float | None = None
    final_loss: float | None = None


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

    @property
    def order(self) -> tuple[int, int, int]:
        """Grows as the run goes on."""
        return (self.stage, (LEARN, TRAIN).index(self.phase), self.step)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        records = [StageRecord(**record) for record in values["records"]]
        return cls(**{**values, "records": records})


def build_stages(config: Config, vocab: int) -> list[StagePlan]:
    """The schedule that a configuration describes.

    Raises:
        ArchitectureError: for a growth that the family or the method does not allow.
    """
    architecture = get_architecture(config.model.family)
    plans: list[StagePlan] = []
    for index, stage in enumerate(config.stages):
        shape = model_shape(config.model, stage.size, vocab)
        growth = method = learn = None
        if stage.grow is not None:
            method = get_method(stage.grow.method)
            tied = resolve_tied(method, stage.grow.tied)
            growth = Growth(architecture, plans[-1].shape, shape, tied)
            learn = _build_phase(LEARN, stage.grow.learn, stage.train)
        plans.append(
            StagePlan(
                stage.name, index, shape, growth, method, learn, _build_phase(TRAIN, stage.train, stage.train)
            )
        )
    return list(_numbered(plans))


def _build_phase(kind: str, section: Learn | Train, train: Train) -> PhasePlan:
    optimizer, schedule = section.optimizer, section.schedule
    return PhasePlan(
        kind=kind,
        steps=section.steps,
        batch_size=section.batch_size or train.batch_size,
        micro_batch_size=section.micro_batch_size or train.micro_batch_size,
        optimizer=OptimizerSettings(
            optimizer.learning_rate,
            optimizer.betas,
            optimizer.epsilon,
            optimizer.weight_decay,
            optimizer.gradient_clipping,
        ),
        learning_rate=LearningRate(
            schedule.kind,
            optimizer.learning_rate,
            section.steps,
            schedule.warmup_steps,
            schedule.decay_steps or 0,
            schedule.final_ratio,
        ),
        activation_checkpointing=kind == TRAIN and train.activation_checkpointing,
    )


def _numbered(plans: list[StagePlan]) -> Iterator[StagePlan]:
    """Fill in where each phase begins: steps and samples are counted through the whole run."""
    step = sample = 0
    for plan in plans:
        phases: dict[str, PhasePlan | None] = {LEARN: None}
        for phase in plan.phases:
            phases[phase.kind] = replace(phase, first_step=step, first_sample=sample)
            step += phase.steps
            sample += phase.steps * phase.batch_size
        train = phases[TRAIN]
        assert train is not None
        yield replace(plan, learn=phases[LEARN], train=train)
