"""Where a curve meets a loss, and how numbers scatter."""

from __future__ import annotations

from ligo_dist.report.compare import Spread, cost_to_reach, falling, spread


def test_falling_is_the_nearest_sequence_that_never_rises() -> None:
    assert falling([5, 4, 3]) == [5, 4, 3]
    assert falling([5, 3, 4, 2]) == [5, 3.5, 3.5, 2]
    assert falling([1, 2, 3]) == [2, 2, 2]
    assert falling([4, 1, 3, 5, 2]) == [4, 3, 3, 3, 2]


def test_the_cost_of_a_loss_lies_between_the_points() -> None:
    costs, losses = (10, 20, 30), (5.0, 4.0, 3.0)
    assert cost_to_reach(costs, losses, 4.5) == 15
    assert cost_to_reach(costs, losses, 3.0) == 30
    assert cost_to_reach(costs, losses, 6.0) == 10
    assert cost_to_reach(costs, losses, 2.9) is None


def test_one_lucky_evaluation_reaches_nothing() -> None:
    costs, losses = (10, 20, 30, 40), (5.0, 3.0, 4.0, 2.5)
    assert cost_to_reach(costs, losses, 3.5) == 20
    assert cost_to_reach(costs, losses, 3.0) == 35


def test_spread_is_the_mean_and_half_the_range() -> None:
    assert spread([1.0, None, 4.0, 1.0]) == Spread(2.0, 1.5, count=3)
    assert spread([None, float("nan")]) is None
