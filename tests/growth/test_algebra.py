"""The maths against matrices written out in full."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ligo_dist.growth import AxisMap, DimMap, expand_flat_range, expand_width, mix_depth


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full_matrix(axis: AxisMap) -> Tensor:
    """The map as one matrix, target elements x source elements, entry by entry from its definition."""
    units = torch.kron(axis.matrix_UV, torch.eye(axis.unit_size, dtype=torch.float64))
    target, source = axis.groups
    if axis.groups == (1, 1):
        return units
    size = axis.group_size
    full = torch.zeros(units.shape[0] * target, units.shape[1] * source, dtype=torch.float64)
    for row, column, repeat in itertools.product(
        range(units.shape[0]), range(units.shape[1]), range(min(target, source))
    ):
        # Element e of group g, repeat r, lies at ((g * repeats) + r) * size + e.
        to = (row // size * target + repeat) * size + row % size
        come = (column // size * source + repeat) * size + column % size
        full[to, come] = units[row, column]
    return full


AXES = {
    "elements": AxisMap(random(7, 4)),
    "whole heads": AxisMap(random(5, 3), unit_size=2),
    "lifted, same groups": AxisMap(random(6, 4), groups=(2, 2), group_size=2),
    "lifted, larger groups": AxisMap(random(6, 4), groups=(3, 2), group_size=2),
    "other heads": AxisMap(random(5, 3, seed=4), unit_size=2),
    "lifted from one": AxisMap(random(9, 3), groups=(2, 1), group_size=3),
}


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_an_axis_map_is_its_matrix(axis: AxisMap, dim: int):
    shape = [2, 3, 4]
    shape[dim] = axis.source_size
    tensor = random(*shape, seed=1)
    expected = torch.movedim(torch.tensordot(full_matrix(axis), tensor, ([1], [dim])), 0, dim)
    grown = axis.apply(tensor, dim)
    assert grown.shape[dim] == axis.target_size
    torch.testing.assert_close(grown, expected)


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
def test_a_vector_and_every_range_of_rows(axis: AxisMap):
    vector = random(axis.source_size, seed=2)
    expected = full_matrix(axis) @ vector
    torch.testing.assert_close(axis.apply(vector, 0), expected)
    for start, stop in itertools.combinations(range(axis.target_size + 1), 2):
        torch.testing.assert_close(axis.rows(start, stop).apply(vector, 0), expected[start:stop])


def single(axis: AxisMap) -> DimMap:
    return DimMap((axis,), (axis.source_size,), (axis.target_size,))


FUSED = DimMap(
    (AXES["elements"], AXES["whole heads"], None),
    source_sizes=(4, 6, 3),
    target_sizes=(7, 10, 3),
)


def fused_matrix() -> Tensor:
    blocks = [full_matrix(AXES["elements"]), full_matrix(AXES["whole heads"])]
    return torch.block_diag(*blocks, torch.eye(3, dtype=torch.float64))


def test_a_fused_dim_is_block_diagonal():
    tensor = random(13, 5)
    torch.testing.assert_close(FUSED.apply(tensor, 0), fused_matrix() @ tensor)
    torch.testing.assert_close(FUSED.apply(tensor.mT, 1), (fused_matrix() @ tensor).mT)
    assert FUSED.target_size == 20
    assert not FUSED.is_fixed


def test_a_fixed_dim_is_copied():
    fixed = DimMap((None,), (6,), (6,))
    tensor = random(6, 4)
    assert fixed.is_fixed
    assert torch.equal(expand_width(tensor, (fixed, single(AXES["elements"])))[0], random(7, 4) @ tensor[0])


@pytest.mark.parametrize(
    ("dims", "matrices"),
    [
        (
            (FUSED, single(AXES["lifted, larger groups"])),
            (fused_matrix(), full_matrix(AXES["lifted, larger groups"])),
        ),
        (
            (single(AXES["whole heads"]), FUSED),
            (full_matrix(AXES["whole heads"]), fused_matrix()),
        ),
        (
            (DimMap((None,), (5,), (5,)), single(AXES["elements"])),
            (torch.eye(5, dtype=torch.float64), full_matrix(AXES["elements"])),
        ),
    ],
    ids=["fused rows", "fused columns", "fixed rows"],
)
def test_width_is_both_sides_and_any_flat_range_is_its_part(
    dims: tuple[DimMap, DimMap], matrices: tuple[Tensor, Tensor]
):
    out_PO, in_JI = matrices
    small_OI = random(out_PO.shape[1], in_JI.shape[1])
    large_PJ = out_PO @ small_OI @ in_JI.mT
    torch.testing.assert_close(expand_width(small_OI, dims), large_PJ)
    flat = large_PJ.reshape(-1)
    columns = large_PJ.shape[1]
    odd = {0, 1, columns - 1, columns, columns + 1, 3 * columns + 2, len(flat) // 2, len(flat) - 1, len(flat)}
    for start, stop in itertools.combinations_with_replacement(sorted(odd), 2):
        torch.testing.assert_close(expand_flat_range(small_OI, dims, start, stop), flat[start:stop])


def test_a_flat_range_of_a_vector():
    dims = (FUSED,)
    vector = random(13)
    whole = fused_matrix() @ vector
    for start, stop in itertools.combinations_with_replacement(range(21), 2):
        torch.testing.assert_close(expand_flat_range(vector, dims, start, stop), whole[start:stop])


def interleaved(maps: tuple[AxisMap | None, ...], sizes: tuple[int, int], block: int) -> DimMap:
    return DimMap(maps, (sizes[0],) * len(maps), (sizes[1],) * len(maps), interleave=block)


INTERLEAVED = {
    "three axes": (
        interleaved((AXES["whole heads"], AXES["other heads"], AxisMap(random(10, 6, seed=7))), (6, 10), 2),
        (6, 10),
        2,
    ),
    "one of them fixed": (interleaved((AxisMap(random(6, 6, seed=8)), None), (6, 6), 3), (6, 6), 3),
}


@pytest.mark.parametrize(("dim_map", "sizes", "block"), INTERLEAVED.values(), ids=INTERLEAVED)
def test_an_interleaved_dim_alternates_its_axes_block_by_block(
    dim_map: DimMap, sizes: tuple[int, int], block: int
):
    """As a matrix: axis a's element e lies at ((e // block) * axes + a) * block + e % block."""
    count, (source, target) = len(dim_map.segments), sizes
    full = torch.zeros(count * target, count * source, dtype=torch.float64)
    for axis, segment in enumerate(dim_map.segments):
        matrix = torch.eye(source, dtype=torch.float64) if segment is None else full_matrix(segment)
        to, come = (
            torch.tensor([(e // block * count + axis) * block + e % block for e in range(size)])
            for size in (target, source)
        )
        full[to[:, None], come] = matrix
    tensor = random(count * source, 5, seed=3)
    torch.testing.assert_close(dim_map.apply(tensor, 0), full @ tensor)
    torch.testing.assert_close(dim_map.apply(tensor.mT, 1), (full @ tensor).mT)
    assert dim_map.target_size == count * target
    for start, stop in itertools.combinations(range(count * target + 1), 2):
        torch.testing.assert_close(dim_map.apply_rows(tensor, 0, start, stop), (full @ tensor)[start:stop])
    flat = (full @ tensor[:, 0]).reshape(-1)
    for start, stop in itertools.combinations_with_replacement(range(count * target + 1), 2):
        torch.testing.assert_close(expand_flat_range(tensor[:, 0], (dim_map,), start, stop), flat[start:stop])


def test_depth_is_a_weighted_sum_and_commutes_with_cutting_into_partitions():
    depth_K = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    stack_KOI = random(3, 4, 5)
    mixed = 0.5 * stack_KOI[0] - 2 * stack_KOI[1] + 3 * stack_KOI[2]
    torch.testing.assert_close(mix_depth(depth_K, stack_KOI), mixed)
    parts = [mix_depth(depth_K, stack_KOI.flatten(1)[:, start : start + 7]) for start in range(0, 20, 7)]
    torch.testing.assert_close(torch.cat(parts).view(4, 5), mixed)


def test_the_dtype_of_the_weights_is_kept():
    small = random(4, 4).bfloat16()
    assert expand_width(small, (single(AXES["elements"]),) * 2).dtype == torch.bfloat16
    assert mix_depth(torch.ones(2), random(2, 3).bfloat16()).dtype == torch.bfloat16
