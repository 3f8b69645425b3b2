"""Where the operator starts: each method gives every operator parameter an initial value.

A value is a pure function of (method, parameter, seed): no rank needs another one's to make it.

`ligo` (Wang et al., ICLR 2023; published code `ligo.py`): width is the identity above rows drawn from U[0, 1] and
scaled to sum 1; depth is stacking - layer l from source layer l mod K - with U[0, 0.03] noise, scaled to sum 1.

`lossless`: the target computes the source's function. Old units stay, new ones are dense mixtures that no consumer
reads yet (`in` is [I; 0]), new layers write nothing yet (their projections to the residual stream get zero depth
coefficients, as in LEMON, arXiv 2310.07999), and the norms' statistics are kept: a whole multiple of the width is
filled with random orthogonal mixtures that keep the all-ones vector, which leaves mean and mean square as they are;
what remains is filled with LEMON's average (LayerNorm) or zero (RMSNorm) units, a little noise on them, and the
gains rescaled. Exact where the widths divide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ligo_dist.architectures import Axis, ModelShape
from ligo_dist.errors import ArchitectureError
from ligo_dist.growth.operators import Growth, OperatorParameter

DEPTH_NOISE = 0.03
"""Upper end of the uniform noise on stacked depth coefficients (`init_noise` of the published code)."""

REMAINDER_NOISE = 0.1
"""Size of the mixtures on the remainder units of a lossless start whose widths do not divide."""


@dataclass(frozen=True)
class Method:
    """A way to start the operator.

    Attributes:
        name: what the configuration calls it.
        width: initial value of a width matrix.
        depth: initial value of a layer's depth coefficients.
        tied: whether it ties the sides of an axis unless told otherwise.
        can_be_tied: False where it needs a matrix for each side.
        preserves: whether the target computes the source's function right after growing.
    """

    name: str
    width: Callable[[Growth, OperatorParameter, torch.Generator], Tensor]
    depth: Callable[[Growth, OperatorParameter, torch.Generator], Tensor]
    tied: bool
    can_be_tied: bool
    preserves: Callable[[Growth], bool]


def get_method(name: str) -> Method:
    return _METHODS[name]


def resolve_tied(method: Method, tied: bool | None) -> bool:
    """Whether the operator is tied: the user's choice, or the method's.

    Raises:
        ArchitectureError: if the method cannot be tied and the user asks for it.
    """
    if tied and not method.can_be_tied:
        raise ArchitectureError(
            f"method {method.name!r} needs a matrix for each side of an axis: set tied: false"
        )
    return method.tied if tied is None else tied


def initial_value(growth: Growth, method: Method, parameter: OperatorParameter, seed: int) -> Tensor:
    """A parameter's start, fp32, the same on every rank. All sides of one axis draw the same random numbers."""
    key = f"{seed}/{parameter.axis}/{parameter.layer}".encode()
    generator = torch.Generator().manual_seed(
        int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big")
    )
    make = method.depth if parameter.axis is None else method.width
    value = make(growth, parameter, generator)
    assert tuple(value.shape) == parameter.shape, (parameter.name, tuple(value.shape), parameter.shape)
    return value


def placed_units(axis: Axis, source: ModelShape, target: ModelShape) -> Tensor:
    """For each source unit of an axis, the target unit that continues it.

    The first units, save where query heads are ordered by group: there, head j of group k stays head j of group k.
    """
    units = torch.arange(axis.units(source))
    if not axis.grouped:
        return units
    per_group = source.queries_per_group
    return units // per_group * target.queries_per_group + units % per_group


def _identity(growth: Growth, parameter: OperatorParameter) -> tuple[Tensor, Tensor]:
    """A zero matrix with the identity where source units continue, and the numbers of the new rows."""
    assert parameter.axis is not None
    matrix_UV = torch.zeros(parameter.shape)
    placed = placed_units(growth.architecture.axes[parameter.axis], growth.source, growth.target)
    matrix_UV[placed, torch.arange(len(placed))] = 1.0
    is_new = torch.ones(parameter.shape[0], dtype=torch.bool)
    is_new[placed] = False
    return matrix_UV, is_new.nonzero().squeeze(1)


def _ligo_width(growth: Growth, parameter: OperatorParameter, generator: torch.Generator) -> Tensor:
    matrix_UV, new = _identity(growth, parameter)
    rows = torch.rand(len(new), parameter.shape[1], generator=generator)
    matrix_UV[new] = rows / rows.sum(dim=1, keepdim=True)
    return matrix_UV


def _noisy_stack(growth: Growth, parameter: OperatorParameter, generator: torch.Generator) -> Tensor:
    assert parameter.layer is not None
    depth = torch.rand(parameter.shape, generator=generator) * DEPTH_NOISE
    depth[:, parameter.layer % growth.source.layers] = 1.0
    return depth / depth.sum(dim=1, keepdim=True)


def _identity_layers(growth: Growth, parameter: OperatorParameter, generator: torch.Generator) -> Tensor:
    """Each source layer is followed by its share of new layers, copies of it that write nothing yet."""
    assert parameter.layer is not None
    source_layers, target_layers = growth.source.layers, growth.target.layers
    origin = parameter.layer * source_layers // target_layers
    is_new = parameter.layer > 0 and (parameter.layer - 1) * source_layers // target_layers == origin
    depth = torch.zeros(parameter.shape)
    depth[:, origin] = 1.0
    if is_new:
        for row, role in enumerate(growth.layer_roles):
            if _writes_residual(growth, role):
                depth[row] = 0.0
    return depth


def _writes_residual(growth: Growth, role: str) -> bool:
    """Whether a role of the blocks adds to the residual stream: projections back to it, and their biases."""
    dims = growth.source_by_role[role].dims
    return any(segment.axis.scope == "model" and segment.side == "out" for dim in dims for segment in dim)


def _lossless_width(growth: Growth, parameter: OperatorParameter, generator: torch.Generator) -> Tensor:
    assert parameter.axis is not None
    matrix_UV, new = _identity(growth, parameter)
    axis = growth.architecture.axes[parameter.axis]
    large, small = parameter.shape
    if axis.scope != "model":
        if parameter.side == "out":
            matrix_UV[new] = _orthonormal_rows(len(new), small, generator)
        return matrix_UV
    if parameter.side == "out":
        matrix_UV[new] = _statistics_preserving_rows(growth, len(new), small, generator)
    elif parameter.side in ("gain", "bias"):
        matrix_UV[new, new % small] = 1.0
    if parameter.side in ("gain", "head_gain"):
        matrix_UV *= math.sqrt(large // small * small / large)
    return matrix_UV


def _orthonormal_rows(count: int, size: int, generator: torch.Generator) -> Tensor:
    """`count` rows of random orthogonal matrices: mixtures at the scale of what they mix."""
    blocks = [_random_orthogonal(size, generator) for _ in range(-(-count // size))]
    return torch.cat([*blocks, torch.empty(0, size)])[:count]


def _statistics_preserving_rows(growth: Growth, count: int, size: int, generator: torch.Generator) -> Tensor:
    """New units of the residual stream that leave the norms' statistics as they are (see the module's docstring)."""
    whole, remainder = divmod(count, size)
    ones = torch.full((size, 1), 1 / math.sqrt(size))
    # An orthonormal basis of what is orthogonal to the all-ones vector.
    basis = torch.linalg.qr(torch.cat([ones, torch.eye(size)[:, 1:]], dim=1)).Q[:, 1:]
    average = torch.full((size, size), 1 / size)
    rows = [average + basis @ _random_orthogonal(size - 1, generator) @ basis.mT for _ in range(whole)]
    if remainder:
        mixtures = basis @ _random_orthogonal(size - 1, generator) @ basis.mT
        base = average if growth.architecture.normalization == "layer_norm" else torch.zeros(size, size)
        rows.append((base + REMAINDER_NOISE * mixtures)[:remainder])
    return torch.cat([*rows, torch.empty(0, size)])


def _random_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """Uniformly distributed (Haar) over the orthogonal matrices: QR with the signs of R's diagonal fixed."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


def _widths_divide(growth: Growth) -> bool:
    return growth.target.width % growth.source.width == 0


_METHODS = {
    method.name: method
    for method in (
        Method(
            "ligo", _ligo_width, _noisy_stack, tied=True, can_be_tied=True, preserves=lambda growth: False
        ),
        Method(
            "lossless",
            _lossless_width,
            _identity_layers,
            tied=False,
            can_be_tied=False,
            preserves=_widths_divide,
        ),
    )
}
