"""Bytes on one rank, at each point of a phase that can be its peak: docs/internals/accounting.md has the formulas.

What lies on a rank through a phase (partitions of weights, gradients and moments, after Rajbhandari et al. 2020, arXiv
1910.02054, section 3) is exact. What comes and goes is counted at the points that can be the peak, and tests hold the
peak against what torch allocates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ligo_dist.architectures import ParameterSpec
from ligo_dist.growth.layout import GrowthLayout
from ligo_dist.planning.activations import Activations
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.planning.traffic import sub_groups
from ligo_dist.planning.weights import Gathered, Weight, partitioned

_MOMENTS = 2
"""AdamW keeps two numbers for each weight."""

_GRADIENT_COPIES, _TEMPORARIES = 1, 2
"""Of the size of what the optimizer updates at a time: a copy of its gradients, and two temporaries of AdamW, which has
none where it is fused."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank at one point of a phase, by what they hold.

    Attributes:
        point: its name.
        parameters: partitions of weights: in the precision of the arithmetic, in fp32, and those of a source.
        gradients: partitions of gradients, what is reduced, and what waits for it.
        optimizer: partitions of AdamW's moments, and its temporaries.
        activations: what is kept for the backward pass, and what is made of it.
        gathered: weights that are whole, gathered or generated, with what generates them.
        buffers: copies of partitions, on their way to a checkpoint or into an engine.
    """

    point: str
    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    gathered: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.activations
            + self.gathered
            + self.buffers
        )

    def plus(self, point: str, **more: int) -> Memory:
        """Another point, with more of some kinds."""
        return replace(self, point=point, **{kind: getattr(self, kind) + n for kind, n in more.items()})


@dataclass(frozen=True)
class EngineMemory:
    """What an engine holds, and what its steps add.

    Attributes:
        setting: how it computes.
        weights: that it trains.
        gathered: what its micro-steps gather.
    """

    setting: Setting
    weights: Sequence[Weight]
    gathered: Gathered

    def held(self, *, moments: bool = True) -> Memory:
        """Between two steps; `moments`: whether the optimizer has its own yet."""
        setting, own = self.setting, self._own
        return Memory(
            "held",
            parameters=own * (setting.number + FP32),
            gradients=own * FP32 + setting.zero3.reduce_bucket * setting.number,
            optimizer=own * FP32 * _MOMENTS if moments else 0,
            gathered=self.whole(self.gathered.persistent),
        )

    def whole(self, elements: int) -> int:
        """Bytes of gathered weights; a rank alone has them whole anyway."""
        return elements * self.setting.number if self.setting.ranks > 1 else 0

    @property
    def gathered_more(self) -> tuple[int, int]:
        """Bytes of gathered weights at most, and at the loss, beyond those that stay whole."""
        stay = self.gathered.persistent
        return self.whole(self.gathered.most - stay), self.whole(self.gathered.at_loss - stay)

    @property
    def in_flight(self) -> int:
        """Bytes of what is gathered at once and then copied weight by weight."""
        return self.whole(self.gathered.in_flight)

    @property
    def waiting_gradients(self) -> int:
        """Bytes of whole gradients outside the bucket: the newest; and where one is larger than the bucket, another
        that waits for its turn."""
        largest = max((weight.numel for weight in self.weights), default=0)
        times = 2 if largest > self.setting.zero3.reduce_bucket else 1
        return times * largest * self.setting.number

    @property
    def reduced(self) -> int:
        """Bytes that a reduce-scatter makes: a bucket in the order of the ranks, and the own part of it in fp32."""
        setting = self.setting
        bucket = min(setting.zero3.reduce_bucket, sum(weight.numel for weight in self.weights))
        converted = FP32 if setting.number < FP32 else 0
        return bucket * setting.number + bucket // setting.ranks * converted

    @property
    def updating(self) -> int:
        """Bytes that an optimizer step makes."""
        groups = sub_groups(self.weights, self.setting.ranks, self.setting.zero3)
        tensors = _GRADIENT_COPIES + (0 if self.setting.on_gpu else _TEMPORARIES)
        return tensors * FP32 * max(groups, default=0)

    @property
    def snapshot(self) -> int:
        """Bytes of the copies that go into a checkpoint, weights and moments; an accelerator holds one at a time."""
        if self.setting.on_gpu:
            return self.largest_copy
        return self._own * FP32 * (1 + _MOMENTS)

    @property
    def largest_copy(self) -> int:
        """Bytes of the largest partition of a weight."""
        return FP32 * max(weight.partition(self.setting.ranks) for weight in self.weights)

    @property
    def _own(self) -> int:
        return partitioned(self.weights, self.setting.ranks)


def peak_of(points: Sequence[Memory]) -> Memory:
    """The point that takes most."""
    return max(points, key=lambda memory: memory.total)


def training_peaks(
    engine: EngineMemory, kept: Activations, evaluated: Activations, layers: int, *, checkpointed: bool
) -> list[Memory]:
    """Of training a model.

    Args:
        engine: its engine.
        kept: activations of a micro-batch.
        evaluated: those of a micro-batch of the evaluation.
        layers: blocks.
        checkpointed: their activations are made again in the backward pass.
    """
    held = engine.held()
    most, at_loss = engine.gathered_more
    forward = kept.kept(layers, checkpointed=checkpointed)
    backward = kept.in_backward(layers, checkpointed=checkpointed)
    return [
        held.plus("forward", activations=forward, gathered=most + engine.in_flight),
        held.plus("loss", activations=forward + kept.loss, gathered=at_loss),
        held.plus("backward", activations=backward, gathered=most, gradients=engine.waiting_gradients),
        held.plus("reduce", gradients=engine.reduced, gathered=most),
        held.plus("evaluation", activations=_evaluating(evaluated), gathered=most + engine.in_flight),
        *_between_steps(engine, held),
    ]


@dataclass(frozen=True)
class SourceBytes:
    """What is kept of a source while a model grows out of it.

    Attributes:
        weights: partitions, with the columns that a method adds.
        moments: partitions of AdamW's, where they are to grow too.
    """

    weights: int
    moments: int

    @classmethod
    def of(cls, setting: Setting, layout: GrowthLayout, *, with_moments: bool) -> SourceBytes:
        specs = layout.source_by_role.values()
        layer = sum(-(-spec.numel // setting.ranks) for spec in specs if spec.layer is not None)
        outside = sum(-(-spec.numel // setting.ranks) for spec in specs if spec.layer is None)
        own = layout.source.layers * layer + outside
        added = (layout.columns - layout.source.layers) * layer
        return cls(FP32 * (own + added), 2 * FP32 * own if with_moments else 0)


def learning_peaks(
    engine: EngineMemory,
    layout: GrowthLayout,
    source: SourceBytes,
    kept: Activations,
    evaluated: Activations,
    *,
    checkpointed: bool,
) -> list[Memory]:
    """Of learning an operator.

    Args:
        engine: the operator's.
        layout: the pair of models.
        source: what is kept of it.
        kept: activations of a micro-batch of the target.
        evaluated: those of a micro-batch of the evaluation.
        checkpointed: activations are made again in the backward pass.
    """
    held = engine.held().plus("held", parameters=source.weights, optimizer=source.moments)
    most, at_loss = engine.gathered_more
    layers = layout.target.layers
    forward = kept.kept(layers, checkpointed=checkpointed)
    generated = Generated.of(engine.setting, layout)
    inside = kept.in_backward(layers, checkpointed=checkpointed)
    ends = forward + 2 * kept.logits
    return [
        held.plus("forward", activations=forward, gathered=most + engine.in_flight + generated.block),
        held.plus("loss", activations=forward + kept.loss, gathered=at_loss),
        held.plus("head", activations=ends, gathered=most + generated.ends),
        held.plus("block", activations=inside, gathered=most + generated.block),
        held.plus(
            "block's gradients",
            activations=forward,
            gathered=most + generated.block + generated.weights,
            gradients=engine.waiting_gradients,
        ),
        held.plus("reduce", gradients=engine.reduced, gathered=most),
        max(
            held.plus("evaluation", activations=evaluated.loss, gathered=most),
            held.plus(
                "evaluation",
                activations=evaluated.block_input + evaluated.block,
                gathered=most + engine.in_flight + generated.plain,
            ),
            key=lambda memory: memory.total,
        ),
        *_between_steps(engine, held),
    ]


def growing_peaks(
    engine: EngineMemory,
    layout: GrowthLayout,
    source: SourceBytes,
    operator: list[Weight],
    evaluated: Activations,
    *,
    learned: bool,
    compares: bool,
) -> list[Memory]:
    """Of applying an operator.

    Args:
        engine: the target's.
        layout: the pair of models.
        source: what is kept of it.
        operator: its parameters.
        evaluated: activations of a micro-batch of the evaluation.
        learned: the operator lies in partitions; else each matrix is made when it is needed.
        compares: a randomly initialised model of the target's size is evaluated first.
    """
    setting = engine.setting
    kept = FP32 * partitioned(operator, setting.ranks) if learned else 0
    held = engine.held(moments=False).plus("held", parameters=source.weights + kept, optimizer=source.moments)
    most, _ = engine.gathered_more
    own = FP32 * partitioned(engine.weights, setting.ranks)
    largest = max(weight.numel for weight in engine.weights)
    peaks = [
        held.plus("transfer", gathered=_transfer(setting, layout)),
        held.plus("evaluation", activations=_evaluating(evaluated), gathered=most + engine.in_flight),
        held.plus("checkpoint", buffers=engine.largest_copy if setting.on_gpu else own),
    ]
    if compares:
        peaks.append(held.plus("random model", buffers=2 * own, gathered=FP32 * largest))
    return peaks


def _evaluating(evaluated: Activations) -> int:
    """The larger of the logits' loss and a block; nothing is kept for a backward pass."""
    return max(evaluated.loss, evaluated.block_input + evaluated.block)


def _between_steps(engine: EngineMemory, held: Memory) -> list[Memory]:
    """The optimizer's step, and a checkpoint."""
    return [
        held.plus("optimizer", optimizer=engine.updating),
        held.plus("checkpoint", buffers=engine.snapshot),
    ]


@dataclass(frozen=True)
class Generated:
    """Bytes of generated weights while an operator is learned, in the precision of the arithmetic.

    Attributes:
        weights: of a block of the target.
        plain: the same with the mixed source layer they are made of.
        block: the same with what is kept to differentiate it: half-expanded tensors, and where an identity is fixed the
            matrices that are put together with it.
        ends: of the largest module outside the blocks, with its source and its gradient.
    """

    weights: int
    plain: int
    block: int
    ends: int

    @classmethod
    def of(cls, setting: Setting, layout: GrowthLayout) -> Generated:
        number = setting.number
        block = [spec for spec in layout.target_parameters if spec.layer == 0]
        outside = [spec for spec in layout.target_parameters if spec.layer is None]
        weights = number * sum(spec.numel for spec in block)
        mixed = sum(layout.source_by_role[spec.role].numel for spec in block) * len(layout.depth_names(0))
        made = sum(_half_expanded(layout, spec) + _put_together(layout, spec) for spec in block)
        ends = max(2 * spec.numel + layout.source_by_role[spec.role].numel for spec in outside)
        # What no dim of grows is the mixed tensor itself.
        plain = number * (mixed + sum(spec.numel for spec in block if not _is_copied(layout, spec)))
        return cls(weights, plain, plain + number * made, number * ends)


def _is_copied(layout: GrowthLayout, spec: ParameterSpec) -> bool:
    return all(layout.is_copied(segment) for dim in spec.dims for segment in dim)


def _half_expanded(layout: GrowthLayout, spec: ParameterSpec) -> int:
    """Elements of a tensor of which all dims but the last are expanded, where that is one more product."""
    if len(spec.shape) < 2 or any(all(map(layout.is_copied, dim)) for dim in spec.dims):
        return 0
    return spec.numel // spec.shape[-1] * layout.source_by_role[spec.role].shape[-1]


def _put_together(layout: GrowthLayout, spec: ParameterSpec) -> int:
    """Elements of the matrices that are made of a fixed identity and the learned rows."""
    if not layout.fixed_identity:
        return 0
    axes = [layout.axis_of(s.axis) for dim in spec.dims for s in dim if not layout.is_copied(s)]
    return sum(axis.units(layout.target) * axis.units(layout.source) for axis in axes)


def _transfer(setting: Setting, layout: GrowthLayout) -> int:
    """Bytes of what is whole while a block is grown: the matrices of the whole model and of the block, the mixed
    layer, and the rows of the largest tensor."""
    shared = [p for p in layout.operator_parameters if p.layer is None]
    own = [p for p in layout.operator_parameters if p.layer == 0]
    matrices = sum(p.shape[0] * p.shape[1] for p in (*shared, *own))
    mixed = sum(s.numel for s in layout.source_by_role.values() if s.layer is not None)
    largest = max(layout.target_parameters, key=lambda spec: spec.numel)
    rows = 3 * -(-largest.numel // setting.ranks)
    return FP32 * (matrices + 2 * mixed * len(layout.depth_names(0)) + rows)
