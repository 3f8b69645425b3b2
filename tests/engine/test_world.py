"""Random numbers of one purpose are not those of another."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ligo_dist.engine import seed_everything


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])


def test_other_parts_draw_other_numbers():
    """A run's first weights, fresh layers by stage, dropout by step and rank; seeds and stages that have one sum."""
    of = [
        (0,),
        (0, 0),
        (0, 0, 0),
        (0, 1),
        (0, 1, 0),
        (1,),
        (1, 0),
        (1, 0, 0),
        (0, 2),
        (2,),
        (2, 0),
        (-1,),
        (-1, 0),
    ]
    drawn = {}
    for parts in of:
        seed_everything(*parts)
        numbers = (torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)])
        seed_everything(*parts)
        assert torch.rand(3).tolist() == numbers[0], parts
        drawn[parts] = numbers
    for kind in range(3):
        assert len({tuple(numbers[kind]) for numbers in drawn.values()}) == len(of)
