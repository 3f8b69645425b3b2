"""The numbers of a learned operator that its pictures show: where it began, and where learning has led it.

At any time one matrix and its start are whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ligo_dist.growth import Growth, OperatorParameter, OperatorValues


@dataclass(frozen=True)
class DepthMatrix:
    """The depth coefficients of one role before and after learning, [target layers, columns]."""

    start: Tensor
    now: Tensor

    @property
    def moved(self) -> float:
        return relative_distance(self.now, self.start)

    def to_dict(self) -> dict[str, Any]:
        return {"start": _rounded(self.start), "now": _rounded(self.now), "moved": self.moved}


class OperatorNumbers:
    """What is known of an operator; filled by `add`, one parameter at a time.

    Args:
        growth: the pair of models.
        start: the operator's first values.

    Attributes:
        moved: of each width matrix, the rows of a fixed identity included: |now - start| / |start| in the Frobenius
            norm.
    """

    def __init__(self, growth: Growth, start: OperatorValues) -> None:
        self.moved: dict[OperatorParameter, float] = {}
        self._growth, self._start = growth, start
        self._depth: dict[str, list[tuple[Tensor, Tensor]]] = {"depth": [], "new_depth": []}

    def add(self, parameter: OperatorParameter, value: Tensor) -> None:
        """Measure a learned parameter; all of them are to be added, in the operator's order."""
        start = self._start(parameter.name)
        if parameter.kind == "depth":
            kind = "depth" if parameter.side is None else "new_depth"
            self._depth[kind].append((start.cpu(), value.cpu()))
        else:
            begun, learned = (self._growth.whole_matrix(parameter, part) for part in (start, value))
            self.moved[parameter] = relative_distance(learned, begun)

    @property
    def columns(self) -> list[str]:
        """What depth coefficients mix: the source's layers by number, fresh layers, the unit layer."""
        growth = self._growth
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

    def _by_role(self, kind: str) -> dict[str, DepthMatrix]:
        layers = self._depth[kind]
        if not layers:
            return {}
        roles = [role.rpartition("{layer}.")[2] for role in self._growth.layer_roles]
        if self._growth.share_depth:
            roles = ["all roles"]
        start_RLC, now_RLC = (torch.stack(values, dim=1) for values in zip(*layers, strict=True))
        matrices = map(DepthMatrix, start_RLC, now_RLC)
        return dict(zip(roles, matrices, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it, coefficients in six digits."""
        return {
            "columns": self.columns,
            "depth": {role: matrix.to_dict() for role, matrix in self.depth.items()},
            "new_depth": {role: matrix.to_dict() for role, matrix in self.new_depth.items()},
            "width": {parameter.name: {"moved": moved} for parameter, moved in self.moved.items()},
        }


def relative_distance(now: Tensor, start: Tensor) -> float:
    """|now - start| / |start| in the Frobenius norm; no start is all zero."""
    norm = torch.linalg.vector_norm
    return (norm(now - start, dtype=torch.float64) / norm(start, dtype=torch.float64)).item()


def _rounded(matrix: Tensor) -> list[list[float]]:
    """In six significant digits, which is what fp32 numbers have to say."""
    return [[float(f"{number:.6g}") for number in row] for row in matrix.tolist()]
