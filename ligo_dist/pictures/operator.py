"""The numbers of a learned operator that its pictures show: where it began, and where learning has led it.

What is measured of a width matrix costs O(target units * source units^2), as one step that learns it does; so singular
values are those of a few layers, and of matrices up to `LARGEST_SIDE`. At any time one matrix and its start are whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ligo_dist.growth.operators import Growth, OperatorParameter
from ligo_dist.growth.transfer import OperatorValues

LARGEST_SIDE = 2048
"""Source units of the largest matrix whose singular values are computed: 2 to 4 seconds on one processor core."""


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
        singular_values: largest first; None where they were not computed.
    """

    parameter: OperatorParameter
    moved: float
    singular_values: Values | None

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
        too_large: width matrices of sampled layers whose singular values would cost too much.
    """

    growth: Growth
    start: OperatorValues
    widths: list[WidthMatrix] = field(default_factory=list)
    too_large: list[OperatorParameter] = field(default_factory=list)
    _depth: dict[str, list[Values]] = field(default_factory=dict)

    def add(self, parameter: OperatorParameter, value: Tensor) -> None:
        """Measure a learned parameter; all of them are to be added, in the operator's order."""
        start = self.start(parameter.name)
        if parameter.kind == "depth":
            kind = "depth" if parameter.side is None else "new_depth"
            self._depth.setdefault(kind, []).append(Values(_array(start), _array(value)))
            return
        start, value = (self.growth.whole_matrix(parameter, part) for part in (start, value))
        spectrum = None
        if parameter.layer is None or parameter.layer in sampled_layers(self.growth.target.layers):
            if min(value.shape) <= LARGEST_SIDE:
                spectrum = Values(_array(singular_values(start)), _array(singular_values(value)))
            else:
                self.too_large.append(parameter)
        self.widths.append(WidthMatrix(parameter, relative_distance(value, start), spectrum))

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
            "width": {
                matrix.parameter.name: {
                    "moved": matrix.moved,
                    "singular_values": matrix.singular_values and _values_dict(matrix.singular_values),
                }
                for matrix in self.widths
            },
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


def sampled_layers(layers: int) -> set[int]:
    """The target layers whose width matrices have their singular values computed: first, middle and last."""
    return {0, layers // 2, layers - 1}


def singular_values(matrix: Tensor) -> Tensor:
    """The singular values of a matrix, largest first, fp64; to some 1e-8 of the largest.

    They are the roots of the eigenvalues of the smaller Gram matrix, which is much cheaper than a decomposition.
    """
    tall = (matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT).double()
    return torch.linalg.eigvalsh(tall.mT @ tall).clamp(min=0).sqrt().flip(0)


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
