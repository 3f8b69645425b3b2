"""The maths of growth on dense tensors: depth mixing and width expansion (LiGO, arXiv 2303.00980, eq. 4 to 8).

    M_l    = sum_k D[l, k] * W_k              mix the source layers
    W'_l   = B_out @ M_l @ A_in^T             expand both sides

Nothing here knows of processes: `growth.sharded` computes the same on partitions, and is tested against this.

Shape suffixes: L/K target/source layers, P/J target out/in, O/I source out/in; U/V target/source units of an axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AxisMap:
    """How one axis expands: `matrix` between units, spread over what a unit holds.

    The full matrix (target elements x source elements) is `matrix_UV (x) I_unit_size`; with `groups`, each block of
    `group_size` elements stands once per query head of its group and the repeats map onto the first ones.

    Attributes:
        matrix_UV: coefficients, target units x source units.
        unit_size: elements of a unit (the head size where whole heads are mixed, else 1).
        groups: (target, source) repeats per group where the axis is lifted through grouped-query attention.
        group_size: elements that are repeated together (the head size); used with `groups` only.
    """

    matrix_UV: Tensor
    unit_size: int = 1
    groups: tuple[int, int] = (1, 1)
    group_size: int = 1

    @property
    def target_size(self) -> int:
        return self.matrix_UV.shape[0] * self.unit_size * self.groups[0]

    @property
    def source_size(self) -> int:
        return self.matrix_UV.shape[1] * self.unit_size * self.groups[1]

    def apply(self, tensor: Tensor, dim: int) -> Tensor:
        """Expand `dim` of `tensor` from `source_size` to `target_size` elements."""
        target, source = self.groups
        if (target, source) == (1, 1):
            return _mix_units(tensor, dim, self.matrix_UV, self.unit_size)
        heads = self.source_size // self.group_size // source
        split = tensor.unflatten(dim, (heads, source, self.group_size))
        kept = min(target, source)
        repeats = []
        for index in range(kept):
            one = split.select(dim + 1, index).flatten(dim, dim + 1)
            repeats.append(_mix_units(one, dim, self.matrix_UV, self.unit_size))
        grown = [repeat.unflatten(dim, (-1, self.group_size)) for repeat in repeats]
        grown += [torch.zeros_like(grown[0])] * (target - kept)
        return torch.stack(grown, dim=dim + 1).flatten(dim, dim + 2)

    def rows(self, start: int, stop: int) -> RowMap:
        """The part of this map that gives target elements [start, stop)."""
        return RowMap(self, start, stop)


@dataclass(frozen=True)
class RowMap:
    """Target elements [start, stop) of an `AxisMap`."""

    whole: AxisMap
    start: int
    stop: int

    def apply(self, tensor: Tensor, dim: int) -> Tensor:
        if self.whole.groups != (1, 1):
            return self.whole.apply(tensor, dim).narrow(dim, self.start, self.stop - self.start)
        unit = self.whole.unit_size
        first, last = self.start // unit, -(-self.stop // unit)
        part = AxisMap(self.whole.matrix_UV[first:last], unit)
        return part.apply(tensor, dim).narrow(dim, self.start - first * unit, self.stop - self.start)


SegmentMap = AxisMap | RowMap | None
"""How one axis segment of a dim expands; None for a fixed axis, which is copied."""


@dataclass(frozen=True)
class DimMap:
    """How a tensor dim expands: its axis segments in order, with their sizes in the source and in the target.

    With `interleave`, the segments (of one size) do not follow each other but alternate every so many elements.
    """

    segments: tuple[SegmentMap, ...]
    source_sizes: tuple[int, ...]
    target_sizes: tuple[int, ...]
    interleave: int = 0

    @property
    def target_size(self) -> int:
        return sum(self.target_sizes)

    @property
    def is_fixed(self) -> bool:
        return all(segment is None for segment in self.segments)

    def apply(self, tensor: Tensor, dim: int) -> Tensor:
        if self.is_fixed:
            return tensor
        if len(self.segments) == 1:
            return _apply_segment(self.segments[0], tensor, dim)
        pairs = zip(self.segments, self._split(tensor, dim), strict=True)
        return self._join([_apply_segment(segment, part, dim) for segment, part in pairs], dim)

    def apply_rows(self, tensor: Tensor, dim: int, start: int, stop: int) -> Tensor:
        """Like `apply`, but only target elements [start, stop) of the dim are computed."""
        parts = self._split(tensor, dim)
        if self.interleave:
            period = self.interleave * len(parts)
            first, last = start // period, -(-stop // period)
            rows = (first * self.interleave, last * self.interleave)
            pairs = zip(self.segments, parts, strict=True)
            block = self._join([_apply_rows(segment, part, dim, *rows) for segment, part in pairs], dim)
            return block.narrow(dim, start - first * period, stop - start)
        grown, offset = [], 0
        for segment, part, size in zip(self.segments, parts, self.target_sizes, strict=True):
            first, last = max(start - offset, 0), min(stop - offset, size)
            offset += size
            if first >= last:
                continue
            grown.append(_apply_rows(segment, part, dim, first, last))
        return torch.cat(grown, dim=dim)

    def _split(self, tensor: Tensor, dim: int) -> Sequence[Tensor]:
        if not self.interleave:
            return tensor.split(self.source_sizes, dim=dim)
        alternating = tensor.unflatten(dim, (-1, len(self.segments), self.interleave))
        return [part.flatten(dim, dim + 1) for part in alternating.unbind(dim + 1)]

    def _join(self, parts: Sequence[Tensor], dim: int) -> Tensor:
        if not self.interleave:
            return torch.cat(list(parts), dim=dim)
        blocks = [part.unflatten(dim, (-1, self.interleave)) for part in parts]
        return torch.stack(blocks, dim=dim + 1).flatten(dim, dim + 2)


def mix_depth(depth_K: Tensor, stack_K: Tensor) -> Tensor:
    """Weighted sum of the source layers: `stack_K` is [K, ...] of whole tensors or of equal flat partitions alike."""
    return (depth_K.to(stack_K.dtype) @ stack_K.flatten(1)).view(stack_K.shape[1:])


def expand_width(mixed: Tensor, dims: Sequence[DimMap]) -> Tensor:
    """`B_out @ M @ A_in^T` for a tensor of any number of dims, each expanded by its own map."""
    for dim, dim_map in enumerate(dims):
        mixed = dim_map.apply(mixed, dim)
    return mixed


def expand_flat_range(mixed: Tensor, dims: Sequence[DimMap], start: int, stop: int) -> Tensor:
    """Elements [start, stop) of the flattened result of `expand_width`, without computing rows beyond them.

    Args:
        mixed: one mixed source tensor.
        dims: the maps of its dims.
        start, stop: row-major positions in the target tensor, 0 <= start <= stop <= its number of elements.
    """
    if start == stop:
        return mixed.new_empty(0)
    row_size = 1
    for dim_map in dims[1:]:
        row_size *= dim_map.target_size
    first, last = start // row_size, -(-stop // row_size)
    block = dims[0].apply_rows(mixed, 0, first, last)
    for dim, dim_map in enumerate(dims[1:], start=1):
        block = dim_map.apply(block, dim)
    return block.reshape(-1)[start - first * row_size : stop - first * row_size]


def _apply_segment(segment: SegmentMap, tensor: Tensor, dim: int) -> Tensor:
    return tensor if segment is None else segment.apply(tensor, dim)


def _apply_rows(segment: SegmentMap, tensor: Tensor, dim: int, start: int, stop: int) -> Tensor:
    if segment is None:
        return tensor.narrow(dim, start, stop - start)
    assert isinstance(segment, AxisMap)
    return segment.rows(start, stop).apply(tensor, dim)


def _mix_units(tensor: Tensor, dim: int, matrix_UV: Tensor, unit_size: int) -> Tensor:
    """`matrix_UV (x) I_unit_size` along one dim, in the tensor's dtype."""
    matrix = matrix_UV.to(tensor.device, tensor.dtype)
    if unit_size == 1:
        if dim == 0:
            return (
                (matrix @ tensor.flatten(1)).view(-1, *tensor.shape[1:])
                if tensor.dim() > 1
                else matrix @ tensor
            )
        if dim == tensor.dim() - 1:
            return tensor @ matrix.mT
        return (tensor.movedim(dim, -1) @ matrix.mT).movedim(-1, dim)
    units = tensor.unflatten(dim, (-1, unit_size)).movedim(dim, -1)
    return (units @ matrix.mT).movedim(-1, dim).flatten(dim, dim + 1)
