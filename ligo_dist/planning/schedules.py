"""Which schedule to grow by: all that there are between some sources and a target, with what each costs and comes to.

What is expected is an interval between two laws (`law`): that the tokens of sources count, and that their loss counts;
beyond the lengths that a way to grow is known from, also that no more of them count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import quantiles

from ligo_dist.planning.law import Carry, Law, Laws, final_losses

POINTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Parts of all tokens at which a schedule may grow."""
MOST_SOURCES = 3


@dataclass(frozen=True)
class Model:
    """A model of a schedule.

    Attributes:
        layers, width: its size.
        parameters: of it.
        flops: of one training token.
    """

    layers: int
    width: int
    parameters: int
    flops: float

    def grows_into(self, other: Model) -> bool:
        return (
            self.layers <= other.layers
            and self.width <= other.width
            and (self.layers, self.width) != (other.layers, other.width)
        )


@dataclass(frozen=True)
class Schedule:
    """Models in their order, the part of all tokens at which each but the last ends, and the way of all growths."""

    models: tuple[Model, ...]
    points: tuple[float, ...]
    way: str
    tokens: float = 1.0

    @property
    def target(self) -> Model:
        return self.models[-1]

    @property
    def stages(self) -> list[tuple[float, float]]:
        """(parameters, tokens) of each model."""
        parts = (after - before for before, after in pairwise((0.0, *self.points, 1.0)))
        return [(m.parameters, part * self.tokens) for m, part in zip(self.models, parts, strict=True)]

    @property
    def flops(self) -> float:
        """Of all training; growing itself is less than a step."""
        pairs = zip(self.models, self.stages, strict=True)
        return sum(model.flops * tokens for model, (_, tokens) in pairs)

    def losses(self, law: Law, carry: Carry) -> tuple[float, float]:
        """The lower and the higher of what may be expected at the end."""
        return final_losses(law, self.stages, carry)


@dataclass(frozen=True)
class Expected:
    """What is expected of a schedule.

    Attributes:
        schedule: with its tokens.
        losses: lower and upper end of the final loss, by the two laws and what they missed.
        saved: lower and upper end of the part of scratch's cost of that loss, by the same and the law's own draws.
    """

    schedule: Schedule
    losses: tuple[float, float]
    saved: tuple[float, float]


def all_schedules(sources: Sequence[Model], target: Model, ways: Sequence[str]) -> Iterator[Schedule]:
    """Every chain of up to three sources, each growing into the next, at every choice of points."""
    sources = sorted(sources, key=lambda model: (model.parameters, model.layers))
    for number in range(1, MOST_SOURCES + 1):
        for chosen in combinations(sources, number):
            models = (*chosen, target)
            if all(before.grows_into(after) for before, after in pairwise(models)):
                for points in combinations(POINTS, number):
                    yield from (Schedule(models, points, way) for way in ways)


def best_schedules(
    schedules: Sequence[Schedule],
    laws: Laws,
    *,
    tokens: float | None = None,
    flops: float | None = None,
    loss: float | None = None,
    count: int = 5,
) -> list[Expected]:
    """The best few, by the end of the interval that is worse, so that a schedule is not chosen for what is hoped of it.

    Args:
        schedules: to choose from.
        laws: what is known.
        tokens: to be read in all: the largest saving is best.
        flops: to be spent in all: the lowest loss is best.
        loss: to be reached: the fewest FLOPs are best.
        count: how many.
    """
    assert sum(value is not None for value in (tokens, flops, loss)) == 1, "one of three things is given"
    rated: list[tuple[float, Schedule]] = []
    for schedule in schedules:
        carry = laws.ways.get(schedule.way, Carry())
        if tokens is not None:
            sized = replace(schedule, tokens=tokens)
            rated.append((-saved(sized, laws.best, sized.losses(laws.best, carry)[1] + carry.spread), sized))
        elif flops is not None:
            sized = replace(schedule, tokens=schedule.tokens * flops / schedule.flops)
            rated.append((sized.losses(laws.best, carry)[1] + carry.spread, sized))
        elif loss is not None and (found := reaching(schedule, laws.best, carry, loss)) is not None:
            rated.append((found.flops, found))
    rated.sort(key=lambda pair: pair[0])
    return [expected(schedule, laws) for _, schedule in rated[:count]]


def expected(schedule: Schedule, laws: Laws) -> Expected:
    """What is expected of a schedule whose tokens are known."""
    carry = laws.ways.get(schedule.way, Carry())
    low, high = schedule.losses(laws.best, carry)
    ends: list[tuple[float, float]] = []
    for law in (laws.best, *laws.draws):
        below, above = schedule.losses(law, carry)
        ends.append((saved(schedule, law, above + carry.spread), saved(schedule, law, below - carry.spread)))
    worse, better = ([pair[side] for pair in ends] for side in (0, 1))
    if len(ends) > 2:
        worst, best = (
            quantiles(worse, n=20, method="inclusive")[0],
            quantiles(better, n=20, method="inclusive")[-1],
        )
    else:
        worst, best = min(worse), max(better)
    return Expected(schedule, (low - carry.spread, high + carry.spread), (worst, best))


def saved(schedule: Schedule, law: Law, loss: float) -> float:
    """1 - cost / what scratch takes to that loss; 1 where scratch never comes to it."""
    target = schedule.target
    return 1 - schedule.flops / (law.tokens(target.parameters, loss) * target.flops)


def reaching(schedule: Schedule, law: Law, carry: Carry, loss: float) -> Schedule | None:
    """A schedule with the tokens it takes to a loss by the law that expects the higher one; None if none do."""

    def missed(logarithm: float) -> float:
        sized = replace(schedule, tokens=math.exp(logarithm))
        return sized.losses(law, carry)[1] + carry.spread - loss

    low, high = 0.0, math.log(1e18)
    if missed(high) > 0:
        return None
    for _ in range(60):  # to a part of 1e-16 of the range
        middle = (low + high) / 2
        low, high = (middle, high) if missed(middle) > 0 else (low, middle)
    return replace(schedule, tokens=math.exp(high))


def stacking_rule(parameters: float, flops: float) -> float:
    """Tokens after which G_stack grows a model of a quarter of the depth (arXiv 2405.15319, for models like Llama):
    log10 d = 0.88 log10 N + 163.27 / log10 C - 5.74.

    Args:
        parameters: N, of the target.
        flops: C, that the target's training is to take.
    """
    return 10 ** (0.88 * math.log10(parameters) + 163.27 / math.log10(flops) - 5.74)
