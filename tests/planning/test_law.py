"""Laws of the loss: against cases computed by hand, and fitted to points of a law that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ligo_dist.planning import (
    PUBLISHED,
    Carry,
    GrownPoint,
    Law,
    Point,
    final_losses,
    fit_carry,
    fit_law,
    loss_counts,
    tokens_count,
)
from ligo_dist.runtime.errors import LigoError

SQUARE = Law(e=1.0, a=8.0, alpha=0.5, b=100.0, beta=0.5)
"""Of 16 parameters after 10,000 tokens 1 + 8 / 4 + 100 / 100 = 4."""


def test_a_loss_and_back():
    assert SQUARE.loss(16, 10_000) == 4
    assert SQUARE.floor(16) == 3
    assert SQUARE.tokens(16, 4) == pytest.approx(10_000)
    assert SQUARE.tokens(16, 3) == SQUARE.tokens(16, 2) == math.inf
    assert (SQUARE.loss(16, 0), SQUARE.tokens(16, math.inf)) == (math.inf, 0)


def test_chinchilla_as_it_is_published():
    """70 B parameters and 1.4 T tokens: 1.69 + 0.083 + 0.163, by hand."""
    assert PUBLISHED["hoffmann"].best.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)


def test_both_laws_by_hand():
    """4 parameters for 10,000 tokens: 1 + 4 + 1 = 6. Then 16 of them, for 10,000 more."""
    stages = [(4, 10_000), (16, 10_000)]
    assert tokens_count(SQUARE, stages, Carry(tokens=1)) == pytest.approx(3 + 100 / math.sqrt(20_000))
    assert tokens_count(SQUARE, stages, Carry(tokens=0)) == 4
    # A loss of 6 is that of 16 parameters after (100 / 3)^2 tokens; of 7, with one lost, after (100 / 4)^2.
    assert loss_counts(SQUARE, stages, Carry()) == pytest.approx(3 + 100 / math.sqrt((100 / 3) ** 2 + 10_000))
    assert loss_counts(SQUARE, stages, Carry(loss=1)) == pytest.approx(3 + 100 / math.sqrt(25**2 + 10_000))
    assert loss_counts(SQUARE, stages[1:], Carry()) == tokens_count(SQUARE, stages[1:], Carry()) == 4


@pytest.mark.parametrize("sizes", [(16,), (4, 16, 64)])
def test_points_of_a_law_give_it_back(sizes: tuple[int, ...]):
    points = [Point(n, d, SQUARE.loss(n, d)) for n in sizes for d in (100, 300, 1_000, 10_000, 30_000)]
    laws = fit_law(points, "points", draws=3)
    assert laws.spread < 1e-4
    for law in (laws.best, *laws.draws):
        for n in sizes:
            assert law.loss(n, 100_000) == pytest.approx(SQUARE.loss(n, 100_000), rel=2e-3)
            assert law.tokens(n, SQUARE.loss(n, 20_000)) == pytest.approx(20_000, rel=2e-2)


def test_draws_show_how_uncertain_a_law_is():
    random = np.random.default_rng(0)
    points = [
        Point(16, d, SQUARE.loss(16, d) * (1 + 0.01 * random.standard_normal()))
        for d in (1_000, 3_000, 10_000, 30_000)
        for _ in range(3)
    ]
    laws = fit_law(points, "points", draws=30)
    losses = sorted(law.loss(16, 20_000) for law in laws.draws)
    assert losses[0] < SQUARE.loss(16, 20_000) < losses[-1]
    assert 0.005 < losses[-1] - losses[0] < 0.3
    assert laws.draws == fit_law(points, "points", draws=30).draws


def test_what_a_way_carries_over_is_found_again():
    stages = [[(4, d), (16, d / 4)] for d in (1_000, 4_000, 20_000)]
    by_tokens = [GrownPoint(s, "stack", tokens_count(SQUARE, s, Carry(tokens=0.4))) for s in stages]
    found = fit_carry(SQUARE, by_tokens)
    assert found.tokens == pytest.approx(0.4, abs=1e-3)
    assert found.longest == 20_000
    # Twice as long: perhaps none of the second half counts.
    low, high = final_losses(SQUARE, [(4, 40_000), (16, 5_000)], found)
    assert low == pytest.approx(SQUARE.loss(16, 5_000 + 0.4 * 40_000), abs=1e-3)
    assert high >= SQUARE.loss(16, 5_000 + 0.4 * 20_000) - 1e-3
    assert found.spread == found.tokens_miss < 1e-3 < found.loss_miss
    by_loss = [GrownPoint(s, "stack", loss_counts(SQUARE, s, Carry(loss=0.3))) for s in stages]
    found = fit_carry(SQUARE, by_loss)
    assert found.loss == pytest.approx(0.3, abs=1e-3)
    assert found.spread == found.loss_miss < 1e-3 < found.tokens_miss


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([Point(16, d, 4.0) for d in (1, 2, 1, 2)], "at least 3 lengths, and these are of 2"),
        ([Point(n, d, 4.0) for n in (4, 16) for d in (1, 2, 3)], "at least 3, and these are of 2"),
    ],
)
def test_too_few_points_are_refused(points: list[Point], words: str):
    with pytest.raises(LigoError, match=words):
        fit_law(points, "points")
