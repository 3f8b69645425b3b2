"""The first values that a method gives to an operator.

Each is a pure function of (method, parameter, stream): no rank needs another one's to make it.
"""

from __future__ import annotations

from torch import Tensor

from ligo_dist.growth.depth import depth_value, is_new_layer, new_depth_value
from ligo_dist.growth.operators import Growth, OperatorParameter
from ligo_dist.growth.registry import Method
from ligo_dist.growth.width import generator_of, width_value


def initial_value(growth: Growth, method: Method, parameter: OperatorParameter, stream: str) -> Tensor:
    """A parameter's start, fp32, the same on every rank.

    Args:
        growth: the pair of models.
        method: where the operator starts.
        parameter: of the operator.
        stream: what random numbers are drawn by, beside the parameter: the run's seed and the stage.
    """
    if parameter.side == "new":
        assert parameter.layer is not None
        value = new_depth_value(growth, method.depth, parameter.layer)
    elif parameter.axis is None:
        assert parameter.layer is not None
        generator = generator_of(f"{stream}/depth/{parameter.layer}")
        value = depth_value(growth, method.depth, parameter.layer, generator)
    else:
        value = width_value(growth, _width_in(growth, method, parameter), parameter, method.noise, stream)
    assert tuple(value.shape) == parameter.shape, (parameter.name, tuple(value.shape), parameter.shape)
    return value


def _width_in(growth: Growth, method: Method, parameter: OperatorParameter) -> str:
    """The method's width; but what LEMON copies would stay equal for ever in identity layers, whose uneven split reads
    nothing: new units are dense there, as it leaves them free."""
    is_lemon = method.width == "lossless" and method.depth == "identity-layers"
    if is_lemon and parameter.layer is not None and is_new_layer(growth, method.depth, parameter.layer):
        return "lossless-dense"
    return method.width
