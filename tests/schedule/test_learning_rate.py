"""Learning rates at the step before, at and after each boundary."""

from __future__ import annotations

import math

import pytest

from ligo_dist.schedule import LearningRate


def rate(kind: str, steps: int = 100, warmup: int = 10, decay: int = 0, final: float = 0.1) -> LearningRate:
    return LearningRate(kind, 2.0, steps, warmup, decay, final)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear", "wsd"])
def test_warm_up_rises_from_its_first_part_to_the_peak(kind: str):
    course = rate(kind, decay=20)
    assert course(0) == pytest.approx(0.2)
    assert course(8) == pytest.approx(1.8)
    assert course(9) == pytest.approx(2.0)
    assert course(10) <= 2.0
    assert all(course(step) < course(step + 1) for step in range(9))


def test_constant_stays():
    assert [rate("constant")(step) for step in (9, 10, 11, 98, 99)] == [2.0] * 5
    assert rate("constant", warmup=0)(0) == 2.0


def test_linear_falls_evenly_and_ends_at_the_final_ratio():
    course = rate("linear")
    assert course(10) == pytest.approx(2.0 - 1.8 / 90)
    assert course(11) == pytest.approx(2.0 - 3.6 / 90)
    assert course(98) == pytest.approx(0.2 + 1.8 / 90)
    assert course(99) == pytest.approx(0.2)


def test_cosine_is_half_a_period():
    course = rate("cosine")
    assert course(10) == pytest.approx(2.0 - 1.8 * (1 - math.cos(math.pi / 90)) / 2)
    assert course(54) == pytest.approx(1.1)  # half way between peak and end
    assert course(98) == pytest.approx(0.2 + 1.8 * (1 - math.cos(math.pi / 90)) / 2)
    assert course(99) == pytest.approx(0.2)
    assert all(course(step) > course(step + 1) for step in range(9, 99))


def test_wsd_stays_until_the_decay_begins():
    course = rate("wsd", decay=20, final=0.0)
    assert [course(step) for step in (9, 10, 11, 78, 79)] == [2.0] * 5
    assert course(80) == pytest.approx(2.0 * 19 / 20)
    assert course(81) == pytest.approx(2.0 * 18 / 20)
    assert course(98) == pytest.approx(2.0 / 20)
    assert course(99) == pytest.approx(0.0)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_without_warm_up_the_fall_begins_at_once(kind: str):
    course = rate(kind, steps=4, warmup=0)
    assert course(0) < 2.0
    assert course(3) == pytest.approx(0.2)


def test_a_phase_that_is_all_warm_up():
    course = rate("cosine", steps=5, warmup=5)
    assert [course(step) for step in range(5)] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])


def test_one_step():
    assert rate("cosine", steps=1, warmup=0)(0) == pytest.approx(0.2)
    assert rate("wsd", steps=1, warmup=0, decay=1)(0) == pytest.approx(0.2)
