from __future__ import annotations

import math

import pytest

from ligo_dist.runtime import quantities


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1.00K"),
        (1000, "1.00K"),
        (9994, "9.99K"),
        (9996, "10.0K"),
        (99_949, "99.9K"),
        (99_951, "100K"),
        (999_499, "999K"),
        (999_500, "1.00M"),
        (1_234_567, "1.23M"),
        (7e9, "7.00B"),
        (3e16, "30000T"),
        (math.nan, "nan"),
    ],
)
def test_count(number: float, text: str) -> None:
    assert quantities.count(number) == text


def test_flops() -> None:
    assert [quantities.flops(n) for n in (5e9, 1.234e15, 6e23)] == ["5.00G", "1.23P", "600Z"]


def test_size() -> None:
    assert [quantities.size(n) for n in (0, 950, 1000, 1.23e10)] == ["0 B", "950 B", "1.00 kB", "12.3 GB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (187, "3m 07s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (86399, "23h 59m"),
        (86400, "1d 00h"),
        (math.inf, "?"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


def test_percent() -> None:
    assert [quantities.percent(x) for x in (0, 0.93149, 1, None)] == ["0.0 %", "93.1 %", "100.0 %", "-"]


def test_loss() -> None:
    assert [quantities.loss(x) for x in (2.34567, None, math.nan)] == ["2.346", "-", "nan"]
