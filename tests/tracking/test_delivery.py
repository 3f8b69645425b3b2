"""Which points a store misses, held against examples worked out by hand and against counting."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ligo_dist.tracking import PARENT, Point, Record, compare, points_of


def points(*places: tuple[int, int], metric: str = "loss") -> list[Point]:
    """Points at (step, time)."""
    return [Point(metric, step, time, 0.5) for step, time in places]


def test_points_of_a_run() -> None:
    records: list[Record] = [
        {"time": "1970-01-01T00:00:01.001+00:00", "stage": "small", "phase": "train", "step": 3, "a[0]": 1.5},
        {"time": "1970-01-01T00:00:02.000+00:00", "stage": "large", "phase": "grow", "step": 3, "b": "NaN"},
    ]
    assert points_of(records, "small") == [Point("a_0_", 3, 1001, 1.5)]
    assert [(point.metric, point.time) for point in points_of(records, PARENT)] == [
        ("a_0_", 1001),
        ("b", 2000),
    ]


@pytest.mark.parametrize(
    ("wanted", "there", "missing", "spare"),
    [
        # Lost in the middle.
        (points((1, 10), (2, 20), (3, 30), (4, 40)), points((1, 10), (4, 40)), points((2, 20), (3, 30)), {}),
        # Of another metric.
        (
            points((1, 10)) + points((1, 10), metric="norm"),
            points((1, 10)),
            points((1, 10), metric="norm"),
            {},
        ),
        # Two points of one step are two.
        (points((10, 100), (10, 101)), points((10, 101)), points((10, 100)), {}),
        (points((10, 100), (10, 101)), [], points((10, 100), (10, 101)), {}),
        # Killed at 7, went on from 4, and is at 6 again: what was taken again is not missed.
        (points((5, 90), (6, 91)), points((5, 50), (6, 60), (7, 70)), [], {("loss", 7): 1}),
    ],
)
def test_what_a_store_misses(
    wanted: list[Point], there: list[Point], missing: list[Point], spare: dict[tuple[str, int], int]
) -> None:
    found, beyond = compare(wanted, there)
    assert (found, +beyond) == (missing, Counter(spare))


def test_delivering_what_is_missing_makes_the_counts_equal() -> None:
    choice = random.Random(0)
    for _ in range(300):
        wanted = [
            Point(choice.choice("ab"), step, 10 * number, 0.0)
            for number, step in enumerate(sorted(choice.randrange(6) for _ in range(12)))
        ]
        kept = [point for point in wanted if choice.random() < 0.5]
        earlier = [point._replace(time=point.time + 5) for point in wanted if point not in kept]
        there = kept + [point for point in earlier if choice.random() < 0.5]
        missing, spare = compare(wanted, there)
        counts = Counter((point.metric, point.step) for point in wanted)
        assert Counter((point.metric, point.step) for point in there + missing) == counts
        assert spare.total() == 0
        assert compare(wanted, there + missing)[0] == []
