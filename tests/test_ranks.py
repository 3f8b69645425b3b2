"""The helper itself."""

from __future__ import annotations

import os
import time

import pytest
import torch
import torch.distributed as dist

from ligo_dist.engine import World, gather_objects, sum_over_ranks
from ranks import RanksError, run_ranks


def _sum(world: World, base: int) -> tuple[int, int, float]:
    return world.rank, os.getpid(), sum_over_ranks([base + world.rank], world)[0]


def _second_fails(world: World) -> None:
    if world.rank == 1:
        raise KeyError("a broken shard")
    gather_objects(0, world)


def _first_never_ends(world: World) -> None:
    time.sleep(600 if world.rank == 0 else 0)


def _second_dies(world: World) -> None:
    if world.rank == 1:
        os._exit(7)


def _group_facts(world: World) -> tuple[str, int, int]:
    return dist.get_backend(), dist.get_world_size(), torch.get_num_threads()


@pytest.mark.parametrize("world_size", [1, 3, 2])
def test_results_come_in_the_order_of_the_ranks(world_size: int):
    results = run_ranks(_sum, world_size, 10)
    assert [rank for rank, _, _ in results] == list(range(world_size))
    assert {total for _, _, total in results} == {10 * world_size + world_size * (world_size - 1) / 2}


def test_the_workers_stay_between_calls():
    first, second = run_ranks(_sum, 2, 0), run_ranks(_sum, 2, 0)
    assert [pid for _, pid, _ in first] == [pid for _, pid, _ in second]
    assert run_ranks(_group_facts, 2) == [("gloo", 2, 1)] * 2


def test_a_failing_rank_is_named_with_its_traceback():
    with pytest.raises(RanksError) as caught:
        run_ranks(_second_fails, 2, timeout=60)
    text = str(caught.value)
    assert "_second_fails on 2 ranks" in text
    assert "[rank 1] KeyError: 'a broken shard'" in text
    assert "in _second_fails" in text
    assert len(run_ranks(_sum, 2, 0)) == 2


@pytest.mark.slow
def test_ranks_that_do_not_end_are_killed_and_new_ones_take_over():
    with pytest.raises(RanksError, match=r"\[rank 0\] did not end within 2 s") as caught:
        run_ranks(_first_never_ends, 2, timeout=2)
    assert "in _first_never_ends" in str(caught.value)
    with pytest.raises(RanksError, match=r"\[rank 1\] the process died"):
        run_ranks(_second_dies, 2)
    assert len(run_ranks(_sum, 2, 0)) == 2
