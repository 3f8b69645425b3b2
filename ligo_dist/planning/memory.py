"""Bytes on one rank, at each point of a phase that can be its peak: docs/internals/accounting.md has the formulas.

What lies on a rank through a phase (partitions of weights, gradients and moments, after Rajbhandari et al. 2020, arXiv
1910.02054, section 3) is exact. What comes and goes is counted at the points that can be the peak, and tests hold the
peak against what torch allocates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ligo_dist.architectures import ParameterSpec, Segment, Selection
from ligo_dist.growth import GrowthLayout
from ligo_dist.planning.activations import Activations
from ligo_dist.planning.gathering import Trained, partition, partitioned, source_parts
from ligo_dist.planning.setting import FP32, Setting
from ligo_dist.runtime.optimizers import MATRICES

_MASK, _INDEX = 1, 8
"""Bytes for an element that says whether it is new, and of its number where such elements are picked out."""

_SET_ASIDE = 2
"""Moments of a frozen element that are copied before a step; zeros where the optimizer has none."""

_GRADIENT_COPIES, _TEMPORARIES = 1, 2
"""Of the size of what the optimizer updates at a time: a copy of its gradients, and two temporaries of AdamW, which has
none where it is fused."""

_ORTHOGONALIZED = 6
"""What Muon has of the size of a matrix, at most, while it is whole on a rank: what is sent and what comes, the iterate
and the next one, and two products of the size of its smaller side squared."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank at one point of a phase, by what they hold.

    Attributes:
        point: its name.
        parameters: partitions of weights: in the precision of the arithmetic, in fp32, and those of a source.
        gradients: partitions of gradients, what is reduced, and what waits for it.
        optimizer: partitions of the optimizer's moments, and its temporaries.
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
        held = self.parameters + self.gradients + self.optimizer
        return held + self.activations + self.gathered + self.buffers

    def plus(self, point: str, **more: int) -> Memory:
        """Another point, with more of some kinds."""
        return replace(self, point=point, **{kind: getattr(self, kind) + n for kind, n in more.items()})


def peak_of(points: Sequence[Memory]) -> Memory:
    """The point that takes most."""
    return max(points, key=lambda memory: memory.total)


@dataclass(frozen=True)
class Marked:
    """What training some elements otherwise than the rest takes (`engine.new_elements`).

    Attributes:
        source: the weights that go on as they were; all else is new.
        freezes: whether they are kept from moving for some steps.
        scales: whether what is new has a learning rate of its own.
    """

    source: Sequence[ParameterSpec]
    freezes: bool
    scales: bool

    def set_aside(self, ranks: int, group: int) -> int:
        """Bytes of what is copied before the optimizer steps a group of elements on each of so many ranks."""
        old, new = self._elements(ranks, group)
        return FP32 * (1 + _SET_ASIDE) * old + FP32 * new

    def picked(self, ranks: int, group: int) -> int:
        """Bytes of what picks the elements out, before and after the step."""
        return _MASK * group + _INDEX * max(self._elements(ranks, group))

    def _elements(self, ranks: int, group: int) -> tuple[int, int]:
        """Of a group, those that are frozen, and those of a rate of their own."""
        old = min(group, partitioned(self.source, ranks))
        return old * self.freezes, (group - old) * self.scales


def training_peaks(
    setting: Setting, model: Trained, kept: Activations, evaluated: Activations, marked: Marked | None = None
) -> list[Memory]:
    """Of training a model.

    Args:
        setting: how it is computed.
        model: its weights.
        kept: activations of a micro-batch.
        evaluated: those of a micro-batch of the evaluation.
        marked: what of it is trained otherwise than the rest; None: nothing is.
    """
    engine = _Engine(setting, model, marked)
    held, most = engine.held(), engine.most
    return [
        held.plus("forward", activations=kept.kept, gathered=most + engine.in_flight),
        held.plus("loss", activations=kept.kept + kept.loss, gathered=engine.at_loss),
        held.plus(
            "backward", activations=kept.in_backward, gathered=most, gradients=engine.waiting_gradients
        ),
        held.plus("reduce", gradients=engine.reduced, gathered=most),
        held.plus("evaluation", activations=evaluated.in_evaluation, gathered=most + engine.in_flight),
        *engine.between_steps(held),
    ]


def learning_peaks(
    setting: Setting,
    layout: GrowthLayout,
    operator: Trained,
    states: Sequence[Selection],
    kept: Activations,
    evaluated: Activations,
) -> list[Memory]:
    """Of learning an operator.

    Args:
        setting: how it is computed.
        layout: the pair of models.
        operator: its parameters.
        states: what grows: the weights, and moments; each as the parameters that have it.
        kept: activations of a micro-batch of the target.
        evaluated: those of a micro-batch of the evaluation.
    """
    engine = _Engine(setting, operator)
    held, most = _with_source(engine.held(), setting, layout, states), engine.most
    weights, plain, block, ends = _generated(setting, layout)
    one_block = evaluated.block_input + evaluated.block
    return [
        held.plus("forward", activations=kept.kept, gathered=most + engine.in_flight + block),
        held.plus("loss", activations=kept.kept + kept.loss, gathered=engine.at_loss),
        held.plus("head", activations=kept.kept + 2 * kept.logits, gathered=most + ends),
        held.plus("block", activations=kept.in_backward, gathered=most + block),
        held.plus(
            "block's gradients",
            activations=kept.kept,
            gathered=most + block + weights,
            gradients=engine.waiting_gradients,
        ),
        held.plus("reduce", gradients=engine.reduced, gathered=most),
        held.plus("evaluation", activations=evaluated.loss, gathered=most),
        held.plus("evaluation", activations=one_block, gathered=most + engine.in_flight + plain),
        *engine.between_steps(held),
    ]


def growing_peaks(
    setting: Setting,
    layout: GrowthLayout,
    target: Trained,
    states: Sequence[Selection],
    evaluated: Activations,
    *,
    learned: bool,
    compares: bool,
) -> list[Memory]:
    """Of applying an operator.

    Args:
        setting: how it is computed.
        layout: the pair of models.
        target: its weights, in an engine.
        states: what grows: the weights, and moments; each as the parameters that have it.
        evaluated: activations of a micro-batch of the evaluation.
        learned: the operator lies in partitions; else each matrix is made when it is needed.
        compares: a randomly initialised model of the target's size is evaluated first.
    """
    engine = _Engine(setting, target)
    held = _with_source(engine.held(moments=False), setting, layout, states)
    if learned:
        operator = FP32 * partitioned(layout.operator_parameters, setting.ranks)
        held = held.plus("held", parameters=operator)
    gathered = engine.most + engine.in_flight
    own = FP32 * partitioned(target.weights, setting.ranks)
    peaks = [
        held.plus("transfer", gathered=_transfer(setting, layout)),
        held.plus("evaluation", activations=evaluated.in_evaluation, gathered=gathered),
        held.plus("checkpoint", buffers=engine.largest_copy if setting.on_gpu else own),
    ]
    if compares:
        largest = max(weight.numel for weight in target.weights)
        peaks.append(held.plus("random model", buffers=2 * own, gathered=FP32 * largest))
    return peaks


@dataclass(frozen=True)
class _Engine:
    """Bytes of what an engine holds, and of what its steps add; the attributes as in `training_peaks`."""

    setting: Setting
    trained: Trained
    marked: Marked | None = None

    def held(self, *, moments: bool = True) -> Memory:
        """Between two steps; `moments`: whether the optimizer has its own yet."""
        setting, own = self.setting, partitioned(self.trained.weights, self.setting.ranks)
        mask = own * _MASK if self.marked is not None else 0
        return Memory(
            "held",
            parameters=own * (setting.number + FP32),
            gradients=own * FP32 + setting.zero3.reduce_bucket * setting.number,
            optimizer=mask + (FP32 * self.trained.moments(setting.ranks) if moments else 0),
            gathered=self._whole(self.trained.persistent),
        )

    @property
    def most(self) -> int:
        """Gathered weights at most, beyond those that stay whole."""
        return self._whole(self.trained.most - self.trained.persistent)

    @property
    def at_loss(self) -> int:
        """The same between the forward and the backward pass."""
        return self._whole(self.trained.at_loss - self.trained.persistent)

    @property
    def in_flight(self) -> int:
        """What is gathered at once and then copied weight by weight."""
        return self._whole(self.trained.in_flight)

    def _whole(self, elements: int) -> int:
        """Gathered weights; a rank alone has them whole anyway."""
        return elements * self.setting.number if self.setting.ranks > 1 else 0

    @property
    def waiting_gradients(self) -> int:
        """Whole gradients outside the bucket: the newest; and where one is larger than the bucket, another that waits
        for its turn."""
        largest = max(weight.numel for weight in self.trained.weights)
        times = 2 if largest > self.setting.zero3.reduce_bucket else 1
        return times * largest * self.setting.number

    @property
    def reduced(self) -> int:
        """What a reduce-scatter makes: a bucket in the order of the ranks, and the own part of it in fp32."""
        setting = self.setting
        bucket = min(setting.zero3.reduce_bucket, self.trained.numel)
        converted = FP32 if setting.number < FP32 else 0
        return bucket * setting.number + bucket // setting.ranks * converted

    @property
    def largest_copy(self) -> int:
        """The largest partition of a weight."""
        return FP32 * max(partition(weight, self.setting.ranks) for weight in self.trained.weights)

    def between_steps(self, held: Memory) -> list[Memory]:
        """The optimizer's step, and a checkpoint: copies of weights and moments, of which an accelerator holds one at a
        time."""
        setting, trained = self.setting, self.trained
        copies = FP32 * (partitioned(trained.weights, setting.ranks) + trained.moments(setting.ranks))
        return [
            held.plus("optimizer", optimizer=self._step_tensors()),
            held.plus("checkpoint", buffers=self.largest_copy if setting.on_gpu else copies),
        ]

    def _step_tensors(self) -> int:
        """What a step of the optimizer makes, of the group that it takes most for: Muon makes the direction of its
        matrices, and orthogonalizes one of them at a time."""
        setting, trained = self.setting, self.trained
        groups = trained.sub_groups(setting.ranks, setting.zero3.sub_group)
        largest = max((weight.numel for weight in trained.matrices), default=0)
        made = []
        for group, sizes in groups.items():
            numbers = max(sizes)
            taken = _GRADIENT_COPIES * FP32 * numbers
            if group == MATRICES:
                temporaries = FP32 * numbers + _ORTHOGONALIZED * setting.number * largest
            else:
                temporaries = 0 if setting.on_gpu else _TEMPORARIES * FP32 * numbers
            if self.marked is not None:
                taken += self.marked.set_aside(setting.ranks, numbers)
                temporaries = max(temporaries, self.marked.picked(setting.ranks, numbers))
            made.append(taken + temporaries)
        return max(made)


def _with_source(held: Memory, setting: Setting, layout: GrowthLayout, states: Sequence[Selection]) -> Memory:
    """The same and what is kept of a source while a model grows out of it: its weights, with the columns that a method
    adds, and the optimizer's moments where they are to grow too."""
    parts = [source_parts(layout, selection) for selection in states]
    (layer, outside), *moments = (
        [FP32 * partitioned(specs, setting.ranks) for specs in both] for both in parts
    )
    return held.plus(
        "held",
        parameters=layout.columns * layer + outside,
        optimizer=sum(layout.source.layers * layer + outside for layer, outside in moments),
    )


def _generated(setting: Setting, layout: GrowthLayout) -> tuple[int, int, int, int]:
    """Bytes of generated weights while an operator is learned, in the precision of the arithmetic.

    Returns:
        Those of a block of the target; the same with the mixed source layer they are made of; that with what is kept to
        differentiate it: half-expanded tensors, and where an identity is fixed the matrices that are put together with
        it; and of the largest module outside the blocks, its source and its gradient too.
    """
    number = setting.number
    block = [spec for spec in layout.target_parameters if spec.layer == 0]
    outside = [spec for spec in layout.target_parameters if spec.layer is None]
    mixed = layout.generations * sum(layout.source_by_role[spec.role].numel for spec in block)
    # What no dim of grows is the mixed tensor itself.
    plain = mixed + sum(spec.numel for spec in block if not all(map(layout.is_copied, _segments(spec))))
    made = sum(_half_expanded(layout, spec) + _put_together(layout, spec) for spec in block)
    ends = max(2 * spec.numel + layout.source_by_role[spec.role].numel for spec in outside)
    return (
        number * sum(spec.numel for spec in block),
        number * plain,
        number * (plain + made),
        number * ends,
    )


def _segments(spec: ParameterSpec) -> list[Segment]:
    return [segment for dim in spec.dims for segment in dim]


def _half_expanded(layout: GrowthLayout, spec: ParameterSpec) -> int:
    """Elements of a tensor of which all dims but the last are expanded, where that is one more product."""
    if len(spec.shape) < 2 or any(all(map(layout.is_copied, dim)) for dim in spec.dims):
        return 0
    return spec.numel // spec.shape[-1] * layout.source_by_role[spec.role].shape[-1]


def _put_together(layout: GrowthLayout, spec: ParameterSpec) -> int:
    """Elements of the matrices that are made of a fixed identity and the learned rows."""
    if not layout.fixed_identity:
        return 0
    axes = [layout.axis_of(segment.axis) for segment in _segments(spec) if not layout.is_copied(segment)]
    return sum(axis.units(layout.target) * axis.units(layout.source) for axis in axes)


def _transfer(setting: Setting, layout: GrowthLayout) -> int:
    """Bytes of what is whole while a block is grown: the matrices of the whole model and of the block, the mixed
    layer, and the rows of the largest tensor."""
    matrices = sum(p.numel for p in layout.operator_parameters if p.layer in (None, 0))
    layer, _ = source_parts(layout)
    mixed = layout.generations * sum(spec.numel for spec in layer)
    largest = max(layout.target_parameters, key=lambda spec: spec.numel)
    return FP32 * (matrices + 2 * mixed + 3 * partition(largest, setting.ranks))
