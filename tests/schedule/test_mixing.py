"""The interleaving of a mixture, held against its definition: shares, counts, and what a period repeats."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

from ligo_dist.schedule import Mixing, whole_weights

_WEIGHTS = [
    (1,),
    (1, 1),
    (3, 1),
    (5, 3, 2),
    (7, 0, 2),
    (90, *[1] * 10),  # where rounding each source's count for itself is off by five
    (1, 2, 4, 8, 16, 32),
    tuple(random.Random(1).choices(range(1, 40), k=9)),
    tuple(random.Random(2).choices(range(200), k=12)),
]


@pytest.mark.parametrize("weights", _WEIGHTS, ids=str)
def test_every_source_has_its_share_at_any_point(weights: tuple[int, ...]) -> None:
    total = sum(weights)
    mixing = Mixing(weights, (0,) * len(weights))
    sources, numbers = mixing.draw(0, 2 * total + 7)
    counts = np.zeros(len(weights), dtype=int)
    for n, (source, number) in enumerate(zip(sources, numbers, strict=True)):
        assert mixing.taken(n) == tuple(counts)
        assert all(
            abs(count - Fraction(n * weight, total)) < 1
            for count, weight in zip(counts, weights, strict=True)
        )
        assert number == counts[source], "the next one of this source"
        counts[source] += 1


def test_any_part_is_drawn_without_those_before_it() -> None:
    mixing = Mixing((5, 3, 2), (100, 0, 7))
    sources, numbers = mixing.draw(0, 1000)
    for start, count in ((0, 1), (9, 1), (10, 1), (11, 33), (995, 5)):
        part = slice(start, start + count)
        for drawn, whole in zip(mixing.draw(start, count), (sources, numbers), strict=True):
            np.testing.assert_array_equal(drawn, whole[part])
    far = 10**15 + 3
    assert mixing.draw(far, 1)[0] == sources[3]
    assert sum(mixing.taken(far)) == far + 107
    assert mixing.taken(0) == (100, 0, 7)


@pytest.mark.parametrize(
    ("weights", "whole"),
    [
        ((1.0,), (1,)),
        ((0.5, 0.3, 0.2), (5, 3, 2)),
        ((0.1, 0.1, 0.1), (1, 1, 1)),
        ((30.0, 0.0, 10.0), (3, 0, 1)),
        ((1e-3, 1.0), (1, 1000)),
    ],
)
def test_weights_as_they_are_written(weights: tuple[float, ...], whole: tuple[int, ...]) -> None:
    assert whole_weights(weights) == whole


def test_weights_of_many_digits_are_rounded() -> None:
    weights = (15_623_481_234.0, 3_201_111_777.0, 301_001.0)
    whole = whole_weights(weights)
    assert sum(whole) == 1 << 16
    for number, weight in zip(whole, weights, strict=True):
        assert abs(number - weight / sum(weights) * (1 << 16)) < 1
        assert number > 0
