"""What is measured of an operator equals plain numpy on the dense maps that grow a model with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ligo_dist.growth.algebra import AxisMap
from ligo_dist.growth.operators import Growth
from ligo_dist.pictures import operator
from ligo_dist.pictures.operator import OperatorNumbers, relative_distance, sampled_layers, singular_values
from pairs import small_pair, start


@dataclass(frozen=True)
class Case:
    """A pair of models whose operator has something of its own."""

    family: str
    method: str
    layers: tuple[int, int] = (2, 5)
    groups: tuple[int, int] | None = None
    choices: dict[str, Any] = field(default_factory=dict)

    @property
    def growth(self) -> Growth:
        return small_pair(self.family, self.method, self.layers, (2, 6), self.groups, **self.choices)


CASES = {
    "tied, identity fixed": Case("gpt2", "ligo"),
    "a fixed identity in groups, whole heads mixed": Case("llama", "ligo", groups=(1, 2)),
    "a matrix for each side": Case("gpt2", "lossless-dense"),
    "own coefficients for new units": Case("bert", "bert2bert-aki"),
    "fresh layers and a unit layer": Case("gpt2", "progressive", layers=(0, 3)),
    "post-norm identity layers": Case("bert", "lossless"),
    "all shared": Case("gpt2", "ligo", choices={"share_depth": True, "share_width": True}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def shaken(values: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in values.items()
    }


def measured(growth: Growth, begin: dict[str, Tensor], now: dict[str, Tensor]) -> OperatorNumbers:
    numbers = OperatorNumbers(growth, begin.__getitem__)
    for parameter in growth.operator_parameters:
        numbers.add(parameter, now[parameter.name])
    return numbers


def dense_maps(growth: Growth, values: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The matrix that each width parameter puts on an axis of elements, and how often it repeats a unit there."""
    maps = {}
    for spec in growth.target_parameters:
        for dim, dim_map in zip(spec.dims, growth.dim_maps(spec, values), strict=True):
            for segment, axis_map in zip(dim, dim_map.segments, strict=True):
                if isinstance(axis_map, AxisMap) and not segment.axis.lifted_from:
                    name = growth.width_parameter(segment, spec.layer).name
                    dense = axis_map.apply(torch.eye(axis_map.source_size, dtype=torch.float64), 0)
                    maps[name] = dense.numpy(), axis_map.unit_size
    return maps


def test_width_matrices(case: Case):
    growth, begin = case.growth, start(case.growth, case.method)
    now = shaken(begin)
    numbers = measured(growth, begin, now)
    dense_start, dense_now = dense_maps(growth, begin), dense_maps(growth, now)
    assert {matrix.parameter.name for matrix in numbers.widths} == set(dense_now)
    for matrix in numbers.widths:
        before, unit_size = dense_start[matrix.parameter.name]
        after, _ = dense_now[matrix.parameter.name]
        moved = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert matrix.moved == pytest.approx(moved, rel=1e-5)
        sampled = matrix.parameter.layer in (None, 0, growth.target.layers // 2, growth.target.layers - 1)
        assert (matrix.singular_values is not None) == sampled
        if matrix.singular_values is not None:
            for ours, dense in ((matrix.singular_values.start, before), (matrix.singular_values.now, after)):
                expected = np.linalg.svd(dense, compute_uv=False)
                np.testing.assert_allclose(np.repeat(ours, unit_size), expected, atol=1e-5)
    assert any(matrix.moved > 0.01 for matrix in numbers.widths)


def test_depth_matrices(case: Case):
    growth, begin = case.growth, start(case.growth, case.method)
    now = shaken(begin)
    numbers = measured(growth, begin, now)
    roles = ["all roles"] if growth.share_depth else [r.split("{layer}.")[1] for r in growth.layer_roles]
    kinds = {"depth": numbers.depth, "new_depth": numbers.new_depth}
    assert bool(numbers.new_depth) == growth.new_depth
    for kind, matrices in kinds.items():
        assert list(matrices) == (roles if matrices else [])
        for row, matrix in enumerate(matrices.values()):
            for layer in range(growth.target.layers):
                name = f"layers.{layer}.{kind}"
                assert matrix.values.start[layer].tolist() == begin[name][row].tolist()
                assert matrix.values.now[layer].tolist() == now[name][row].tolist()
            change = np.linalg.norm(matrix.values.now - matrix.values.start)
            assert matrix.moved == pytest.approx(change / np.linalg.norm(matrix.values.start), rel=1e-5)
            assert matrix.values.now.shape == (growth.target.layers, len(numbers.columns))


def test_columns_are_named():
    def columns(name: str) -> list[str]:
        return OperatorNumbers(CASES[name].growth, {}.__getitem__).columns

    assert columns("tied, identity fixed") == ["0", "1"]
    assert columns("fresh layers and a unit layer") == ["fresh 0", "fresh 1", "fresh 2"]
    assert columns("post-norm identity layers") == ["0", "1", "unit"]


def test_an_operator_that_did_not_move():
    begin = start(CASES["a matrix for each side"].growth, "lossless-dense")
    numbers = measured(CASES["a matrix for each side"].growth, begin, begin)
    assert {matrix.moved for matrix in numbers.widths} == {0.0}
    assert {matrix.moved for matrix in numbers.depth.values()} == {0.0}


@pytest.mark.parametrize(("largest", "are_there"), [(8, True), (7, False)])
def test_matrices_beyond_the_bound_are_named(monkeypatch: pytest.MonkeyPatch, largest: int, are_there: bool):
    """The hidden axis has 8 source units; those of the feed-forward part, 19, are too many in either case."""
    monkeypatch.setattr(operator, "LARGEST_SIDE", largest)
    growth = CASES["tied, identity fixed"].growth
    begin = start(growth, "ligo")
    numbers = measured(growth, begin, shaken(begin))
    too_large = {parameter.name for parameter in numbers.too_large}
    assert {f"layers.{layer}.ffn.out" for layer in (0, 2, 4)} <= too_large
    assert ("hidden.out" not in too_large) == are_there
    computed = {matrix.parameter.name for matrix in numbers.widths if matrix.singular_values}
    assert ("hidden.out" in computed) == are_there
    assert not computed & too_large
    assert all(matrix.moved > 0 for matrix in numbers.widths)


def test_singular_values_of_wide_flat_and_singular_matrices():
    generator = torch.Generator().manual_seed(0)
    for shape in ((7, 4), (4, 7), (5, 5), (3, 1)):
        matrix = torch.randn(shape, generator=generator)
        expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
        np.testing.assert_allclose(singular_values(matrix).numpy(), expected, rtol=1e-10)
    one = torch.outer(torch.arange(1.0, 5), torch.ones(3))
    np.testing.assert_allclose(singular_values(one).numpy(), [np.sqrt(90), 0, 0], atol=1e-6)


def test_relative_distance():
    assert relative_distance(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])) == 0.75


@pytest.mark.parametrize(("layers", "expected"), [(1, {0}), (2, {0, 1}), (3, {0, 1, 2}), (48, {0, 24, 47})])
def test_sampled_layers(layers: int, expected: set[int]):
    assert sampled_layers(layers) == expected
