"""Where a curve meets a loss, and how numbers scatter."""

from __future__ import annotations

import pytest

from ligo_dist.report import Cost, CurvePoint, Spread, cost_to_reach, falling, saved_percent, spread


@pytest.mark.parametrize(
    ("losses", "fitted"),
    [([5, 4, 3], [5, 4, 3]), ([5, 3, 4, 2], [5, 3.5, 3.5, 2]), ([4, 1, 3, 5, 2], [4, 3, 3, 3, 2])],
)
def test_falling_is_the_nearest_sequence_that_never_rises(losses: list[float], fitted: list[float]) -> None:
    assert falling(losses) == fitted


@pytest.mark.parametrize(
    ("losses", "loss", "cost"),
    [
        ((5.0, 4.0, 3.0), 4.5, 15),
        ((5.0, 4.0, 3.0), 3.0, 30),
        ((5.0, 4.0, 3.0), 6.0, 10),
        ((5.0, 4.0, 3.0), 2.9, None),
        ((5.0, 3.5, 3.5, 2.5), 3.5, 20),
        ((5.0, 3.5, 3.5, 2.5), 3.0, 35),
    ],
)
def test_the_cost_of_a_loss_lies_between_the_points(
    losses: tuple[float, ...], loss: float, cost: float | None
) -> None:
    """Twice as many hardware FLOPs, and seconds that are not known of one point."""
    costs = [10.0 * (index + 1) for index in range(len(losses))]
    curve = [
        CurvePoint(Cost(each, None if each == 20 else 1.0, 2 * each), value)
        for each, value in zip(costs, losses, strict=True)
    ]
    expected = None if cost is None else Cost(cost, None, 2 * cost)
    assert cost_to_reach(curve, losses, loss) == expected


def test_spread_is_the_mean_and_half_the_range_of_what_all_have() -> None:
    assert spread([1.0, 4.0, 1.0]) == Spread(2.0, 1.5, count=3)
    assert spread([1.0, None]) is None
    assert spread([]) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.523], "52 %"),
        ([-0.035], "-4 %"),
        ([0.45, 0.60], "52 ± 7 %"),
        ([0.594, 0.588], "59.1 ± 0.3 %"),
    ],
)
def test_no_more_digits_than_seeds_agree_on(values: list[float], words: str) -> None:
    saved = spread(values)
    assert saved is not None
    assert saved_percent(saved) == words
