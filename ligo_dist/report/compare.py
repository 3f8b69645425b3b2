"""Runs side by side: when a curve meets the baseline's final loss, and what was saved, by run and over the seeds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ligo_dist.report.grouping import check_comparable, make_groups
from ligo_dist.report.read import Cost, CurvePoint, Quantity, Run, amount, read_runs
from ligo_dist.runtime.errors import LigoError

Outcome = Literal["reached", "not reached", "below from its first evaluation"]


@dataclass(frozen=True)
class Spread:
    """A quantity over the seeds.

    Attributes:
        mean: over the seeds.
        half_range: half of the distance between the largest and the smallest.
        count: how many seeds there are.
    """

    mean: float
    half_range: float
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and half range of values; None unless all are known: of those runs alone that come to a loss the mean would
    be too good."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(fmean(known), (max(known) - min(known)) / 2, len(known))


@dataclass(frozen=True)
class Comparison:
    """A run held against a baseline.

    Attributes:
        baseline: the baseline's label.
        loss: the baseline's final one, to be reached.
        outcome: whether the run's curve crosses it.
        needed: to reach it, from where the target begins; None if it is not reached.
        needed_in_all: the same with the source's training; None if that is not known.
        baseline_needed: what the baseline run spent on reaching it, a source that it trained itself included.
        baseline_needed_in_all: the same with what trained the model that it began with; None if that is not known.
        best: the lowest loss the run came to.
        first: its first evaluation. The costs of both are counted from where the target begins.
    """

    baseline: str
    loss: float
    outcome: Outcome
    needed: Cost | None
    needed_in_all: Cost | None
    baseline_needed: Cost
    baseline_needed_in_all: Cost | None
    best: CurvePoint
    first: CurvePoint

    def saved(self, quantity: Quantity, *, included: bool) -> float | None:
        """The part of the baseline's cost that the run needs less of: 0.3 is 30 %; negative if it needs more. None
        unless the curves cross, and where it is not known.

        Args:
            quantity: of which cost.
            included: whether the source's training counts.
        """
        spent = amount(self.needed_in_all if included else self.needed, quantity)
        whole = amount(self.baseline_needed_in_all if included else self.baseline_needed, quantity)
        return 1 - spent / whole if spent is not None and whole else None


@dataclass(frozen=True)
class Case:
    """Runs that differ by their seed alone; often only one.

    Attributes:
        label: of the case.
        runs: of it.
        comparisons: of each of them; None for one that has no baseline.
        is_baseline: whether it is what the others are held against.
    """

    label: str
    runs: Sequence[Run]
    comparisons: Sequence[Comparison | None]
    is_baseline: bool

    @property
    def final_loss(self) -> Spread | None:
        """Validation loss at the end."""
        return spread([run.target.final_loss for run in self.runs])

    def needed(self, quantity: Quantity, *, included: bool) -> Spread | None:
        """What it took to reach the baseline's final loss, with or without the training of the source; the baseline's
        own is counted either way."""

        def cost(comparison: Comparison) -> Cost | None:
            if self.is_baseline:
                return comparison.baseline_needed_in_all if included else comparison.baseline_needed
            return comparison.needed_in_all if included else comparison.needed

        return spread([None if each is None else amount(cost(each), quantity) for each in self.comparisons])

    def saved(self, quantity: Quantity, *, included: bool) -> Spread | None:
        """Which part of what it took the baseline was saved; None for the baseline itself."""
        if self.is_baseline:
            return None
        return spread(
            [None if each is None else each.saved(quantity, included=included) for each in self.comparisons]
        )


@dataclass(frozen=True)
class Report:
    """What a report says, in numbers.

    Attributes:
        cases: in the order in which their first runs were given.
        baseline: the one of them that the others are held against; None: none was named.
    """

    cases: Sequence[Case]
    baseline: Case | None

    @property
    def runs(self) -> list[Run]:
        return [run for case in self.cases for run in case.runs]


def build_report(places: Sequence[str], baseline: str | None = None) -> Report:
    """Read runs and compare them.

    Args:
        places: run directories.
        baseline: one of them, or another one, to hold the others against.

    Raises:
        LigoError: what is named is no run, or the runs cannot be compared.
    """
    runs = read_runs([*places, *([] if baseline is None else [baseline])])
    check_comparable(runs)
    groups = make_groups(runs)
    if baseline is None:
        return Report(
            [Case(label, group, [None] * len(group), False) for label, group in groups.items()], None
        )
    identity = os.path.realpath(baseline)
    reference = next(
        group for group in groups.values() if any(os.path.realpath(run.place) == identity for run in group)
    )
    _check_finished(reference)
    cases = [
        Case(
            label, group, [compare(run, _same_seed(reference, run.seed)) for run in group], group is reference
        )
        for label, group in groups.items()
    ]
    return Report(cases, next(case for case in cases if case.is_baseline))


def _check_finished(baseline: Sequence[Run]) -> None:
    """See that the baseline's final losses are final.

    Raises:
        LigoError: one of its runs has not finished.
    """
    for run in baseline:
        if run.status != "FINISHED":
            raise LigoError(
                f"{run.place}: as the baseline it has to have finished, and it is {run.status}; `ligo-dist run` on its"
                " run directory goes on with it, or name another run"
            )


def _same_seed(baseline: Sequence[Run], seed: str) -> Run | None:
    """The run of a baseline to hold one with that seed against: its only one, else the one with the same seed."""
    if len(baseline) == 1:
        return baseline[0]
    return next((run for run in baseline if run.seed == seed), None)


def compare(run: Run, baseline: Run | None) -> Comparison | None:
    """A run held against a baseline's final loss; None where there is no baseline."""
    if baseline is None:
        return None
    curve, reference = run.curve, baseline.curve
    loss = reference[-1].loss
    falls = falling([point.loss for point in curve])
    needed = None if falls[0] <= loss else cost_to_reach(curve, falls, loss)
    outcome: Outcome = "not reached" if needed is None else "reached"
    # Its falling curve ends at its final loss or below, but for the rounding of means.
    crossed = (
        cost_to_reach(reference, falling([point.loss for point in reference]), loss) or reference[-1].cost
    )
    base = crossed + baseline.source_own
    total, before = run.source_total, baseline.source_before
    return Comparison(
        baseline=baseline.label,
        loss=loss,
        outcome="below from its first evaluation" if falls[0] <= loss else outcome,
        needed=needed,
        needed_in_all=None if needed is None or total is None else needed + total,
        baseline_needed=base,
        baseline_needed_in_all=None if before is None else base + before,
        best=min(curve, key=lambda point: point.loss),
        first=curve[0],
    )


def falling(losses: Sequence[float]) -> list[float]:
    """The non-increasing sequence nearest to the losses in the mean square: evaluations scatter, and a curve that dips
    once has not reached what it dips below."""
    from scipy.optimize import isotonic_regression  # loaded here: the launcher imports this package

    fitted: list[float] = isotonic_regression(losses, increasing=False).x.tolist()
    return fitted


def cost_to_reach(curve: Sequence[CurvePoint], falls: Sequence[float], loss: float) -> Cost | None:
    """The cost at which a curve meets a loss, linear between its points; None if it stays above.

    Args:
        curve: the points; what is not known of all their costs is not known of the result.
        falls: their losses, in an order that falls. One that begins below `loss` has reached it with its first point.
        loss: to be met.
    """
    index = next((index for index, value in enumerate(falls) if value <= loss), None)
    if index is None:
        return None
    part = (falls[index - 1] - loss) / (falls[index - 1] - falls[index]) if index else 0.0

    def meet(costs: Sequence[float | None]) -> float | None:
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            return None
        before = known[max(index - 1, 0)]
        return before + part * (known[index] - before)

    costs = [point.cost for point in curve]
    flops = meet([cost.flops for cost in costs])
    assert flops is not None
    return Cost(flops, meet([cost.seconds for cost in costs]), meet([cost.hardware_flops for cost in costs]))
