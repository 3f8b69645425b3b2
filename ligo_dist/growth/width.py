"""Where the width matrices start: how each axis expands, side by side (`growth.registry.WIDTHS`).

A method that keeps the function needs, for what reads an axis, `in^T @ out = I`; for norms, that their statistics stay;
for a tied head, which reads the last norm through the embedding's own `out`, `out^T @ head_gain = I` in place of that.

Copying methods are a *selection*: `origin[u]`, the source unit that target unit u copies, and `share[u]`, the part of
its weight with which u is read; the shares of all copies of a unit sum to 1. Attention copies whole heads, the same
ones for query, key and value.

Shape suffixes: U/V target/source units of an axis.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ligo_dist.architectures import Axis
from ligo_dist.growth.operators import Growth, OperatorParameter, new_units
from ligo_dist.growth.preserves import epsilon_factor

_Choice = Callable[[int, int, torch.Generator], Tensor]
"""(source units, new units, generator) -> the source unit that each new one copies."""

_READING = ("in", "head_gain", "head_bias")
"""Sides through which an axis's units add up in what reads them."""


def width_value(
    growth: Growth, width: str, parameter: OperatorParameter, noise: float, stream: str
) -> Tensor:
    """The start of a width matrix, [U, V] (or its new rows alone, where the identity is fixed)."""
    assert parameter.axis is not None and parameter.side is not None
    axis = growth.architecture.axes[parameter.axis]
    at = _Place(growth, axis, parameter.side, parameter.layer, stream)
    value_UV = _MAKERS[width](at)
    new = new_units(axis, growth.source, growth.target)
    if axis.normed and parameter.side == "out":
        # The norms inside heads have the epsilon of all norms: what they see is scaled like it.
        factor = epsilon_factor(growth.architecture, growth.source, growth.target, width)
        value_UV = value_UV * math.sqrt(factor)
    if noise and parameter.side in ("out", "in") and len(new):
        rows = value_UV[new]
        # Where all new rows are zero, the old ones give the scale.
        scale = (rows if rows.any() else value_UV).pow(2).mean().sqrt()
        draws = torch.randn(rows.shape, generator=at.generator(f"noise/{parameter.side}"))
        value_UV[new] = rows + noise * scale * draws
    return value_UV[new] if growth.fixed_identity else value_UV


def generator_of(key: str) -> torch.Generator:
    """A random generator that is a function of a text alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


@dataclass(frozen=True)
class _Place:
    """One matrix to make: of which axis, for which side, in which target layer."""

    growth: Growth
    axis: Axis
    side: str
    layer: int | None
    stream: str

    @property
    def large(self) -> int:
        return self.axis.units(self.growth.target)

    @property
    def small(self) -> int:
        return self.axis.units(self.growth.source)

    @property
    def new(self) -> Tensor:
        return new_units(self.axis, self.growth.source, self.growth.target)

    def generator(self, what: str | None = None) -> torch.Generator:
        """All sides of an axis draw the same numbers, unless `what` tells them apart."""
        place = self.axis.name if what is None else f"{self.axis.name}/{what}"
        return generator_of(f"{self.stream}/{place}/{self.layer}")

    @property
    def shared_generator(self) -> torch.Generator:
        """What is copied is drawn alike for all axes that belong together: those of the heads, those of the model."""
        belongs_to = "heads" if self.axis.heads else "model" if self.axis.scope == "model" else self.axis.name
        return generator_of(f"{self.stream}/{belongs_to}/{self.layer}")

    @property
    def lies_on_stream(self) -> bool:
        """An axis of the whole model that only norms act on, and those in front of branches: units may be mixed."""
        return self.axis.scope == "model" and not self.axis.elementwise

    def identity(self) -> Tensor:
        """The identity where source units continue, zero elsewhere."""
        return self.growth.placement(self.axis)


# --- methods that mix ---


def _identity_random(at: _Place) -> Tensor:
    matrix_UV = at.identity()
    rows = torch.rand(len(at.new), at.small, generator=at.generator())
    matrix_UV[at.new] = rows / rows.sum(dim=1, keepdim=True)
    return matrix_UV


def _random(at: _Place) -> Tensor:
    if at.side.endswith("gain"):
        return torch.full((at.large, at.small), 1 / at.small)
    return torch.randn(at.large, at.small, generator=at.generator(at.side)) / math.sqrt(at.small)


def _zero_pad(at: _Place) -> Tensor:
    matrix_UV = at.identity()
    if at.side.endswith("gain"):
        matrix_UV[at.new] = 1 / at.small
        matrix_UV *= math.sqrt(at.small / at.large)
    return matrix_UV


def _lossless_dense(at: _Place) -> Tensor:
    if at.axis.elementwise:
        return at.identity() if at.side in _READING else _selection_matrix(at, _tiled, even=True)
    matrix_UV = at.identity()
    if not at.lies_on_stream:
        if at.side == "out":
            matrix_UV[at.new] = _random_rows(len(at.new), at.small, at.generator())
        return matrix_UV
    whole = at.new[: at.large // at.small * at.small - at.small]
    if at.side == "out":
        matrix_UV[whole] = _statistics_keeping_rows(len(whole), at.small, at.generator())
    elif at.side in ("gain", "bias"):
        matrix_UV[whole, whole % at.small] = 1.0
    return _with_remainder(at, matrix_UV)


# --- methods that copy ---


def _net2net(at: _Place) -> Tensor:
    return _selection_matrix(at, _balanced, even=True)


def _uniform_selection(at: _Place) -> Tensor:
    return _selection_matrix(at, _uniform, even=True)


def _hypercloning(at: _Place) -> Tensor:
    return _selection_matrix(at, _tiled, even=True)


def _lossless(at: _Place) -> Tensor:
    if not at.lies_on_stream:
        return _selection_matrix(at, _tiled, even=False)
    whole = at.large // at.small * at.small
    origin = torch.arange(whole) % at.small
    matrix_UV = torch.zeros(at.large, at.small)
    weight = _shares(origin, at.small, at.generator("shares")) if at.side in _READING else torch.ones(whole)
    matrix_UV[torch.arange(whole), origin] = weight
    return _with_remainder(at, matrix_UV)


def _selection_matrix(at: _Place, choose: _Choice, *, even: bool) -> Tensor:
    origin = _origins(at, choose)
    matrix_UV = torch.zeros(at.large, at.small)
    weight = torch.ones(at.large)
    if at.side in _READING:
        weight = _shares(origin, at.small, None if even else at.generator("shares"))
    matrix_UV[torch.arange(at.large), origin] = weight
    return matrix_UV


def _tiled(small: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.arange(count) % small


def _balanced(small: int, count: int, generator: torch.Generator) -> Tensor:
    rounds = [torch.randperm(small, generator=generator) for _ in range(-(-count // small))]
    return torch.cat([*rounds, torch.empty(0, dtype=torch.long)])[:count]


def _uniform(small: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(small, (count,), generator=generator)


def _origins(at: _Place, choose: _Choice) -> Tensor:
    """The source unit that each target unit is a copy of; old units are their own."""
    if not at.axis.heads:
        chosen = choose(at.small, at.large - at.small, at.shared_generator)
        return torch.cat([torch.arange(at.small), chosen])
    source, target = at.growth.source, at.growth.target
    groups = source.key_value_heads
    chosen = choose(groups, target.key_value_heads - groups, at.shared_generator)
    heads = torch.cat([torch.arange(groups), chosen])
    if at.axis.grouped:
        per_group = torch.arange(target.queries_per_group) % source.queries_per_group
        heads = (heads[:, None] * source.queries_per_group + per_group).flatten()
    units_per_head = source.head_size // at.axis.unit_size(source)
    return (heads[:, None] * units_per_head + torch.arange(units_per_head)).flatten()


def _shares(origin: Tensor, small: int, generator: torch.Generator | None) -> Tensor:
    """The part of its unit's weight with which each copy is read: equal parts, or (LEMON) random ones."""
    weight = torch.ones(len(origin))
    if generator is not None:
        weight += torch.rand(len(origin), generator=generator)
    return weight / torch.zeros(small).index_add(0, origin, weight)[origin]


# --- what both share ---


def _with_remainder(at: _Place, matrix_UV: Tensor) -> Tensor:
    """Fill the units beyond a whole multiple with ones that add nothing to a norm's statistics, and rescale its gains.

    They hold the average of all units (LayerNorm) or zero (RMSNorm), so a norm gives zero for them, whatever reads
    that: so it is read with random weights, and learns at once (LEMON, arXiv 2310.07999).
    """
    whole = at.large // at.small * at.small
    rest = slice(whole, at.large)
    if whole < at.large:
        if at.side == "out" and at.growth.architecture.normalization == "layer_norm":
            matrix_UV[rest] = 1 / at.small
        elif at.side == "in":
            generator = at.generator("remainder")
            matrix_UV[rest] = torch.randn(at.large - whole, at.small, generator=generator) / math.sqrt(
                at.small
            )
        elif at.side.endswith("gain"):
            matrix_UV[rest] = 1 / at.small
    if at.side.endswith("gain"):
        matrix_UV *= math.sqrt(whole / at.large)
    return matrix_UV


def _random_rows(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Dense mixtures at the scale of what they mix: rows of norm 1."""
    return torch.nn.functional.normalize(torch.randn(count, size, generator=generator))


def _statistics_keeping_rows(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Orthogonal matrices that keep the all-ones vector: `size` such units have the mean and the mean square of the
    units that they mix. `count` is a multiple of `size`."""
    ones = torch.full((size, 1), 1 / math.sqrt(size))
    # An orthonormal basis of what is orthogonal to the all-ones vector.
    basis = torch.linalg.qr(torch.cat([ones, torch.eye(size)[:, 1:]], dim=1)).Q[:, 1:]
    average = torch.full((size, size), 1 / size)
    blocks = [
        average + basis @ _random_orthogonal(size - 1, generator) @ basis.mT for _ in range(count // size)
    ]
    return torch.cat([*blocks, torch.empty(0, size)])


def _random_orthogonal(size: int, generator: torch.Generator) -> Tensor:
    """Uniformly distributed (Haar) over the orthogonal matrices: QR with the signs of R's diagonal fixed."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return (q * r.diagonal().sign()).float()


_MAKERS = {
    "identity-random": _identity_random,
    "net2net": _net2net,
    "bert2bert-fpi": _uniform_selection,
    "bert2bert-aki": _uniform_selection,
    "lossless": _lossless,
    "lossless-dense": _lossless_dense,
    "hypercloning": _hypercloning,
    "zero-pad": _zero_pad,
    "random": _random,
}
