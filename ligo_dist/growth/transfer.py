"""Applying the operator: every rank makes just its own partition of every target parameter.

For a block, the mixed source layer is gathered (one collective), then its operator matrices; from these a rank
computes the rows that its flat range [a, b) of each target tensor touches. No whole target tensor exists anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from ligo_dist.distributed import World
from ligo_dist.growth.algebra import expand_flat_range
from ligo_dist.growth.methods import Method, initial_value
from ligo_dist.growth.operators import Growth
from ligo_dist.growth.sharded import SourceShards, gather_matrix
from ligo_dist.shards import Shards, partition_range, shard_of

OperatorValues = Callable[[str], Tensor]
"""Gives an operator parameter, whole, by name; called on all ranks in the same order."""


def gathered_operator(growth: Growth, shards: Shards, world: World) -> OperatorValues:
    """The values of a learned operator that lies in partitions: each call gathers one."""
    shapes = {parameter.name: parameter.shape for parameter in growth.operator_parameters}
    return lambda name: gather_matrix(shards[name], shapes[name], world)


def initial_operator(growth: Growth, method: Method, seed: int, world: World) -> OperatorValues:
    """The values a method starts from, made on each rank alike: for a method that is applied as it is."""
    parameters = {parameter.name: parameter for parameter in growth.operator_parameters}
    return lambda name: initial_value(growth, method, parameters[name], seed).to(world.device)


def initial_operator_shards(
    growth: Growth, method: Method, seed: int, world: World
) -> Iterator[tuple[str, Tensor]]:
    """This rank's partitions of the operator's start, one parameter at a time."""
    for parameter in growth.operator_parameters:
        value = initial_value(growth, method, parameter, seed)
        yield parameter.name, shard_of(value, world.rank, world.size).to(world.device)


@torch.no_grad()
def grown_shards(
    growth: Growth, source: SourceShards, operator: OperatorValues, world: World
) -> Iterator[tuple[str, Tensor]]:
    """This rank's fp32 partition of each target parameter, block by block. Collective: all ranks iterate together.

    Yields:
        (name, elements of the partition that exist; padding is left to the taker).
    """
    shared: dict[str, Tensor] = {}
    for layer, group in groupby(growth.target_parameters, key=lambda spec: spec.layer):
        specs = list(group)
        mixed = {}
        if layer is not None:
            mixed = source.mixed_layer(operator(growth.depth_name(layer)), torch.float32, world)
        matrices: dict[str, Tensor] = {}
        for spec in specs:
            for name in sorted(growth.matrices_of(spec)):
                is_of_layer = name.startswith("layers.")
                kept = matrices if is_of_layer else shared
                if name not in kept:
                    kept[name] = operator(name)
            small = mixed.pop(spec.role) if mixed else source.outside_tensor(spec.name, torch.float32, world)
            start, stop = partition_range(spec.numel, world.rank, world.size)
            maps = growth.dim_maps(spec, {**shared, **matrices})
            yield spec.name, expand_flat_range(small, maps, start, stop)
