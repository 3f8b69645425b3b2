"""Applying the operator: every rank makes just its own partition of every target parameter.

For a block, the mixed source layer is gathered (one collective), then its operator matrices; from these a rank
computes the rows that its flat range [a, b) of each target tensor touches. No whole target tensor exists anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from ligo_dist.architectures import ParameterSpec
from ligo_dist.engine import Shards, World, gather_tensor, partition_range, scatter_tensor
from ligo_dist.growth.depth import is_new_layer
from ligo_dist.growth.methods import Method, initial_value
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards

OperatorValues = Callable[[str], Tensor]
"""Gives an operator parameter, whole, by name; called on all ranks in the same order."""


def gathered_operator(growth: Growth, shards: Shards, world: World) -> OperatorValues:
    """The values of a learned operator that lies in partitions: each call gathers one."""
    shapes = {parameter.name: parameter.shape for parameter in growth.operator_parameters}
    return lambda name: gather_tensor(shards[name], shapes[name], world)


def initial_operator(growth: Growth, method: Method, stream: str, world: World) -> OperatorValues:
    """The values a method starts from, made on each rank alike: for a method that is applied as it is.

    Those of the whole model, which every block asks for, are made once.
    """
    parameters = {parameter.name: parameter for parameter in growth.operator_parameters}
    of_model: dict[str, Tensor] = {}

    def value(name: str) -> Tensor:
        if name in of_model:
            return of_model[name]
        made = initial_value(growth, method, parameters[name], stream).to(world.device)
        if parameters[name].layer is None:
            of_model[name] = made
        return made

    return value


def initial_operator_shards(
    growth: Growth, method: Method, stream: str, world: World
) -> Iterator[tuple[str, Tensor]]:
    """This rank's partitions of the operator's start, one parameter at a time. Collective.

    Each is made by one rank alone, as many side by side as there are ranks: an orthogonal one takes cubic time.
    """
    parameters = growth.operator_parameters
    for first in range(0, len(parameters), world.size):
        several = parameters[first : first + world.size]
        made = None
        if world.rank < len(several):
            made = initial_value(growth, method, several[world.rank], stream)
        for owner, parameter in enumerate(several):
            full = made if owner == world.rank else None
            yield parameter.name, scatter_tensor(full, parameter.numel, owner, world)


@torch.no_grad()
def grown_shards(
    growth: Growth, source: SourceShards, operator: OperatorValues, world: World
) -> Iterator[tuple[str, Tensor]]:
    """This rank's fp32 partition of each target parameter whose role the source has, block by block. Collective: all
    ranks iterate together.

    Yields:
        (name, elements of the partition that exist; padding is left to the taker).
    """
    shared: dict[str, Tensor] = {}
    made = [spec for spec in growth.target_parameters if spec.role in source.shapes]
    rows_there = [growth.layer_roles.index(role) for role in source.roles]
    for layer, group in groupby(made, key=lambda spec: spec.layer):
        mixed: list[dict[str, Tensor]] = []
        if layer is not None:
            rows = [growth.depth_rows(operator(name))[rows_there] for name in growth.depth_names(layer)]
            mixed = [source.mixed_layer(depth_RK, torch.float32, world) for depth_RK in rows]
        matrices: dict[str, Tensor] = {}
        for spec in group:
            for name in sorted(growth.matrices_of(spec)):
                is_of_layer = name.startswith("layers.")
                kept = matrices if is_of_layer else shared
                if name not in kept:
                    kept[name] = operator(name)
            if layer is None:
                small = [source.outside_tensor(spec.name, torch.float32, world)]
            else:
                small = [by_role.pop(spec.role) for by_role in mixed]
            start, stop = partition_range(spec.numel, world.rank, world.size)
            yield spec.name, growth.expand_range(spec, small, {**shared, **matrices}, start, stop)


@torch.no_grad()
def grown_moments(
    growth: Growth,
    moments: SourceShards,
    operator: OperatorValues,
    world: World,
    *,
    depth: str,
    squared: bool,
    asymmetric: bool,
) -> Iterator[tuple[str, Tensor]]:
    """This rank's partition of each target parameter's moment, grown from the source's. Collective.

    The first moment is linear in the gradient, and grows by the weights' own map; the second is quadratic, and grows by
    the map of squared coefficients (Shen et al., arXiv 2203.06211, section 3).

    Args:
        growth: the pair of models.
        moments: the source's, with zeros for fresh layers and the unit layer.
        operator: that made the target.
        world: the ranks.
        depth: the method's way to grow in depth: which layers are new.
        squared: square the coefficients.
        asymmetric: zero for new units and new layers (SPARKLING, arXiv 2602.02472).
    """
    values: OperatorValues = (lambda name: operator(name).square()) if squared else operator
    specs = {spec.name: spec for spec in growth.target_parameters}
    for name, moment in grown_shards(growth, moments, values, world):
        if asymmetric:
            moment = moment * _kept_part(growth, depth, specs[name], world).to(moment.device)
        yield name, moment


def new_elements(growth: Growth, depth: str, world: World) -> Iterator[tuple[str, Tensor]]:
    """This rank's partition of each target parameter, as truth values: whether an element is of a new layer, or of a
    new unit on either side. Padding is left out. No communication."""
    for spec in growth.target_parameters:
        yield spec.name, _kept_part(growth, depth, spec, world) == 0


def _kept_part(growth: Growth, depth: str, spec: ParameterSpec, world: World) -> Tensor:
    """This rank's partition of a target parameter: 1 where an element continues the source's, else 0."""
    start, stop = partition_range(spec.numel, world.rank, world.size)
    if spec.layer is not None and is_new_layer(growth, depth, spec.layer):
        return torch.zeros(stop - start)
    return growth.kept_elements(spec, start, stop)
