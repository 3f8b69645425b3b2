"""The currency of this system: a model as one flat fp32 partition per parameter and rank.

Everything that gives weights (initialisation, a Hugging Face directory, growth, a checkpoint, the engine of the stage
before) gives `Shards`; everything that takes weights takes them. The layout is ZeRO-3's: a parameter is flattened
row-major, padded to a multiple of the world size, and rank r owns elements [r * k, (r + 1) * k), k = ceil(n / N).
The padding is zero here, always.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

Shards = dict[str, Tensor]
"""Parameter name -> this rank's partition: 1-D, fp32, `partition_size` elements, padding zero."""


def partition_size(numel: int, world_size: int) -> int:
    """Elements of one rank's partition, padding included."""
    return -(-numel // world_size)


def partition_range(numel: int, rank: int, world_size: int) -> tuple[int, int]:
    """The elements [start, stop) of a parameter that a rank owns, padding excluded; empty for trailing ranks."""
    size = partition_size(numel, world_size)
    return min(rank * size, numel), min((rank + 1) * size, numel)


def shard_of(full: Tensor, rank: int, world_size: int) -> Tensor:
    """One rank's partition of a whole tensor."""
    start, stop = partition_range(full.numel(), rank, world_size)
    return padded(full.detach().reshape(-1)[start:stop], partition_size(full.numel(), world_size))


def padded(values: Tensor, size: int) -> Tensor:
    """A new fp32 tensor of `size` elements: the values, then zeros."""
    shard = torch.zeros(size, device=values.device)
    shard[: values.numel()] = values
    return shard


def overlaps(numel: int, old_world: int, rank: int, world_size: int) -> Iterable[tuple[int, slice, slice]]:
    """Where a rank's partition lies in the partitions of another world size.

    Yields:
        (old rank, slice of its partition, slice of the new partition), without padding.
    """
    start, stop = partition_range(numel, rank, world_size)
    for old_rank in range(old_world):
        old_start, old_stop = partition_range(numel, old_rank, old_world)
        first, last = max(start, old_start), min(stop, old_stop)
        if first < last:
            yield old_rank, slice(first - old_start, last - old_start), slice(first - start, last - start)


def partitioned(full: Tensor, size: int, world_size: int) -> Tensor:
    """A whole tensor as the partitions of all ranks, [N, size], padding zero."""
    flat = full.reshape(-1)
    return torch.nn.functional.pad(flat, (0, world_size * size - flat.numel())).view(world_size, size)


def unpadded(partitions: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The whole tensor that the partitions of all ranks, [N, size], make: without their padding, in its shape."""
    return partitions.reshape(-1)[: math.prod(shape)].view(shape)
