"""What is measured of an operator equals plain numpy on the dense maps that grow a model with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ligo_dist.growth import AxisMap, Growth
from ligo_dist.report import OperatorNumbers
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
    """The matrix that each width parameter puts on an axis of elements."""
    maps = {}
    for spec in growth.target_parameters:
        for dim, dim_map in zip(spec.dims, growth.dim_maps(spec, values), strict=True):
            for segment, axis_map in zip(dim, dim_map.segments, strict=True):
                if isinstance(axis_map, AxisMap) and not segment.axis.lifted_from:
                    name = growth.width_parameter(segment, spec.layer).name
                    dense = axis_map.apply(torch.eye(axis_map.source_size, dtype=torch.float64), 0)
                    maps[name] = dense.numpy()
    return maps


def moved(now: Any, before: Any) -> Any:
    return pytest.approx(np.linalg.norm(now - before) / np.linalg.norm(before), rel=1e-5)


def test_width_matrices(case: Case):
    growth, begin = case.growth, start(case.growth, case.method)
    now = shaken(begin)
    numbers = measured(growth, begin, now)
    dense_start, dense_now = dense_maps(growth, begin), dense_maps(growth, now)
    assert {parameter.name for parameter in numbers.moved} == set(dense_now)
    for parameter, distance in numbers.moved.items():
        assert distance == moved(dense_now[parameter.name], dense_start[parameter.name])
    assert max(numbers.moved.values()) > 0.01


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
                assert matrix.start[layer].tolist() == begin[name][row].tolist()
                assert matrix.now[layer].tolist() == now[name][row].tolist()
            assert matrix.moved == moved(matrix.now, matrix.start)
            assert matrix.now.shape == (growth.target.layers, len(numbers.columns))


def test_columns_are_named():
    def columns(name: str) -> list[str]:
        return OperatorNumbers(CASES[name].growth, {}.__getitem__).columns

    assert columns("tied, identity fixed") == ["0", "1"]
    assert columns("fresh layers and a unit layer") == ["fresh 0", "fresh 1", "fresh 2"]
    assert columns("post-norm identity layers") == ["0", "1", "unit"]


def test_an_operator_that_did_not_move():
    begin = start(CASES["a matrix for each side"].growth, "lossless-dense")
    numbers = measured(CASES["a matrix for each side"].growth, begin, begin)
    assert set(numbers.moved.values()) == {0.0}
    assert {matrix.moved for matrix in numbers.depth.values()} == {0.0}
