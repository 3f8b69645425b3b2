"""What each group of runs came to, over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ligo_dist import quantities

from .curves import Spread, spread
from .groups import Group
from .runs import Cost
from .savings import Comparison, Saved

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Measure:
    """One kind of cost, FLOPs or seconds, of reaching the baseline's final loss; each None unless all seeds have it: of
    those alone that reach the loss it would be too good.

    Attributes:
        excluded, included: what it took, without and with the training of the source. The baseline's own is counted
            either way.
        saved_excluded, saved_included: parts of what it took the baseline; None for the baseline itself.
    """

    excluded: Spread | None
    included: Spread | None
    saved_excluded: Spread | None
    saved_included: Spread | None


@dataclass(frozen=True)
class Case:
    """A group in numbers.

    Attributes:
        label: of the group.
        runs: labels of its runs.
        is_baseline: whether it is what the others are held against.
        final_loss: validation loss at the end.
        flops, seconds: of reaching the baseline's final loss.
        verdict: what came of the comparison, in a sentence; empty without one.
    """

    label: str
    runs: Sequence[str]
    is_baseline: bool
    final_loss: Spread | None
    flops: Measure
    seconds: Measure
    verdict: str


def make_case(group: Group, baseline: Group | None, comparisons: Mapping[str, Comparison]) -> Case:
    """The numbers of a group, from the comparisons of its runs by label."""
    labels = [member.label for member in group.members]
    pairs = [comparisons.get(label) for label in labels]
    is_baseline = group is baseline
    costs: list[tuple[Cost | None, Cost | None]]
    if is_baseline:
        costs = [(each.baseline_needed, each.baseline_needed_in_all) for each in pairs if each is not None]
    else:
        costs = [(each.needed, each.needed_in_all) if each else (None, None) for each in pairs]
    compared = [None if is_baseline else each for each in pairs]
    of_flops = _measure(
        costs, lambda cost: cost.flops, [_known(each, lambda it: it.flops) for each in compared]
    )
    of_seconds = _measure(
        costs, lambda cost: cost.seconds, [_known(each, lambda it: it.seconds) for each in compared]
    )
    return Case(
        label=group.label,
        runs=labels,
        is_baseline=is_baseline,
        final_loss=_of_all([member.run.target.final_loss for member in group.members]),
        flops=of_flops,
        seconds=of_seconds,
        verdict="" if baseline is None else _verdict(group, baseline, comparisons, of_flops, of_seconds),
    )


def saved_percent(saved: Spread) -> str:
    """A saving over the seeds: `31.2 ± 0.8 %`; of one run `31.2 %`."""
    scatter = f" ± {100 * saved.half_range:.1f}" if saved.count > 1 else ""
    return f"{100 * saved.mean:.1f}{scatter} %"


def _measure(
    costs: Sequence[tuple[Cost | None, Cost | None]],
    quantity: Callable[[Cost], float | None],
    saved: Sequence[Saved | None],
) -> Measure:
    """One kind of cost, from what each run needed without and with its source, and from what it saved."""
    return Measure(
        _of_all([_known(cost, quantity) for cost, _ in costs]),
        _of_all([_known(cost, quantity) for _, cost in costs]),
        _of_all([_known(each, lambda it: it.excluded) for each in saved]),
        _of_all([_known(each, lambda it: it.included) for each in saved]),
    )


def _verdict(
    group: Group, baseline: Group, comparisons: Mapping[str, Comparison], flops: Measure, seconds: Measure
) -> str:
    if group is baseline:
        return "the baseline"
    if flops.saved_excluded is not None:
        has_source = any(member.source.total != Cost() for member in group.members)
        said = f"needs {_less(flops, has_source, 'fewer', 'FLOPs')} than {baseline.label} to its final loss"
        if seconds.saved_excluded is not None:
            said += f", and {_less(seconds, has_source, 'less', 'time')}"
        return said + ("; in brackets, its source's training is counted" if has_source else "")
    return "no saving is stated: " + "; ".join(_outcomes(group, comparisons))


def _less(measure: Measure, has_source: bool, less: str, what: str) -> str:
    """`31.2 % fewer FLOPs (20.1 % fewer)`; more, where it is."""
    assert measure.saved_excluded is not None
    whole = "not known" if measure.saved_included is None else _signed(measure.saved_included, less)
    return f"{_signed(measure.saved_excluded, less)} {what}" + (f" ({whole})" if has_source else "")


def _signed(saved: Spread, less: str) -> str:
    if saved.mean >= 0:
        return f"{saved_percent(saved)} {less}"
    return f"{saved_percent(replace(saved, mean=-saved.mean))} more"


def _outcomes(group: Group, comparisons: Mapping[str, Comparison]) -> list[str]:
    """What each run of a group came to."""
    said = []
    for member in group.members:
        comparison, seed = comparisons.get(member.label), member.run.seed
        name = f"seed {seed} " if len(group.members) > 1 else "it "
        missing = f"has no baseline of its seed, {seed}"
        said.append(name + (missing if comparison is None else _outcome(comparison)))
    return said


def _outcome(comparison: Comparison) -> str:
    """Whether a run's curve crosses the loss, in words."""
    best, first, loss = comparison.best, comparison.first, f"{comparison.loss:.3f}"
    if comparison.outcome == "not reached":
        return f"does not reach {loss}: best {best.loss:.3f} at {quantities.flops(best.cost.flops)} FLOPs"
    if comparison.outcome == "reached" and comparison.needed is not None:
        return f"reaches {loss} at {quantities.flops(comparison.needed.flops)} FLOPs"
    return (
        f"is at {first.loss:.3f} in its first evaluation, at {quantities.flops(first.cost.flops)} FLOPs, so where it"
        f" crossed {loss} was not measured"
    )


def _of_all(values: Sequence[float | None]) -> Spread | None:
    return None if None in values else spread(values)


def _known(value: T | None, part: Callable[[T], U | None]) -> U | None:
    """A part of what may not be known."""
    return None if value is None else part(value)
