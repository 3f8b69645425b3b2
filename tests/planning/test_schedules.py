"""Schedules to choose from: which there are, and what each is expected to cost and come to, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ligo_dist.planning import (
    Carry,
    Law,
    Laws,
    Model,
    Schedule,
    all_schedules,
    best_schedules,
    expected,
    laws_from_values,
    laws_to_values,
    reaching,
    saved,
    stacking_rule,
)
from ligo_dist.runtime.errors import LigoError

LAW = Law(e=1.0, a=8.0, alpha=0.5, b=100.0, beta=0.5)
SMALL, LARGE = Model(1, 8, 4, 10.0), Model(4, 8, 16, 40.0)
"""Floors of 5 and of 3."""
SCHEDULE = Schedule((SMALL, LARGE), (0.5,), "stack", tokens=20_000)
"""10,000 tokens each: to a loss of 6, then between 3 + 100 / sqrt(20,000) and 3 + 100 / sqrt(33.3^2 + 10,000)."""
BETTER, WORSE = 3 + 100 / math.sqrt(20_000), 3 + 100 / math.sqrt((100 / 3) ** 2 + 10_000)


def test_what_a_schedule_costs_and_comes_to():
    assert SCHEDULE.flops == 10_000 * 10 + 10_000 * 40
    assert SCHEDULE.stages == [(4, 10_000), (16, 10_000)]
    assert SCHEDULE.losses(LAW, Carry()) == pytest.approx((BETTER, WORSE))
    # Scratch takes 20,000 tokens to the better one: 800,000 FLOPs.
    assert saved(SCHEDULE, LAW, BETTER) == pytest.approx(1 - 500 / 800)
    assert saved(SCHEDULE, LAW, 3.0) == 1
    interval = expected(SCHEDULE, Laws("", LAW))
    assert interval.losses == pytest.approx((BETTER, WORSE))
    assert interval.saved == pytest.approx((saved(SCHEDULE, LAW, WORSE), 1 - 500 / 800))


def test_what_laws_missed_widens_the_interval():
    sure = expected(SCHEDULE, Laws("", LAW))
    missed = expected(SCHEDULE, Laws("", LAW, ways={"stack": Carry(tokens_miss=0.02, loss_miss=0.03)}))
    assert missed.losses == pytest.approx((sure.losses[0] - 0.02, sure.losses[1] + 0.02))
    draws = [replace(LAW, b=b) for b in (80.0, 100.0, 120.0)]
    drawn = expected(SCHEDULE, Laws("", LAW, draws))
    assert drawn.saved[0] < sure.saved[0]
    assert drawn.saved[1] == pytest.approx(sure.saved[1]), "all tokens count whatever b is"
    assert missed.saved[0] < sure.saved[0] < sure.saved[1] < missed.saved[1]


def test_every_chain_and_every_choice_of_points():
    wide, deep = Model(1, 16, 8, 20.0), Model(2, 8, 7, 18.0)
    found = list(all_schedules([wide, SMALL, deep], Model(4, 16, 32, 80.0), ["stack", "damped"]))
    chains = {tuple((m.layers, m.width) for m in s.models[:-1]) for s in found}
    assert chains == {((1, 8),), ((2, 8),), ((1, 16),), ((1, 8), (2, 8)), ((1, 8), (1, 16))}
    assert len(found) == 2 * (3 * 7 + 2 * 21)
    assert all(list(s.points) == sorted(set(s.points)) for s in found)


def test_the_best_for_what_is_given():
    found = [replace(SCHEDULE, points=(point,)) for point in (0.3, 0.5, 0.7, 0.9)]
    laws = Laws("", LAW)
    by_tokens = best_schedules(found, laws, tokens=20_000, count=4)
    rates = [saved(e.schedule, LAW, e.losses[1]) for e in by_tokens]
    assert rates == sorted(rates, reverse=True)
    by_flops = best_schedules(found, laws, flops=500_000, count=2)
    assert len(by_flops) == 2
    assert all(e.schedule.flops == pytest.approx(500_000) for e in by_flops)
    assert by_flops[0].losses[1] <= by_flops[1].losses[1]
    by_loss = best_schedules(found, laws, loss=4.0)
    assert all(e.losses[1] == pytest.approx(4.0) for e in by_loss)
    assert [e.schedule.flops for e in by_loss] == sorted(e.schedule.flops for e in by_loss)
    assert best_schedules(found, laws, loss=2.9) == []


def test_the_tokens_that_a_loss_takes():
    sized = reaching(replace(SCHEDULE, tokens=1.0), LAW, Carry(), WORSE)
    assert sized is not None
    assert sized.tokens == pytest.approx(20_000)
    assert reaching(SCHEDULE, LAW, Carry(), 3.0) is None


def test_the_rule_of_g_stack():
    """8 B parameters and 15 T tokens: 6.6 B tokens (arXiv 2405.15319)."""
    assert stacking_rule(8e9, 6 * 8e9 * 15e12) == pytest.approx(6.58e9, rel=2e-3)


def test_laws_in_a_file():
    laws = Laws("here", LAW, [LAW, replace(LAW, e=2.0)], 0.01, {"stack": Carry(0.5, 0.1, 0.02, 0.03)})
    values = laws_to_values(laws)
    assert laws_from_values(values) == laws
    wrong = [{"best": {"e": 1}}, {"ways": {"stack": {"tokens": "x"}}}, {"more": 1}]
    for broken in ({}, *({**values, **each} for each in wrong)):
        with pytest.raises(LigoError, match="no law as `ligo-dist plan --fit` writes one"):
            laws_from_values(broken)
