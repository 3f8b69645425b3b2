"""How a batch is split over ranks: against the rules it follows, and cases worked out by hand."""

from __future__ import annotations

from itertools import count, product

import pytest

from ligo_dist.schedule import BatchSplit

MICRO_BATCHES = [1, 2, 3, 8, 64]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 16])
def test_every_sample_has_one_rank_and_every_rank_the_same_work(world_size: int):
    for batch_size, micro_batch_size in product(range(world_size, 70), MICRO_BATCHES):
        split = BatchSplit(batch_size, micro_batch_size, world_size)
        parts = [split.part(rank) for rank in range(world_size)]
        assert [sample for part in parts for sample in part] == list(range(batch_size))
        lengths = {len(part) for part in parts}
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) > 0
        assert split.micro_steps == next(
            steps for steps in count(1) if steps * micro_batch_size * world_size >= batch_size
        )
        assert split.rows <= micro_batch_size
        room = split.rows * split.micro_steps
        assert room >= max(lengths)
        assert (split.rows - 1) * split.micro_steps < max(lengths), "no row more than is needed"
        assert split.padding == pytest.approx((room * world_size - batch_size) / (room * world_size))


@pytest.mark.parametrize(
    ("micro_batch_size", "steps", "world_size"), [*product(MICRO_BATCHES, [1, 3], [1, 4, 6])]
)
def test_a_batch_that_divides_has_no_padding(micro_batch_size: int, steps: int, world_size: int):
    split = BatchSplit(micro_batch_size * steps * world_size, micro_batch_size, world_size)
    assert (split.rows, split.micro_steps, split.padding) == (micro_batch_size, steps, 0.0)
    assert {len(split.part(rank)) for rank in range(world_size)} == {micro_batch_size * steps}


def test_by_hand():
    seven = BatchSplit(7, 2, 3)
    assert (seven.micro_steps, seven.rows, seven.padding) == (2, 2, pytest.approx(5 / 12))
    assert [seven.part(rank) for rank in range(3)] == [range(3), range(3, 5), range(5, 7)]
    # One of eight ranks is lost: two micro-batches of 37 instead of one of 64, not of two of 64.
    lost = BatchSplit(512, 64, 7)
    assert (lost.micro_steps, lost.rows, lost.padding) == (2, 37, pytest.approx(6 / 518))
