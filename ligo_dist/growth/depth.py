"""Where the depth coefficients start: how each target layer is made of the source's (`growth.registry.DEPTHS`).

Shape suffixes: R roles of a block, C columns (source layers, fresh layers, the unit layer).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ligo_dist.growth.operators import Growth
from ligo_dist.growth.registry import DAMPED

DEPTH_NOISE = 0.03
"""Upper end of the uniform noise on stacked depth coefficients (`init_noise` of LiGO's published code)."""


def depth_value(growth: Growth, depth: str, layer: int, generator: torch.Generator) -> Tensor:
    """The start of a target layer's coefficients, [R, C], or [1, C] where all roles share them."""
    if depth == "noisy-stack":
        return _noisy_stack(growth, layer, generator)
    value_RC = torch.zeros(growth.depth_shape)
    if depth == "interpolate":
        for column, weight in _neighbours(growth, layer):
            value_RC[:, column] = weight
        return value_RC
    value_RC[:, origin(growth, depth, layer)] = 1.0
    if depth == "identity-layers" and not growth.share_depth:
        _pass_on(growth, layer, value_RC)
    if depth in DAMPED:
        _damp(growth, depth, layer, value_RC)
    return value_RC


def new_depth_value(growth: Growth, depth: str, layer: int) -> Tensor:
    """The coefficients of new units that come from the layer behind (bert2BERT's AKI)."""
    value_RC = torch.zeros(growth.depth_shape)
    value_RC[:, min(origin(growth, depth, layer) + 1, growth.source.layers - 1)] = 1.0
    return value_RC


def origin(growth: Growth, depth: str, layer: int) -> int:
    """The column that a target layer begins as (for `interpolate`, the nearer one)."""
    source, target = growth.source.layers, growth.target.layers
    depth = DAMPED.get(depth, depth)
    if depth in ("stack", "noisy-stack"):
        return layer % source
    if depth == "identity-layers" and growth.numbered:
        return min(layer, source - 1)
    if depth in ("interlace", "identity-layers"):
        return layer * source // target
    if depth == "top-copy":
        return layer if layer < source else (layer - target) % source
    if depth == "random-layers":
        return layer  # the fresh layers follow the source's own
    if depth == "interpolate":
        return max(_neighbours(growth, layer), key=lambda neighbour: neighbour[1])[0]
    raise ValueError(f"no depth {depth!r}")


def is_new_layer(growth: Growth, depth: str, layer: int) -> bool:
    """Whether a layer before it continues the same source layer already, or it continues none."""
    own = origin(growth, depth, layer)
    return own >= growth.source.layers or any(origin(growth, depth, other) == own for other in range(layer))


def _noisy_stack(growth: Growth, layer: int, generator: torch.Generator) -> Tensor:
    value_RC = torch.rand(growth.depth_shape, generator=generator) * DEPTH_NOISE
    value_RC[:, origin(growth, "noisy-stack", layer)] = 1.0
    return value_RC / value_RC.sum(dim=1, keepdim=True)


def _neighbours(growth: Growth, layer: int) -> list[tuple[int, float]]:
    """(source layer, weight) of the layers between which a target layer lies."""
    source, target = growth.source.layers, growth.target.layers
    position = layer * (source - 1) / (target - 1) if target > 1 else 0.0
    below = min(int(position), source - 1)
    above = position - below
    pairs = [(below, 1 - above), (below + 1, above)]
    return [(column, weight) for column, weight in pairs if weight > 0]


def _pass_on(growth: Growth, layer: int, value_RC: Tensor) -> None:
    """Make a new layer pass on what it gets: what it adds to the residual stream is zero.

    Post-norm, the layer's norms still act on the stream. Where new layers follow a source layer, its output norm and
    all of theirs but the last only normalise - once and for all - and the last one has the source layer's gain and
    bias.
    """
    own = origin(growth, "identity-layers", layer)
    is_new = is_new_layer(growth, "identity-layers", layer)
    last = layer + 1 == growth.target.layers
    is_followed = not last and origin(growth, "identity-layers", layer + 1) == own
    only_normalise: set[str] = set()
    if growth.architecture.post_norm:
        inner, output = _inner_and_output_norms(growth)
        only_normalise = (inner if is_new else set()) | (output if is_followed else set())
    for row, role in enumerate(growth.layer_roles):
        if is_new and _has_side(growth, role, ("out",)):
            value_RC[row] = 0.0
        elif role in only_normalise:
            value_RC[row] = 0.0
            value_RC[row, -1] = 1.0


def _damp(growth: Growth, depth: str, layer: int, value_RC: Tensor) -> None:
    """Divide what a layer adds to the residual stream, biases too, by the number of layers that copy its source layer:
    all of them together write what that one wrote, as long as each reads nearly what it read."""
    own = origin(growth, depth, layer)
    copies = sum(origin(growth, depth, other) == own for other in range(growth.target.layers))
    for row, role in enumerate(growth.layer_roles):
        if copies > 1 and _has_side(growth, role, ("out",)):
            value_RC[row] /= copies


def _inner_and_output_norms(growth: Growth) -> tuple[set[str], set[str]]:
    """The norm roles of a post-norm block: those inside it, and those of its last norm, which tables list last."""
    norms = [role for role in growth.layer_roles if _has_side(growth, role, ("gain", "bias"))]
    module = norms[-1].rpartition(".")[0]
    output = {role for role in norms if role.startswith(module + ".")}
    return set(norms) - output, output


def _has_side(growth: Growth, role: str, sides: tuple[str, ...]) -> bool:
    """Whether a role of the blocks lies on the residual stream with one of these sides."""
    dims = growth.source_by_role[role].dims
    return any(segment.axis.scope == "model" and segment.side in sides for dim in dims for segment in dim)
