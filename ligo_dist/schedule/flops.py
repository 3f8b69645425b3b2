"""Parameters and FLOPs from the shape of a model alone: `docs/internals/accounting.md` has the formulas and what they
leave out.

A multiplication and an addition are two FLOPs, and only matrix products are counted, as in Kaplan et al. 2020
(arXiv 2001.08361, section 2.1) and Hoffmann et al. 2022 (arXiv 2203.15556, appendix F). Unlike Kaplan et al.
the logits are counted, and attention scores are counted in full: the half that the causal mask hides is
computed too. Of documents that are kept apart each is in full.

All counts are exact integers, summed over all ranks. Nothing here knows of torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ligo_dist.architectures import (
    Architecture,
    Axis,
    ModelShape,
    ParameterSpec,
    Selection,
    every_parameter,
)
from ligo_dist.growth import GrowthLayout
from ligo_dist.runtime.optimizers import NEWTON_SCHULZ_STEPS
from ligo_dist.schedule.batch_split import BatchSplit

_BACKWARD = 2
"""A product's backward pass has two products of its size: the gradients of either factor."""


def parameter_count(architecture: Architecture, shape: ModelShape) -> int:
    """Numbers in a model's parameters; a head tied to the embedding counts once."""
    return sum(spec.numel for spec in architecture.parameters(shape))


def forward_flops(
    architecture: Architecture,
    shape: ModelShape,
    sequence_length: int,
    sequences: int,
    attended: int | None = None,
) -> int:
    """One forward pass, logits included; the look-up of embeddings costs none.

    Args:
        architecture: the family.
        shape: the model.
        sequence_length: positions that the blocks work on: tokens, or the patches and special tokens of an image.
        sequences: sequences, or images.
        attended: pairs of positions of a sequence that attend to each other; None: each to each.
    """
    blocks = _block_flops(architecture, shape, sequence_length, sequences, attended)
    ends = _patch_flops(architecture, shape) + _head_flops(architecture, shape, sequence_length)
    return blocks + ends * sequences


def training_step_flops(
    architecture: Architecture,
    shape: ModelShape,
    sequence_length: int,
    batch_size: int,
    *,
    checkpointed: bool,
    attended: int | None = None,
) -> int:
    """One optimizer step on `batch_size` sequences: forward, backward twice that, and the blocks' forward
    once more where activations are checkpointed. Pixels need no gradient. AdamW's own arithmetic has no matrix
    products and counts nothing; for Muon's see `orthogonalizing_flops`. `attended` as in `forward_flops`."""
    forward = forward_flops(architecture, shape, sequence_length, batch_size, attended)
    pixels = _patch_flops(architecture, shape) * batch_size
    again = _block_flops(architecture, shape, sequence_length, batch_size, attended) if checkpointed else 0
    return (1 + _BACKWARD) * forward - pixels + again


def orthogonalizing_flops(architecture: Architecture, shape: ModelShape) -> int:
    """What an optimizer step takes where Muon trains the blocks' matrices: three products in each iteration, for a
    matrix [n, m] with n <= m its Gram matrix [n, n], the square of that, and what of both is applied to it."""
    sides = (sorted(spec.shape) for spec in architecture.parameters(shape) if spec.is_block_matrix)
    return NEWTON_SCHULZ_STEPS * sum(2 * (2 * n * n * m + n**3) for n, m in sides)


def learning_step_flops(
    layout: GrowthLayout,
    sequence_length: int,
    split: BatchSplit,
    *,
    checkpointed: bool = False,
    hardware: bool = False,
    attended: int | None = None,
) -> int:
    """One optimizer step that learns the operator between two models.

    The target's weights are generated in each micro-step on each rank, padded or not, once for the forward pass and
    once more for the backward pass, and their gradients flow back once. The model's own work on padding is not counted.

    Args:
        layout: the pair of models.
        sequence_length: positions per sequence that the blocks work on.
        split: the step's sequences over the ranks; each micro-step of all of them together mixes the depth once, and
            each rank expands the width in full.
        checkpointed: activations are computed again in the backward pass: of all modules, not of the blocks alone.
        hardware: count what is computed again: the weights, and the activations where they are checkpointed.
        attended: as in `forward_flops`.
    """
    architecture, target, batch_size = layout.architecture, layout.target, split.batch_size
    model = training_step_flops(
        architecture, target, sequence_length, batch_size, checkpointed=False, attended=attended
    )
    if hardware and checkpointed:
        model += forward_flops(architecture, target, sequence_length, batch_size, attended)
    made = 2 if hardware else 1
    # The source is frozen: the only gradient of mixing is that of the coefficients.
    mixing = (made + 1) * _mixing_flops(layout)
    expansion = _expansion_flops(layout, made)
    return model + split.micro_steps * (mixing + split.world_size * expansion)


def growing_flops(layout: GrowthLayout, selection: Selection = every_parameter) -> int:
    """Applying the operator once to make the target, or of some of its parameters: every rank makes its own partition,
    so all together make one."""
    expansion = sum(
        (1 if spec.layer is None else layout.generations) * sum(products)
        for spec, products in _products(layout)
        if selection(spec)
    )
    return _mixing_flops(layout, selection) + expansion


def _block_flops(
    architecture: Architecture, shape: ModelShape, sequence_length: int, sequences: int, attended: int | None
) -> int:
    """One forward pass of all blocks: two FLOPs per matrix element and token, and attention.

    Each token meets every other of its sequence twice, as a score and as a value: 4 x sequence x attention
    width; or, where documents are kept apart, every other of its document.
    """
    pairs = sequence_length**2 if attended is None else attended
    specs = architecture.parameters(shape)
    matrices = sum(spec.numel for spec in specs if spec.layer is not None and len(spec.dims) == 2)
    attention = 4 * shape.layers * shape.heads * shape.head_size * pairs
    return (2 * matrices * sequence_length + attention) * sequences


def _patch_flops(architecture: Architecture, shape: ModelShape) -> int:
    """Embedding the patches of one image: each is multiplied by the projection once."""
    projections = [spec for spec in architecture.parameters(shape) if "patch" in _axis_names(spec)]
    return 2 * shape.patches * sum(spec.numel for spec in projections if len(spec.dims) > 1)


def _head_flops(architecture: Architecture, shape: ModelShape, sequence_length: int) -> int:
    """What one sequence costs behind the blocks: the matrices there that read an axis, and a tied embedding.

    A language model's head reads every token; a classifier or a pooler reads one token of a sequence.
    """
    outside = [spec for spec in architecture.parameters(shape) if spec.layer is None and len(spec.dims) == 2]
    matrices = sum(spec.numel for spec in outside if any(s.side == "in" for dim in spec.dims for s in dim))
    if shape.tied:
        matrices += sum(spec.numel for spec in outside if "vocab" in _axis_names(spec))
    reads_every_token = architecture.objective in ("causal_lm", "masked_lm")
    return 2 * matrices * (sequence_length if reads_every_token else 1)


def _axis_names(spec: ParameterSpec) -> set[str]:
    return {segment.axis.name for dim in spec.dims for segment in dim}


def _mixing_flops(layout: GrowthLayout, selection: Selection = every_parameter) -> int:
    """Every target layer is a weighted sum of all columns, element by element."""
    blocks = (spec for spec in layout.source_by_role.values() if spec.layer is not None)
    layer = sum(spec.numel for spec in blocks if selection(spec))
    return 2 * layout.generations * layout.target.layers * layout.columns * layer


def _expansion_flops(layout: GrowthLayout, made: int) -> int:
    """Generating the weights `made` times for one forward and backward pass of the target, and taking the gradients
    back: a tied embedding is made for either of its two uses."""
    total = 0
    for spec, products in _products(layout):
        tied = layout.target.tied and "vocab" in _axis_names(spec)
        uses = layout.generations if spec.layer is not None else 2 if tied else 1
        # What is frozen needs no gradient: outside the blocks the first product reads the source itself.
        frozen = products[0] if spec.layer is None and products else 0
        total += uses * ((made + _BACKWARD) * sum(products) - frozen)
    return total


def _products(layout: GrowthLayout) -> Iterator[tuple[ParameterSpec, list[int]]]:
    """Each target parameter with the costs of the matrix products that expand it, dim by dim in the tensor's order; a
    dim that is copied needs none."""
    for spec in layout.target_parameters:
        sizes, products = list(layout.source_by_role[spec.role].shape), []
        for index, dim in enumerate(spec.dims):
            grown = [segment.axis for segment in dim if not layout.is_copied(segment)]
            rest = math.prod(sizes[:index] + sizes[index + 1 :])
            if grown:
                products.append(2 * rest * sum(_map_size(layout, axis) for axis in grown))
            sizes[index] = spec.shape[index]
        yield spec, products


def _map_size(layout: GrowthLayout, axis: Axis) -> int:
    """Multiplications that expand one vector along an axis: target units x source units, once per element of a unit; a
    lifted axis repeats its own per query head of a group."""
    source, target, own = layout.source, layout.target, layout.axis_of(axis)
    repeats = min(source.queries_per_group, target.queries_per_group) if axis.lifted_from else 1
    return repeats * own.units(target) * own.units(source) * own.unit_size(source)
