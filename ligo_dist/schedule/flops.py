"""Parameters and FLOPs from the shape of a model alone: `docs/internals/accounting.md` has the formulas and what they
leave out.

A multiplication and an addition are two FLOPs, and only matrix products are counted, as in Kaplan et al. 2020
(arXiv 2001.08361, section 2.1) and Hoffmann et al. 2022 (arXiv 2203.15556, appendix F). Unlike Kaplan et al.
the logits are counted, and attention scores are counted in full: the half that the causal mask hides is
computed too.

All counts are exact integers, summed over all ranks. Nothing here knows of torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ligo_dist.architectures import Architecture, Axis, Dim, ModelShape, ParameterSpec
from ligo_dist.growth.layout import is_copied
from ligo_dist.schedule.batch_split import BatchSplit

_BACKWARD = 2
"""A product's backward pass has two products of its size: the gradients of either factor."""


def parameter_count(architecture: Architecture, shape: ModelShape) -> int:
    """Numbers in a model's parameters; a head tied to the embedding counts once."""
    return sum(spec.numel for spec in architecture.parameters(shape))


def forward_flops(architecture: Architecture, shape: ModelShape, sequence_length: int, sequences: int) -> int:
    """One forward pass, logits included; the look-up of embeddings costs none.

    Args:
        architecture: the family.
        shape: the model.
        sequence_length: positions that the blocks work on: tokens, or the patches and special tokens of an image.
        sequences: sequences, or images.
    """
    blocks = _block_flops(architecture, shape, sequence_length, sequences)
    ends = _patch_flops(architecture, shape) + _head_flops(architecture, shape, sequence_length)
    return blocks + ends * sequences


def training_step_flops(
    architecture: Architecture,
    shape: ModelShape,
    sequence_length: int,
    batch_size: int,
    *,
    checkpointed: bool,
) -> int:
    """One optimizer step on `batch_size` sequences: forward, backward twice that, and the blocks' forward
    once more where activations are checkpointed. Pixels need no gradient. The optimizer's own arithmetic has no
    matrix products and counts nothing."""
    forward = forward_flops(architecture, shape, sequence_length, batch_size)
    pixels = _patch_flops(architecture, shape) * batch_size
    again = _block_flops(architecture, shape, sequence_length, batch_size) if checkpointed else 0
    return (1 + _BACKWARD) * forward - pixels + again


@dataclass(frozen=True)
class LearningFlops:
    """FLOPs of one optimizer step of the growth operator, over all ranks.

    Attributes:
        model: forward and backward of the target model, and its recomputation where activations are not kept.
        mixing: depth mixing, of which every rank does its own partition.
        expansion: width expansion, which every rank does in full in each of its micro-steps.
    """

    model: int
    mixing: int
    expansion: int

    @property
    def total(self) -> int:
        return self.model + self.mixing + self.expansion


def learning_step_flops(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    sequence_length: int,
    batch_size: int,
    *,
    micro_batch_size: int,
    world_size: int = 1,
    columns: int | None = None,
    generations: int = 1,
    checkpointed: bool = False,
    hardware: bool = False,
) -> LearningFlops:
    """One optimizer step that learns the operator between two models.

    The target's weights are generated in each micro-step on each rank, padded or not, once for the forward pass and
    once more for the backward pass, and their gradients flow back once. The model's own work on padding is not counted.

    Args:
        architecture: the family.
        source: the model that is there.
        target: the model to come.
        sequence_length: positions per sequence that the blocks work on.
        batch_size: sequences per optimizer step, over all ranks.
        micro_batch_size: the most sequences per rank in one forward pass.
        world_size: number of ranks; each micro-step of all of them together mixes the depth once.
        columns: layers that are mixed, where there are more (or fewer) than the source's own.
        generations: times that a block is made: twice where new units have depth coefficients of their own.
        checkpointed: activations are computed again in the backward pass: of all modules, not of the blocks alone.
        hardware: count what is computed again: the weights, and the activations where they are checkpointed.
    """
    model = training_step_flops(architecture, target, sequence_length, batch_size, checkpointed=False)
    again = 0
    if hardware and checkpointed:
        again = forward_flops(architecture, target, sequence_length, batch_size)
    forwards = 2 if hardware else 1
    micro_steps = BatchSplit(batch_size, micro_batch_size, world_size).micro_steps
    mixing = generations * _mixing_flops(architecture, source, target, columns)
    expansion = _expansion_flops(architecture, source, target, generations)
    return LearningFlops(
        model=model + again,
        # The source is frozen: the only gradient of mixing is that of the coefficients.
        mixing=micro_steps * (forwards + 1) * mixing,
        expansion=world_size * micro_steps * (forwards * expansion.forward + expansion.backward),
    )


def growing_flops(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    *,
    columns: int | None = None,
    generations: int = 1,
) -> int:
    """Applying the operator once to make the target: every rank makes its own partition, so all together make
    one. `columns` and `generations` as in `learning_step_flops`."""
    expansion = sum(
        (1 if spec.layer is None else generations) * sum(costs)
        for spec, costs in _products(architecture, source, target)
    )
    return generations * _mixing_flops(architecture, source, target, columns) + expansion


@dataclass(frozen=True)
class _Expansion:
    """FLOPs of the width expansion of all parameters: to generate them once, and to take the gradients
    back."""

    forward: int
    backward: int


def _block_flops(architecture: Architecture, shape: ModelShape, sequence_length: int, sequences: int) -> int:
    """One forward pass of all blocks: two FLOPs per matrix element and token, and attention.

    Each token meets every other of its sequence twice, as a score and as a value: 4 x sequence x attention
    width.
    """
    specs = architecture.parameters(shape)
    matrices = sum(spec.numel for spec in specs if spec.layer is not None and len(spec.dims) == 2)
    attention = 4 * shape.layers * sequence_length * shape.heads * shape.head_size
    return (2 * matrices + attention) * sequence_length * sequences


def _patch_flops(architecture: Architecture, shape: ModelShape) -> int:
    """Embedding the patches of one image: each is multiplied by the projection once."""
    projections = [spec for spec in architecture.parameters(shape) if "patch" in _axis_names(spec)]
    return 2 * shape.patches * sum(spec.numel for spec in projections if len(spec.dims) > 1)


def _head_flops(architecture: Architecture, shape: ModelShape, sequence_length: int) -> int:
    """What one sequence costs behind the blocks: the matrices there that read an axis, and a tied embedding.

    A language model's head reads every token; a classifier or a pooler reads one token of a sequence.
    """
    outside = [spec for spec in architecture.parameters(shape) if spec.layer is None and len(spec.dims) == 2]
    matrices = sum(spec.numel for spec in outside if "in" in _sides(spec))
    if shape.tied:
        matrices += sum(spec.numel for spec in outside if "vocab" in _axis_names(spec))
    reads_every_token = architecture.objective in ("causal_lm", "masked_lm")
    return 2 * matrices * (sequence_length if reads_every_token else 1)


def _axis_names(spec: ParameterSpec) -> set[str]:
    return {segment.axis.name for dim in spec.dims for segment in dim}


def _sides(spec: ParameterSpec) -> set[str | None]:
    return {segment.side for dim in spec.dims for segment in dim}


def _mixing_flops(
    architecture: Architecture, source: ModelShape, target: ModelShape, columns: int | None
) -> int:
    """Every target layer is a weighted sum of all columns - the source's layers unless said otherwise - element by
    element."""
    layer = sum(spec.numel for spec in architecture.parameters(_with_a_layer(source)) if spec.layer == 0)
    return 2 * target.layers * (source.layers if columns is None else columns) * layer


def _with_a_layer(source: ModelShape) -> ModelShape:
    """A source of no layer has layers' shapes nonetheless: new layers are made at its width."""
    return dataclasses.replace(source, layers=1)


def _expansion_flops(
    architecture: Architecture, source: ModelShape, target: ModelShape, generations: int
) -> _Expansion:
    """Generating the weights for one call of the target: a tied embedding is made for either of its two uses, a block
    `generations` times."""
    forward = backward = 0
    for spec, products in _products(architecture, source, target):
        uses = 2 if "vocab" in _axis_names(spec) and target.tied else 1
        uses *= 1 if spec.layer is None else generations
        # What is frozen needs no gradient: outside the blocks the first product reads the source itself.
        frozen = products[0] if spec.layer is None and products else 0
        forward += uses * sum(products)
        backward += uses * (_BACKWARD * sum(products) - frozen)
    return _Expansion(forward, backward)


def _products(
    architecture: Architecture, source: ModelShape, target: ModelShape
) -> Iterator[tuple[ParameterSpec, list[int]]]:
    """Each target parameter with the costs of the products that expand it."""
    small = {spec.role: spec for spec in architecture.parameters(_with_a_layer(source))}
    for spec in architecture.parameters(target):
        yield spec, _product_flops(architecture, small[spec.role], spec, source, target)


def _product_flops(
    architecture: Architecture,
    small: ParameterSpec,
    spec: ParameterSpec,
    source: ModelShape,
    target: ModelShape,
) -> list[int]:
    """The matrix products that expand one parameter, dim by dim in the tensor's order; a fixed dim needs
    none."""
    sizes, products = list(small.shape), []
    for index, dim in enumerate(spec.dims):
        rest = math.prod(sizes[:index] + sizes[index + 1 :])
        cost = 2 * rest * _map_size(architecture, dim, source, target)
        products += [cost] if cost else []
        sizes[index] = spec.shape[index]
    return products


def _map_size(architecture: Architecture, dim: Dim, source: ModelShape, target: ModelShape) -> int:
    """Multiplications that expand one vector along a dim: the sum over its axis segments."""
    return sum(
        _axis_map_size(architecture, segment.axis, source, target)
        for segment in dim
        if segment.axis.scope != "fixed" and not is_copied(architecture, segment.axis, source, target)
    )


def _axis_map_size(architecture: Architecture, axis: Axis, source: ModelShape, target: ModelShape) -> int:
    """Target units x source units, once per element of a unit; a lifted axis repeats it per query head of a
    group."""
    if axis.lifted_from:
        repeats = min(source.queries_per_group, target.queries_per_group)
        return repeats * _axis_map_size(architecture, architecture.axes[axis.lifted_from], source, target)
    return axis.units(target) * axis.units(source) * axis.unit_size(source)
