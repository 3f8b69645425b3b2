"""The same maths as `algebra` on ZeRO-3 partitions.

Depth mixing commutes with sharding: all layers of a role have the same shape, hence the same partition bounds, so a
rank mixes its own partitions and only the mixed small layer travels: one all-gather per target block, and for the
gradients its mirror, one reduce-scatter.

Shape suffixes: R roles of a block, K source layers, S elements of a rank's partitions of all roles, N ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ligo_dist.architectures import Selection, every_parameter
from ligo_dist.engine import (
    Shards,
    World,
    all_gather,
    padded,
    partition_range,
    partition_size,
    partitioned,
    reduce_scatter_mean,
    unpadded,
)
from ligo_dist.growth.algebra import mix_depth
from ligo_dist.growth.operators import Growth


@dataclass(frozen=True)
class SourceShards:
    """This rank's partitions of the frozen source model.

    Attributes:
        roles: those roles of a block that are there, in the order of the operator's depth coefficients.
        stacks: for each role the partitions of all columns (source layers, fresh layers, unit layer),
            [K, partition size].
        outside: partitions of the parameters outside the blocks, by name.
        shapes: shape of each role's or parameter's whole tensor.
        layers: the source's own layers, which come first in a stack.
    """

    roles: list[str]
    stacks: dict[str, Tensor]
    outside: Shards
    shapes: dict[str, tuple[int, ...]]
    layers: int

    @classmethod
    def build(
        cls,
        growth: Growth,
        shards: Shards,
        world: World,
        fresh: Shards | None = None,
        *,
        zero_extras: bool = False,
        selection: Selection = every_parameter,
    ) -> SourceShards:
        """Stack a source model's partitions by role; they are taken out of `shards`, so that none is held twice.

        Args:
            growth: the pair of models.
            shards: this rank's partitions of the source.
            world: the ranks.
            fresh: partitions of a model of `growth.fresh_layers` layers, where the growth has those.
            zero_extras: fresh layers and unit layer are zero: for moments, which they have none of.
            selection: the parameters that there are partitions of.
        """
        shapes = {role: spec.shape for role, spec in growth.source_by_role.items() if selection(spec)}
        roles = [role for role in growth.layer_roles if role in shapes]
        # Where the optimizer is offloaded the source lies in the processors' memory; what is added lies with it.
        device = next(iter(shards.values())).device
        stacks = {}
        for role in roles:
            columns = [shards.pop(role.format(layer=layer)) for layer in range(growth.source.layers)]
            extras = [0.0] * growth.fresh_layers if zero_extras else []
            if growth.fresh_layers and not zero_extras:
                assert fresh is not None
                columns += [fresh[role.format(layer=n)].to(device) for n in range(growth.fresh_layers)]
            if growth.unit_layer:
                extras.append(0.0 if zero_extras else growth.unit_value(role))
            columns += [_filled(math.prod(shapes[role]), value, world, device) for value in extras]
            stacks[role] = torch.stack(columns)
        outside = {role: shards.pop(role) for role in shapes if role not in stacks}
        assert not shards, f"source parameters without a role: {sorted(shards)}"
        return cls(roles, stacks, outside, shapes, growth.source.layers)

    def mixed_layer(self, depth_RK: Tensor, dtype: torch.dtype, world: World) -> dict[str, Tensor]:
        """One target layer's mixed source tensors by role, whole, on every rank; differentiable in `depth_RK`, a row
        for each of `roles`."""
        stacks = [self.stacks[role] for role in self.roles]
        shapes = [self.shapes[role] for role in self.roles]
        return dict(zip(self.roles, _MixAndGather.apply(depth_RK, stacks, shapes, dtype, world), strict=True))

    def outside_tensor(self, name: str, dtype: torch.dtype, world: World) -> Tensor:
        """A source parameter outside the blocks, whole, on every rank."""
        gathered_NS = all_gather(self.outside[name].to(dtype), world)
        return unpadded(gathered_NS, self.shapes[name])

    def unstacked(self) -> Shards:
        """The source's own partitions by parameter name again (views of the stacks)."""
        layers = {
            role.format(layer=layer): shard
            for role, stack in self.stacks.items()
            for layer, shard in enumerate(stack[: self.layers])
        }
        return {**self.outside, **layers}


class _MixAndGather(torch.autograd.Function):
    """Mix own partitions, all-gather the result; backward: reduce-scatter, dot with own partitions.

    The gradient of the depth coefficients is this rank's part of it times N, because the engine that learns them
    averages gradients over the ranks: the average of the parts times N is their sum, and the small all-reduce that
    would add them up here is saved.
    """

    @staticmethod
    def forward(
        ctx: Any,
        depth_RK: Tensor,
        stacks: Sequence[Tensor],
        shapes: Sequence[tuple[int, ...]],
        dtype: torch.dtype,
        world: World,
    ) -> tuple[Tensor, ...]:
        # Where the optimizer is offloaded the partitions lie in the processors' memory, and are mixed there.
        rows_RK = depth_RK.to(stacks[0].device)
        mixed_S = torch.cat([mix_depth(row_K, stack) for row_K, stack in zip(rows_RK, stacks, strict=True)])
        gathered_NS = all_gather(mixed_S.to(dtype), world)
        ctx.stacks, ctx.world, ctx.depth = stacks, world, (depth_RK.device, depth_RK.dtype)
        sizes = [stack.shape[1] for stack in stacks]
        parts = gathered_NS.split(sizes, dim=1)
        return tuple(unpadded(part, shape) for part, shape in zip(parts, shapes, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        world: World = ctx.world
        sizes = [stack.shape[1] for stack in ctx.stacks]
        grad_NS = torch.cat([partitioned(g, s, world.size) for g, s in zip(grads, sizes, strict=True)], dim=1)
        grad_S = reduce_scatter_mean(grad_NS, world)
        parts = [stack @ grad.to(stack) for stack, grad in zip(ctx.stacks, grad_S.split(sizes), strict=True)]
        return (torch.stack(parts) * world.size).to(*ctx.depth), None, None, None, None


def _filled(numel: int, value: float, world: World, device: torch.device) -> Tensor:
    """This rank's partition of a tensor of one value, padding zero."""
    start, stop = partition_range(numel, world.rank, world.size)
    return padded(torch.full((stop - start,), value, device=device), partition_size(numel, world.size))
