"""The phases of a stage, as far as the number of ranks does not matter; each says what it takes on any number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from ligo_dist.config.schema import Train
from ligo_dist.growth.layout import GrowthLayout
from ligo_dist.planning.activations import Activations
from ligo_dist.planning.gathering import Gathered, forward_and_backward, gathered
from ligo_dist.planning.memory import EngineMemory, Memory
from ligo_dist.planning.moments import SourceBytes, growing_moments, learning_moments, training_moments
from ligo_dist.planning.setting import FP32, Setting, micro_steps
from ligo_dist.planning.traffic import Traffic, engine_traffic, generation_traffic, transfer_traffic
from ligo_dist.planning.weights import Module, Weight, all_weights, partitioned
from ligo_dist.zero3 import Zero3


class Phase(Protocol):
    """What a phase takes in a setting, whose number of ranks may be any."""

    def moments(self, setting: Setting) -> list[Memory]:
        """Bytes on one rank, at each moment that can be the fullest."""

    def traffic(self, setting: Setting) -> Traffic:
        """Of one optimizer step; of growing, of all of it."""

    def checkpoint(self, setting: Setting) -> int:
        """Bytes on disk of a checkpoint that is taken in it, over all ranks."""


@dataclass(frozen=True)
class Trained:
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
        return EngineMemory(setting, self.weights, self.gathered)

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

    model: Trained
    layers: int
    train: Train
    kept: Activations
    evaluated: Activations

    def moments(self, setting: Setting) -> list[Memory]:
        return training_moments(
            self.model.engine(setting),
            self.kept,
            self.evaluated,
            self.layers,
            checkpointed=self.train.activation_checkpointing,
        )

    def traffic(self, setting: Setting) -> Traffic:
        steps = micro_steps(self.train.batch_size, self.train.micro_batch_size, setting.ranks)
        return engine_traffic(setting, self.model.weights, self.model.gathered, steps)

    def checkpoint(self, setting: Setting) -> int:
        return 3 * FP32 * self.model.padded(setting.ranks)


@dataclass(frozen=True)
class LearnPhase:
    """Learning an operator.

    Attributes:
        layout: the pair of models.
        operator, source: their weights.
        batch: sequences per optimizer step, and of a micro-batch.
        states: what grows of each weight: 1, or 3 with AdamW's moments.
        kept, evaluated: activations of a micro-batch of the learning, and of the evaluation.
    """

    layout: GrowthLayout
    operator: Trained
    source: Trained
    batch: tuple[int, int]
    states: int
    kept: Activations
    evaluated: Activations

    def moments(self, setting: Setting) -> list[Memory]:
        source = SourceBytes.of(setting, self.layout, with_moments=self.states > 1)
        return learning_moments(self.operator.engine(setting), self.layout, source, self.kept, self.evaluated)

    def traffic(self, setting: Setting) -> Traffic:
        steps = micro_steps(*self.batch, setting.ranks)
        own = engine_traffic(setting, self.operator.weights, self.operator.gathered, steps)
        return own + generation_traffic(setting, self.layout, steps)

    def checkpoint(self, setting: Setting) -> int:
        ranks = setting.ranks
        return FP32 * (3 * self.operator.padded(ranks) + self.states * self.source.padded(ranks))


@dataclass(frozen=True)
class GrowPhase:
    """Applying an operator; the attributes as in `LearnPhase`, `learned` and `compares` as in `growing_moments`."""

    layout: GrowthLayout
    operator: Trained
    target: Trained
    states: int
    evaluated: Activations
    learned: bool
    compares: bool

    def moments(self, setting: Setting) -> list[Memory]:
        return growing_moments(
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
