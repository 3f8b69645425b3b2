"""A method: a way to grow in depth and one in width, by name, with the operator's first values.

Every first value is a pure function of (method, parameter, seed): no rank needs another one's to make it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ligo_dist.architectures import Architecture, ModelShape
from ligo_dist.growth.claims import epsilon_factor, obstacles
from ligo_dist.growth.depth import depth_value, is_new_layer, new_depth_value
from ligo_dist.growth.names import resolve
from ligo_dist.growth.operators import Growth, OperatorParameter
from ligo_dist.growth.width import generator_of, width_value


@dataclass(frozen=True)
class Method:
    """A way to start the operator.

    Attributes:
        name: what the configuration calls it.
        depth: one of `growth.names.DEPTHS`.
        width: one of `growth.names.WIDTHS`.
        noise: on the new rows of the width matrices, relative to the scale of these rows.
    """

    name: str
    depth: str
    width: str
    noise: float = 0.0


def get_method(
    name: str, depth: str | None = None, width: str | None = None, noise: float = 0.0
) -> Method | None:
    """A named method, its depth or width replaced where given; None for `scratch`, which has no operator."""
    halves = resolve(name, depth, width)
    return None if halves is None else Method(name, *halves, noise)


def build_growth(
    architecture: Architecture,
    source: ModelShape,
    target: ModelShape,
    method: Method,
    *,
    tied: bool | None = None,
    identity: str | None = None,
    share_depth: bool = False,
    share_width: bool = False,
) -> Growth:
    """The operator that a method needs for a pair of models.

    Args:
        architecture: the family.
        source, target: the pair.
        method: where the operator starts.
        tied: one matrix for all sides of an axis; None: as the method does.
        identity: `fixed` or `learned`; None: as the method does.
        share_depth: one row of depth coefficients for all roles.
        share_width: one operator per axis for all layers.

    Raises:
        ArchitectureError: for a growth that the family or the method does not allow.
    """
    return Growth.for_ways(
        architecture,
        source,
        target,
        method.depth,
        method.width,
        tied=tied,
        identity=identity,
        share_depth=share_depth,
        share_width=share_width,
    )


def initial_value(growth: Growth, method: Method, parameter: OperatorParameter, seed: int) -> Tensor:
    """A parameter's start, fp32, the same on every rank."""
    if parameter.side == "new":
        assert parameter.layer is not None
        value = new_depth_value(growth, method.depth, parameter.layer)
    elif parameter.axis is None:
        assert parameter.layer is not None
        generator = generator_of(f"{seed}/depth/{parameter.layer}")
        value = depth_value(growth, method.depth, parameter.layer, generator)
    else:
        value = width_value(growth, _width_in(growth, method, parameter), parameter, method.noise, seed)
    assert tuple(value.shape) == parameter.shape, (parameter.name, tuple(value.shape), parameter.shape)
    return value


def _width_in(growth: Growth, method: Method, parameter: OperatorParameter) -> str:
    """The method's width; but what LEMON copies would stay equal for ever in identity layers, whose uneven split reads
    nothing: new units are dense there, as it leaves them free."""
    is_lemon = method.width == "lossless" and method.depth == "identity-layers"
    if is_lemon and parameter.layer is not None and is_new_layer(growth, method.depth, parameter.layer):
        return "lossless-dense"
    return method.width


def why_not_preserved(growth: Growth, method: Method) -> list[str]:
    """Why the target will not compute the source's function right after growing; empty if it will."""
    return obstacles(
        growth.architecture,
        growth.source,
        growth.target,
        depth=method.depth,
        width=method.width,
        noise=method.noise,
        share_depth=growth.share_depth,
    )


def norm_epsilon_factor(growth: Growth, method: Method) -> float:
    """What the norms' epsilon is multiplied by in the target."""
    return epsilon_factor(growth.architecture, growth.source, growth.target, method.width)
