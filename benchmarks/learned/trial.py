"""One seed: its source, its batches, and what all ways of growing it may cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.horizon.runs import DECAY, REWARMUP, WARMUP, WAYS, Target
from benchmarks.learned.weights import WEIGHTS, Training, Weights
from ligo_dist.architectures import Architecture
from ligo_dist.config import config_from
from ligo_dist.corpus import Batches, Corpus, fixed_batches
from ligo_dist.growth import Growth, Method, get_method
from ligo_dist.huggingface import huggingface_config
from ligo_dist.schedule import BatchSplit, LearningRate, growing_flops, learning_step_flops

HORIZON, TAU, LAYERS = 20, 0.8, 2
"""Tokens per parameter of the target, part of the steps after which it is grown, layers of the source."""
VALIDATION = 512
"""Sequences."""


@dataclass
class Trial:
    """What the ways of one seed have in common.

    Args:
        target: of the benchmark of the horizon.
        corpus: prepared.
        seed: of the source's first values, and of the order of batches.
        directory: the trained source is kept in it.
    """

    target: Target
    corpus: Corpus
    seed: int
    directory: Path
    _source: dict[str, Tensor] = field(default_factory=dict)

    # --- what it costs, in FLOPs ---

    @property
    def steps(self) -> int:
        return self.target.steps(HORIZON)

    @property
    def source_steps(self) -> int:
        return self.target.steps(HORIZON, TAU)

    @cached_property
    def step_flops(self) -> int:
        return self.target.step_flops(self.target.size)

    @cached_property
    def total_flops(self) -> int:
        """Of every way: the source, growing, and as many steps of the target as the horizon has left."""
        source = self.source_steps * self.target.step_flops((LAYERS, self.target.size[1]))
        return source + growing_flops(self.growth) + (self.steps - self.source_steps) * self.step_flops

    def learning_flops(self, batch_size: int) -> int:
        """A step of the depth coefficients alone, or of all weights and them: the model's and the mixing's."""
        length = self.target.base["data"]["sequence_length"]
        return learning_step_flops(self.growth, length, BatchSplit(batch_size, batch_size, 1))

    @cached_property
    def joint_flops(self) -> int:
        """A step of weights, depth coefficients and the source: mixing once more, for the source's gradient."""
        return self.learning_flops(self.batch_size) + growing_flops(self.growth)

    def steps_left(self, spent: float) -> int:
        """Training steps, to the nearest one, after so many FLOPs of learning."""
        return self.steps - self.source_steps - round(spent / self.step_flops)

    # --- models and batches ---

    @property
    def batch_size(self) -> int:
        return self.target.base["stages"][0]["train"]["batch_size"]

    @cached_property
    def _architecture(self) -> Architecture:
        return config_from(self.target.base).architecture

    def _growth(self, method: Method) -> Growth:
        source, target = (
            self.target.shape((layers, self.target.size[1])) for layers in (LAYERS, self._layers)
        )
        return Growth.for_method(self._architecture, source, target, method)

    @cached_property
    def growth(self) -> Growth:
        """From the source to the target, layers being mixed from the source's alone."""
        return self._growth(_method("damped"))

    @property
    def _layers(self) -> int:
        return self.target.size[0]

    def _model(self, layers: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        shape = self.target.shape((layers, self.target.size[1]))
        keys = self.target.base["model"]["huggingface"] | self.corpus.library_keys()
        return AutoModelForCausalLM.from_config(huggingface_config(self._architecture, shape, keys))

    @cached_property
    def _module(self) -> nn.Module:
        return self._model(self._layers, 1000 + self.seed)

    def batches(self, first_step: int = 0, batch_size: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Those from a step on; learning takes batches behind the last step's, so that all ways train on the same."""
        size = batch_size or self.batch_size
        batches = Batches(self.corpus.train, self.seed, size, first_step * self.batch_size)
        step = 0
        while True:
            yield next(batches.micro_batches(step, 0, 1, size)).inputs
            step += 1

    def learning_batches(self, batch_size: int) -> Iterator[dict[str, Tensor]]:
        return self.batches(self.steps, batch_size)

    @torch.no_grad()
    def validation_loss(self, weights: Weights) -> float:
        size = self.batch_size
        batches = fixed_batches(self.corpus.validation, VALIDATION, 0, 1, size)
        losses = [float(weights.loss(batch.inputs)) for batch in batches]
        return sum(losses) / len(losses)

    # --- training ---

    def source(self) -> dict[str, Tensor]:
        """The source's weights; it is trained once."""
        file = self.directory / f"source-{self.target.rate:g}-{self.seed}.pt"
        if not self._source and file.exists():
            self._source = torch.load(file)
        if not self._source:
            model = self._model(LAYERS, self.seed)
            state = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
            weights = Weights.plain(model, self.growth, state, LAYERS)
            self.train(weights, {WEIGHTS: 1.0}, self._rates(self.source_steps, WARMUP, "constant"), 0)
            self._source = {name: tensor.detach() for name, tensor in weights.state().items()}
            torch.save(self._source, file)
        return self._source

    def source_loss(self) -> float:
        model = self._model(LAYERS, self.seed)
        return self.validation_loss(Weights.plain(model, self.growth, self.source(), LAYERS))

    def grown(self, start: str) -> Weights:
        """The target as one of the horizon's ways begins it, as a mixture; what is random is as the library has it."""
        method = _method(start)
        fresh = {name: tensor.detach() for name, tensor in self._module.named_parameters()}
        growth = self._growth(method)
        columns = range(LAYERS, growth.columns)
        roles = [role.format(layer=layer) for role in growth.layer_roles for layer in columns]
        state = self.source() | {name: fresh[name] for name in roles}
        return Weights.grown(self._module, growth, state, method, str(self.seed))

    def rates(self, steps: int) -> LearningRate:
        """Of the target's steps: warm-up, constant, and the fall over the last tenth of the horizon."""
        return self._rates(steps, REWARMUP, "wsd")

    def _rates(self, steps: int, warmup: int, kind: Any) -> LearningRate:
        decay = self.steps - self.target.steps(HORIZON, 1 - DECAY)
        return LearningRate(kind, self.target.rate, steps, warmup, decay, 0.0)

    def train(
        self, weights: Weights, factors: Mapping[str, float], rates: LearningRate, first_step: int
    ) -> None:
        training = Training(weights, factors)
        for step, inputs in zip(range(rates.steps), self.batches(first_step), strict=False):
            training.step(inputs, rates(step))

    def train_target(self, weights: Weights, spent: float) -> int:
        """All steps that are left after so many FLOPs of learning, of plain weights; returns how many."""
        weights.fold()
        steps = self.steps_left(spent)
        self.train(weights, {WEIGHTS: 1.0}, self.rates(steps), self.source_steps)
        return steps


def _method(start: str) -> Method:
    way = WAYS[start]
    method = get_method(way["method"], way.get("depth"))
    assert method is not None, start
    return method
