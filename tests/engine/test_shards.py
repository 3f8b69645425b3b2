"""Who owns what of a flat parameter."""

from __future__ import annotations

import pytest
import torch

from ligo_dist.engine import overlaps, padded, partition_range, partition_size, shard_of

NUMELS = [1, 2, 3, 7, 12, 13, 100]
WORLDS = [1, 2, 3, 4, 5, 8]


@pytest.mark.parametrize("numel", NUMELS)
@pytest.mark.parametrize("world_size", WORLDS)
def test_partitions_cover_a_parameter_once_in_order(numel: int, world_size: int):
    ranges = [partition_range(numel, rank, world_size) for rank in range(world_size)]
    owned = [element for start, stop in ranges for element in range(start, stop)]
    assert owned == list(range(numel))
    assert all(stop - start <= partition_size(numel, world_size) for start, stop in ranges)


def test_a_case_by_hand():
    assert partition_size(7, 3) == 3
    assert [partition_range(7, rank, 3) for rank in range(3)] == [(0, 3), (3, 6), (6, 7)]
    # Fewer elements than ranks would need: the trailing ranks own nothing.
    assert [partition_range(2, rank, 4) for rank in range(4)] == [(0, 1), (1, 2), (2, 2), (2, 2)]
    assert [partition_range(9, rank, 4) for rank in range(4)] == [(0, 3), (3, 6), (6, 9), (9, 9)]


def test_shards_are_row_major_fp32_with_zero_padding():
    full = torch.arange(1, 8, dtype=torch.bfloat16)
    shards = [shard_of(full, rank, 3) for rank in range(3)]
    assert [shard.tolist() for shard in shards] == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert all(shard.dtype == torch.float32 for shard in shards)
    assert shard_of(torch.arange(6).view(2, 3), 1, 2).tolist() == [3, 4, 5]
    assert shard_of(torch.ones(2), 3, 4).tolist() == [0]


def test_padded_copies():
    values = torch.ones(2)
    result = padded(values, 3)
    result[0] = 5
    assert result.tolist() == [5, 1, 0]
    assert values.tolist() == [1, 1]


@pytest.mark.parametrize("numel", NUMELS)
@pytest.mark.parametrize("old_world", WORLDS)
@pytest.mark.parametrize("new_world", [1, 2, 3, 5])
def test_cutting_anew_gives_what_cutting_gives(numel: int, old_world: int, new_world: int):
    full = torch.arange(1, numel + 1).float()
    old = [shard_of(full, rank, old_world) for rank in range(old_world)]
    for rank in range(new_world):
        shard = torch.zeros(partition_size(numel, new_world))
        for old_rank, there, here in overlaps(numel, old_world, rank, new_world):
            shard[here] = old[old_rank][there]
        assert torch.equal(shard, shard_of(full, rank, new_world))
