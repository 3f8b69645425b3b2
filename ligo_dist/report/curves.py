"""Curves of loss against cost: where they meet a loss, and how numbers scatter over seeds. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean


def falling(losses: Sequence[float]) -> list[float]:
    """The non-increasing sequence nearest to the losses in the mean square: evaluations scatter, and a curve that dips
    once has not reached what it dips below.

    Pool-adjacent-violators (Ayer et al. 1955): neighbours in the wrong order are replaced by their mean.
    """
    pools: list[tuple[float, int]] = []
    for loss in losses:
        pools.append((loss, 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (mean, count), (last, last_count) = pools[-2], pools.pop()
            total = count + last_count
            pools[-1] = ((mean * count + last * last_count) / total, total)
    return [mean for mean, count in pools for _ in range(count)]


def cost_to_reach(costs: Sequence[float], losses: Sequence[float], loss: float) -> float | None:
    """The cost at which the falling curve through the points meets a loss, linear between points; None if it stays
    above.

    A curve that begins below it has reached it with its first point's cost.
    """
    curve = falling(losses)
    for index, (cost, value) in enumerate(zip(costs, curve, strict=True)):
        if value <= loss:
            if index == 0:
                return cost
            before, above = costs[index - 1], curve[index - 1]
            return before + (above - loss) / (above - value) * (cost - before)
    return None


@dataclass(frozen=True)
class Spread:
    """A quantity over the seeds.

    Attributes:
        mean: over the seeds that have it.
        half_range: half of the distance between the largest and the smallest.
        bound: whether one of them is an upper bound only.
        count: how many seeds have it.
    """

    mean: float
    half_range: float
    bound: bool = False
    count: int = 1


def spread(values: Iterable[float | None], *, bound: bool = False) -> Spread | None:
    """Mean and half range of the values that are there; None if there are none."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(fmean(known), (max(known) - min(known)) / 2, bound, len(known))
