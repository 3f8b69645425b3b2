"""The plan: what a configuration comes to, resolved once. Command line, dry run, forecast and ranks all take it.

A stage is grown (`learn`, then the operator is applied) unless it is the first, then trained (`train`). Nothing here
loads torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ligo_dist.architectures import (
    Architecture,
    ModelShape,
    Selection,
    every_parameter,
    no_block_matrix,
)
from ligo_dist.config import (
    PASSES_OVER,
    Config,
    Data,
    Learn,
    Optimizer,
    Stage,
    Train,
    learn_batch,
    learn_steps,
    method_of,
    stage_shapes,
    stage_weights,
    tokens_per_sample,
)
from ligo_dist.growth import GrowthLayout, Method
from ligo_dist.runtime.optimizers import MATRICES, MuonSettings, OptimizerSettings
from ligo_dist.schedule.batch_split import BatchSplit
from ligo_dist.schedule.costs import (
    Attended,
    PhaseCost,
    StageCost,
    growing_cost,
    learning_cost,
    training_cost,
)
from ligo_dist.schedule.flops import parameter_count
from ligo_dist.schedule.learning_rate import LearningRate
from ligo_dist.schedule.mixing import Mixing, whole_weights
from ligo_dist.schedule.state import LEARN, TRAIN

if TYPE_CHECKING:
    from ligo_dist.growth import Growth


@dataclass(frozen=True)
class PhasePlan:
    """One phase of optimizer steps.

    Attributes:
        kind: `learn` (the operator) or `train` (the model).
        steps: optimizer steps.
        batch_size: sequences per step, over all ranks.
        micro_batch_size: the most sequences per rank and forward pass.
        optimizer: its settings.
        learning_rate: of each step.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        freeze: steps at its beginning that train new layers and units alone.
        new_rate: factor of the learning rate of new layers and units.
        first_step: the run's global step when the phase begins.
        first_sample: global number of the first training sample it takes.
        mixing: which source of a mixture each of its samples is from; None: there is one.
    """

    kind: str
    steps: int
    batch_size: int
    micro_batch_size: int
    optimizer: OptimizerSettings
    learning_rate: LearningRate
    activation_checkpointing: bool
    freeze: int = 0
    new_rate: float = 1.0
    first_step: int = 0
    first_sample: int = 0
    mixing: Mixing | None = None

    @property
    def marks_new(self) -> bool:
        """Whether new layers and units are trained otherwise than the rest."""
        return self.freeze > 0 or self.new_rate != 1

    def rates(self, step: int) -> dict[str, float]:
        """The learning rate of each kind of parameter at a step of the phase."""
        kinds = ("model",) if self.kind == TRAIN else ("depth", "width")
        rates = dict.fromkeys(kinds, self.learning_rate(step))
        if self.optimizer.muon is not None:
            factor = self.optimizer.muon.learning_rate / self.optimizer.learning_rate
            rates[MATRICES] = factor * self.learning_rate(step)
        return rates

    def split(self, world_size: int) -> BatchSplit:
        """Its batches over so many ranks."""
        return BatchSplit(self.batch_size, self.micro_batch_size, world_size)


@dataclass(frozen=True)
class GrowPlan:
    """How a stage's model is made from the one before.

    Attributes:
        layout: the pair of models and the operator's parameters.
        method: where the operator starts.
        learn: how it is learned.
        optimizer_state: `fresh`, `grown` or `asymmetric` moments of the optimizer.
        muon: the source's moments are Muon's, where they grow.
    """

    layout: GrowthLayout
    method: Method
    learn: PhasePlan
    optimizer_state: str
    muon: bool = False

    @property
    def states(self) -> tuple[Selection, ...]:
        """What grows: the weights, and where they are not fresh the first and the second moments; each as the
        parameters that have it."""
        moments = (every_parameter, no_block_matrix if self.muon else every_parameter)
        return (every_parameter,) if self.optimizer_state == "fresh" else (every_parameter, *moments)

    @cached_property
    def obstacles(self) -> list[str]:
        """Why the target will not compute the source's function right after growing; empty if it will."""
        return self.layout.obstacles(self.method)

    @cached_property
    def growth(self) -> Growth:
        """The pair with its operator, to be applied: for the ranks, as it loads torch."""
        from ligo_dist.growth import Growth

        return Growth.of(self.layout)

    @property
    def block(self) -> list[tuple[int, ...]]:
        """Shapes of the operator's parameters that make one block."""
        return [p.shape for p in self.layout.operator_parameters if p.layer in (None, 0)]


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        section: what the configuration says of it.
        index: its place in the schedule.
        shape: of its model.
        parameters: of its model; a head tied to the embedding counts once.
        grow: how it grows out of the stage before; None for the first, and for one that starts from scratch.
        train: how the model is trained.
        cost: of its phases.
        epsilon_factor: what the library's norm epsilon is multiplied by, all growths so far together.
    """

    section: Stage
    index: int
    shape: ModelShape
    parameters: int
    grow: GrowPlan | None
    train: PhasePlan
    cost: StageCost
    epsilon_factor: float = 1.0

    @property
    def name(self) -> str:
        """The user's name for it."""
        return self.section.name

    def block(self, architecture: Architecture) -> list[tuple[int, ...]]:
        """Shapes of the weights of one block of its model."""
        return [spec.shape for spec in architecture.parameters(self.shape) if spec.layer == 0]

    @property
    def phases(self) -> list[PhasePlan]:
        return [self.train] if self.grow is None else [self.grow.learn, self.train]


@dataclass(frozen=True)
class Plan:
    """A configuration, resolved for a number of ranks.

    Attributes:
        config: the checked configuration, with what the source says filled in.
        architecture: the family of its models.
        pieces: of the tokenizer; 0 for images.
        world_size: number of ranks.
        tokens_per_sample: positions that the blocks work on.
        stages: in their order.
        attended: pairs of positions of a sequence that attend to each other, on average over the corpus; None: each to
            each, or not known yet.
        source_notes: a line for everything in the weights of `stages[0].from` that begins anew or is left out, where
            they have been looked at.
    """

    config: Config
    architecture: Architecture
    pieces: int
    world_size: int
    tokens_per_sample: int
    stages: tuple[StagePlan, ...]
    source_notes: tuple[str, ...] = ()
    attended: int | None = None

    @classmethod
    def of(cls, config: Config, pieces: int, world_size: int, attended: int | None = None) -> Plan:
        """What a checked configuration comes to; the arguments are attributes.

        Raises:
            ConfigError: `model.vocab_size` leaves pieces of the tokenizer without a row of the embedding.
            ArchitectureError: for a growth that the family or the method does not allow.
        """
        architecture = config.architecture
        shapes = stage_shapes(config, pieces)
        tokens = tokens_per_sample(architecture, shapes[0], config.data.sequence_length)
        numbered = any(config.model.huggingface.get(key) for key in architecture.numbering_keys)
        passes_over = config.model.attention in PASSES_OVER
        pairs = Attended(attended, attended if passes_over else None)
        stages: list[StagePlan] = []
        epsilon = 1.0
        for index, (section, shape) in enumerate(zip(config.stages, shapes, strict=True)):
            grow = _grow_plan(architecture, section, shapes[index - 1], shape, numbered)
            if section.grow is not None:
                # From scratch nothing is inherited, the rescaled epsilon neither.
                epsilon = 1.0 if grow is None else epsilon * grow.layout.epsilon_factor(grow.method)
            train = _phase(TRAIN, section.train, section.train.steps if section.train else 0, section.train)
            cost = _stage_cost(architecture, shape, grow, train, tokens, world_size, pairs)
            count = parameter_count(architecture, shape)
            stages.append(StagePlan(section, index, shape, count, grow, train, cost, epsilon))
        numbered_stages = tuple(_numbered(stages, config.data))
        return cls(config, architecture, pieces, world_size, tokens, numbered_stages, attended=attended)

    @property
    def last(self) -> StagePlan:
        return self.stages[-1]

    @property
    def samples(self) -> int:
        """Training samples that all phases take."""
        return sum(phase.steps * phase.batch_size for stage in self.stages for phase in stage.phases)

    @property
    def samples_by_source(self) -> dict[str, int]:
        """The same by the sources of `data.mixture`; under the name "" where there is one alone."""
        end = self.last.train
        if end.mixing is None:
            return {"": self.samples}
        taken = end.mixing.taken(end.steps * end.batch_size)
        return dict(zip(self.config.data.mixture, taken, strict=True))

    @property
    def cost(self) -> PhaseCost:
        """Of all stages."""
        return sum((stage.cost.total for stage in self.stages), PhaseCost())


def _grow_plan(
    architecture: Architecture, stage: Stage, source: ModelShape, target: ModelShape, numbered: bool
) -> GrowPlan | None:
    section, method = stage.grow, None if stage.grow is None else method_of(stage.grow)
    if section is None or method is None:
        return None
    layout = GrowthLayout.for_method(
        architecture,
        source,
        target,
        method,
        tied=section.tied,
        identity=section.identity,
        share_depth=section.share_depth,
        share_width=section.share_width,
        numbered=numbered,
    )
    learn = _phase(LEARN, section.learn, learn_steps(section), stage.train)
    muon = stage.train is not None and stage.train.optimizer.kind == "muon"
    return GrowPlan(layout, method, learn, section.optimizer_state, muon)


def _phase(kind: str, section: Learn | Train | None, steps: int, train: Train | None) -> PhasePlan:
    """A phase; without a section one of no step, for a model that is taken as it is."""
    section, train = section or _AS_IT_IS, train or _AS_IT_IS
    batch_size, micro_batch_size = learn_batch(section, train)
    optimizer = section.optimizer
    return PhasePlan(
        kind=kind,
        steps=steps,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        optimizer=OptimizerSettings(
            optimizer.learning_rate,
            optimizer.betas,
            optimizer.epsilon,
            optimizer.weight_decay,
            optimizer.gradient_clipping,
            _muon(optimizer) if isinstance(optimizer, Optimizer) else None,
        ),
        learning_rate=rate_of(section, steps),
        activation_checkpointing=(
            train.activation_checkpointing
            if section.activation_checkpointing is None
            else section.activation_checkpointing
        ),
        freeze=section.freeze if isinstance(section, Train) else 0,
        new_rate=section.new_rate if isinstance(section, Train) else 1.0,
    )


def _muon(optimizer: Optimizer) -> MuonSettings | None:
    """Muon's settings, where the matrices of the blocks are trained so."""
    if optimizer.kind != "muon":
        return None
    momentum = _MUON_MOMENTUM if optimizer.muon_momentum is None else optimizer.muon_momentum
    return MuonSettings(optimizer.muon_learning_rate or optimizer.learning_rate, momentum)


_MUON_MOMENTUM = 0.95


def rate_of(section: Learn | Train, steps: int) -> LearningRate:
    """The learning rate of a phase of so many steps."""
    schedule = section.schedule
    return LearningRate(
        schedule.kind,
        section.optimizer.learning_rate,
        steps,
        schedule.warmup_steps,
        schedule.decay_steps or 0,
        schedule.final_ratio,
    )


_AS_IT_IS = Train(steps=0, batch_size=1, micro_batch_size=1)


def _stage_cost(
    architecture: Architecture,
    shape: ModelShape,
    grow: GrowPlan | None,
    train: PhasePlan,
    tokens: int,
    world_size: int,
    attended: Attended,
) -> StageCost:
    trained = training_cost(
        architecture,
        shape,
        train.steps,
        train.split(world_size),
        tokens,
        checkpointed=train.activation_checkpointing,
        muon=train.optimizer.muon is not None,
        attended=attended,
    )
    if grow is None:
        return StageCost(None, None, trained)
    learn = grow.learn
    learned = learning_cost(
        grow.layout,
        learn.steps,
        learn.split(world_size),
        tokens,
        checkpointed=learn.activation_checkpointing,
        attended=attended,
    )
    return StageCost(learned, growing_cost(grow.layout, grow.states), trained)


def _numbered(stages: list[StagePlan], data: Data) -> Iterator[StagePlan]:
    """Fill in where each phase begins: steps and samples, those of each source too, are counted through the whole
    run."""
    step = sample = 0
    taken = (0,) * len(data.mixture)

    def placed(phase: PhasePlan, section: Stage) -> PhasePlan:
        nonlocal step, sample, taken
        weights = tuple(stage_weights(data, section).values())
        mixing = Mixing(whole_weights(weights), taken) if weights else None
        here = replace(phase, first_step=step, first_sample=sample, mixing=mixing)
        step += phase.steps
        sample += phase.steps * phase.batch_size
        taken = mixing.taken(phase.steps * phase.batch_size) if mixing else taken
        return here

    for stage in stages:
        grow = stage.grow and replace(stage.grow, learn=placed(stage.grow.learn, stage.section))
        yield replace(stage, grow=grow, train=placed(stage.train, stage.section))
