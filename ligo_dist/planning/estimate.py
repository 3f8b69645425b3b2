"""What each phase of a plan takes on any number of ranks: parameters, FLOPs, memory, communication, disk."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ligo_dist.architectures import ParameterSpec, Selection
from ligo_dist.planning.activations import Activations, activation_bytes
from ligo_dist.planning.gathering import (
    Module,
    Trained,
    generated_modules,
    model_modules,
    partitioned,
)
from ligo_dist.planning.memory import Marked, Memory, growing_peaks, learning_peaks, peak_of, training_peaks
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.traffic import Traffic, engine_traffic, generation_traffic, transfer_traffic
from ligo_dist.runtime.zero3 import Zero3
from ligo_dist.schedule import LEARN, TRAIN, GrowPlan, PhaseCost, PhasePlan, Plan, StagePlan

GROW = "grow"
MOST_RANKS = 1 << 20


@dataclass(frozen=True)
class PhaseEstimate:
    """What one phase takes.

    Attributes:
        stage: it is of.
        kind: `learn`, `grow` or `train`.
        ranks: that the plan has.
        cost: its steps, tokens and FLOPs, over all ranks.
        traffic: of one optimizer step; of growing, of all of it.
        checkpoint: bytes on disk of a checkpoint taken in it, over all ranks.
        peaks_on: bytes on one rank of so many, at each point that can be the peak.
        source, operator: parameters of each; 0 where nothing grows. The stage has those of the target.
        blocks: how many blocks a rank runs forward and backward in one optimizer step, one after the other.
    """

    stage: StagePlan
    kind: str
    ranks: int
    cost: PhaseCost
    traffic: Traffic
    checkpoint: int
    peaks_on: Callable[[int], list[Memory]]
    source: int = 0
    operator: int = 0
    blocks: int = 0

    @cached_property
    def peaks(self) -> list[Memory]:
        """On the ranks that the plan has."""
        return self.peaks_on(self.ranks)

    @property
    def peak(self) -> Memory:
        return peak_of(self.peaks)


def fewest_ranks(phases: Sequence[PhaseEstimate], usable: int, most: int = MOST_RANKS) -> int | None:
    """The smallest number of ranks, up to `most`, on which no rank holds more than so many bytes in any of the phases;
    None if there is none."""

    def fits(ranks: int) -> bool:
        return all(peak_of(phase.peaks_on(ranks)).total <= usable for phase in phases)

    if fits(1):  # it gathers nothing, and may hold less than each of two
        return 1
    fewest = 2 + bisect_left(range(2, most + 1), True, key=fits)
    return fewest if fewest <= most else None


def estimate_phases(plan: Plan, *, on_gpu: bool = True) -> list[PhaseEstimate]:
    """The estimates of a plan, stage by stage; a model that is taken as it is has no phase.

    Args:
        plan: with its number of ranks.
        on_gpu: its ranks compute on GPUs, where attention keeps no scores.
    """
    setting = Setting.of(plan, on_gpu=on_gpu)
    phases = []
    for stage in plan.stages:
        if stage.grow is not None:
            if stage.grow.learn.steps:
                phases.append(_learning(plan, setting, stage, stage.grow))
            phases.append(_growing(plan, setting, stage, stage.grow))
        if stage.section.train is not None:
            phases.append(_training(plan, setting, stage))
    return phases


def _training(plan: Plan, setting: Setting, stage: StagePlan) -> PhaseEstimate:
    train, ranks = stage.train, setting.ranks
    checkpointed, micro_steps = train.activation_checkpointing, train.split(ranks).micro_steps
    setting = _fitted(plan, setting, stage.block(plan.architecture))
    model = Trained.of(_modules(plan, stage), setting.zero3, checkpointed=checkpointed)
    kept, evaluated = _kept(plan, setting, stage, train), _evaluated(plan, setting, stage)
    marked = _marked(plan, stage)
    return PhaseEstimate(
        stage,
        TRAIN,
        ranks,
        stage.cost.train,
        engine_traffic(setting, model, micro_steps),
        checkpoint=FP32 * ranks * (partitioned(model.weights, ranks) + model.moments(ranks)),
        peaks_on=lambda ranks: training_peaks(replace(setting, ranks=ranks), model, kept, evaluated, marked),
        blocks=stage.shape.layers * micro_steps,
    )


def _learning(plan: Plan, setting: Setting, stage: StagePlan, grow: GrowPlan) -> PhaseEstimate:
    """Learning an operator."""
    layout, learn, states, ranks = grow.layout, grow.learn, grow.states, setting.ranks
    micro_steps = learn.split(ranks).micro_steps
    setting = _fitted(plan, setting, grow.block)
    operator = Trained.of(generated_modules(layout), setting.zero3)
    of_source = sum(_elements(plan.architecture.parameters(layout.source), states, ranks))
    kept, evaluated = _kept(plan, setting, stage, learn), _evaluated(plan, setting, stage)
    assert stage.cost.learn is not None
    return PhaseEstimate(
        stage,
        LEARN,
        ranks,
        stage.cost.learn,
        engine_traffic(setting, operator, micro_steps) + generation_traffic(setting, layout, micro_steps),
        checkpoint=FP32 * ranks * (3 * partitioned(operator.weights, ranks) + of_source),
        peaks_on=lambda ranks: learning_peaks(
            replace(setting, ranks=ranks), layout, operator, states, kept, evaluated
        ),
        source=plan.stages[stage.index - 1].parameters,
        operator=operator.numel,
        blocks=stage.shape.layers * micro_steps,
    )


def _growing(plan: Plan, setting: Setting, stage: StagePlan, grow: GrowPlan) -> PhaseEstimate:
    """Applying an operator."""
    layout, states, ranks, learned = grow.layout, grow.states, setting.ranks, grow.learn.steps > 0
    setting = _fitted(plan, setting, stage.block(plan.architecture))
    target = Trained.of(_modules(plan, stage), setting.zero3)
    evaluated, compares = _evaluated(plan, setting, stage), plan.config.evaluation.compare_random
    assert stage.cost.grow is not None
    return PhaseEstimate(
        stage,
        GROW,
        ranks,
        stage.cost.grow,
        sum(
            (transfer_traffic(setting, layout, learned=learned, selection=state) for state in states),
            Traffic(),
        ),
        checkpoint=FP32 * ranks * sum(_elements(layout.target_parameters, states, ranks)),
        peaks_on=lambda ranks: growing_peaks(
            replace(setting, ranks=ranks),
            layout,
            target,
            states,
            evaluated,
            learned=learned,
            compares=compares,
        ),
        source=plan.stages[stage.index - 1].parameters,
        operator=sum(parameter.numel for parameter in layout.operator_parameters),
    )


def _elements(specs: Sequence[ParameterSpec], states: Sequence[Selection], ranks: int) -> list[int]:
    """Of a rank's partitions of each state: of those parameters that have it."""
    return [partitioned([spec for spec in specs if selection(spec)], ranks) for selection in states]


def _modules(plan: Plan, stage: StagePlan) -> list[Module]:
    """Of a stage's model, as ZeRO-3 gathers them."""
    return model_modules(plan.architecture, stage.shape, muon=stage.train.optimizer.muon is not None)


def _marked(plan: Plan, stage: StagePlan) -> Marked | None:
    """What of a stage's model is trained otherwise than the rest; None: nothing is."""
    train, grow = stage.train, stage.grow
    if grow is None or not train.marks_new:
        return None
    source = plan.architecture.parameters(grow.layout.source)
    return Marked(source, train.freeze > 0, train.new_rate != 1)


def _fitted(plan: Plan, setting: Setting, block: Sequence[tuple[int, ...]]) -> Setting:
    """A setting whose sizes fit an engine's block."""
    return replace(setting, zero3=Zero3.from_keys(plan.config.deepspeed, block))


def _kept(plan: Plan, setting: Setting, stage: StagePlan, phase: PhasePlan) -> Activations:
    """Of a micro-batch of a phase."""
    return activation_bytes(
        setting,
        stage.shape,
        plan.tokens_per_sample,
        phase.micro_batch_size,
        checkpointed=phase.activation_checkpointing,
    )


def _evaluated(plan: Plan, setting: Setting, stage: StagePlan) -> Activations:
    """Of a micro-batch of the evaluation."""
    sequences = plan.config.evaluation.micro_batch_size
    return activation_bytes(setting, stage.shape, plan.tokens_per_sample, sequences)


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
    """The needs of a plan; `on_gpu` as in `estimate_phases`."""
    checkpoints, phases = plan.config.checkpoints, estimate_phases(plan, on_gpu=on_gpu)
    exported = plan.stages if checkpoints.export_stages else plan.stages[-1:]
    return Needs(
        max(phase.peak.total for phase in phases),
        max(phase.checkpoint for phase in phases) * (checkpoints.keep + len(checkpoints.keep_steps) + 1),
        sum(export_bytes(stage) for stage in exported),
    )


def export_bytes(stage: StagePlan) -> int:
    """On disk, of a stage's model, exported."""
    return FP32 * stage.parameters
