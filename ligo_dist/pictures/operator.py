"""The numbers of a learned operator that its pictures show: where it began, and where learning has led it.

At any time one matrix and its start are whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ligo_dist.growth.operators import Growth, OperatorParameter
from ligo_dist.growth.transfer import OperatorValues


@dataclass(frozen=True)
class Values:
    """Numbers of the operator, of one shape, before and after learning."""

    start: np.ndarray
    now: np.ndarray


@dataclass(frozen=True)
class WidthMatrix:
    """One width matrix, the rows of a fixed identity included.

    Attributes:
        parameter: which one.
        moved: |now - start| / |start| in the Frobenius norm.
    """

    parameter: OperatorParameter
    moved: float

    @property
    def kind(self) -> str:
        """Its name without the layer: `query.out`."""
        return f"{self.parameter.axis}.{self.parameter.side}"


@dataclass(frozen=True)
class DepthMatrix:
    """The depth coefficients of one role, target layers x columns.

    Attributes:
        values: before and after learning.
        moved: |now - start| / |start| in the Frobenius norm.
    """

    values: Values
    moved: float


@dataclass
class OperatorNumbers:
    """What is known of an operator; filled by `add`, one parameter at a time.

    Attributes:
        growth: the pair of models.
        start: the operator's first values.
        widths: of each width matrix.
    """

    growth: Growth
    start: OperatorValues
    widths: list[WidthMatrix] = field(default_factory=list)
    _depth: dict[str, list[Values]] = field(default_factory=dict)

    def add(self, parameter: OperatorParameter, value: Tensor) -> None:
        """Measure a learned parameter; all of them are to be added, in the operator's order."""
        start = self.start(parameter.name)
        if parameter.kind == "depth":
            kind = "depth" if parameter.side is None else "new_depth"
            self._depth.setdefault(kind, []).append(Values(_array(start), _array(value)))
            return
        start, value = (self.growth.whole_matrix(parameter, part) for part in (start, value))
        self.widths.append(WidthMatrix(parameter, relative_distance(value, start)))

    @property
    def columns(self) -> list[str]:
        """What depth coefficients mix: the source's layers by number, fresh layers, the unit layer."""
        growth = self.growth
        fresh = [f"fresh {layer}" for layer in range(growth.fresh_layers)]
        return [*map(str, range(growth.source.layers)), *fresh, *(["unit"] if growth.unit_layer else [])]

    @property
    def depth(self) -> dict[str, DepthMatrix]:
        """The depth coefficients by role, a role's name without its layer; `all roles` where these share them."""
        return self._by_role("depth")

    @property
    def new_depth(self) -> dict[str, DepthMatrix]:
        """The same of new units, where they have coefficients of their own."""
        return self._by_role("new_depth")

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it, in six digits."""
        return {
            "columns": self.columns,
            "depth": {role: _depth_dict(matrix) for role, matrix in self.depth.items()},
            "new_depth": {role: _depth_dict(matrix) for role, matrix in self.new_depth.items()},
            "width": {matrix.parameter.name: {"moved": matrix.moved} for matrix in self.widths},
        }

    def _by_role(self, kind: str) -> dict[str, DepthMatrix]:
        layers = self._depth.get(kind)
        if not layers:
            return {}
        roles = [role.rpartition("{layer}.")[2] for role in self.growth.layer_roles]
        if self.growth.share_depth:
            roles = ["all roles"]
        start_RLC = np.stack([layer.start for layer in layers], axis=1)
        now_RLC = np.stack([layer.now for layer in layers], axis=1)
        return {
            role: DepthMatrix(
                Values(start_LC, now_LC),
                relative_distance(torch.from_numpy(now_LC), torch.from_numpy(start_LC)),
            )
            for role, start_LC, now_LC in zip(roles, start_RLC, now_RLC, strict=True)
        }


def relative_distance(now: Tensor, start: Tensor) -> float:
    """|now - start| / |start| in the Frobenius norm; no start is all zero."""
    norm = torch.linalg.vector_norm
    return (norm(now - start, dtype=torch.float64) / norm(start, dtype=torch.float64)).item()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _values_dict(values: Values) -> dict[str, Any]:
    return {"start": _rounded(values.start), "now": _rounded(values.now)}


def _rounded(array: np.ndarray) -> list[Any]:
    """In six significant digits, which is what fp32 numbers have to say."""
    digits = [float(f"{number:.6g}") for number in array.flat]
    return np.array(digits).reshape(array.shape).tolist()


def _depth_dict(matrix: DepthMatrix) -> dict[str, Any]:
    return {**_values_dict(matrix.values), "moved": matrix.moved}
