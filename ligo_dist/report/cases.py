"""What each group of runs came to, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ligo_dist.quantities import flops

from .curves import Spread, spread
from .groups import Group
from .runs import Cost
from .savings import Comparison, Saved


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
    of_flops, of_seconds = (
        [None if is_baseline or each is None else saved(each) for each in pairs]
        for saved in (_saved_flops, _saved_seconds)
    )
    return Case(
        label=group.label,
        runs=labels,
        is_baseline=is_baseline,
        final_loss=_of_all([member.run.target.final_loss for member in group.members]),
        flops=_measure([(_flops(part), _flops(whole)) for part, whole in costs], of_flops),
        seconds=_measure([(_seconds(part), _seconds(whole)) for part, whole in costs], of_seconds),
        verdict="" if baseline is None else _verdict(group, baseline, comparisons, of_flops),
    )


def saved_percent(saved: Spread) -> str:
    """A saving over the seeds: `31.2 ± 0.8 %`; of one run `31.2 %`."""
    scatter = f" ± {100 * saved.half_range:.1f}" if saved.count > 1 else ""
    return f"{100 * saved.mean:.1f}{scatter} %"


def _measure(costs: Sequence[tuple[float | None, float | None]], saved: Sequence[Saved | None]) -> Measure:
    return Measure(
        _of_all([part for part, _ in costs]),
        _of_all([whole for _, whole in costs]),
        _of_all([None if each is None else each.excluded for each in saved]),
        _of_all([None if each is None else each.included for each in saved]),
    )


def _verdict(
    group: Group, baseline: Group, comparisons: Mapping[str, Comparison], saved: Sequence[Saved | None]
) -> str:
    if group is baseline:
        return "the baseline"
    excluded = _of_all([None if each is None else each.excluded for each in saved])
    if excluded is not None:
        included = _of_all([None if each is None else each.included for each in saved])
        whole = "not known" if included is None else _fewer(included)
        return f"{_fewer(excluded)} FLOPs, with its source's training {whole}"
    several = len(group.members) > 1
    said = []
    for member in group.members:
        comparison = comparisons.get(member.label)
        name = f"seed {member.run.seed} " if several else ""
        said.append(
            name
            + (f"has no baseline of seed {member.run.seed}" if comparison is None else _outcome(comparison))
        )
    return "no saving: " + "; ".join(said)


def _fewer(saved: Spread) -> str:
    if saved.mean >= 0:
        return f"{saved_percent(saved)} fewer"
    return f"{saved_percent(Spread(-saved.mean, saved.half_range, saved.bound, saved.count))} more"


def _outcome(comparison: Comparison) -> str:
    """Whether a run's curve crosses the loss, in words."""
    best, first, loss = comparison.best, comparison.first, f"{comparison.loss:.3f}"
    if comparison.outcome == "not reached":
        return f"does not reach {loss}: best {best.loss:.3f} at {flops(best.cost.flops)} FLOPs"
    if comparison.outcome == "reached" and comparison.needed is not None:
        return f"reaches {loss} at {flops(comparison.needed.flops)} FLOPs"
    return (
        f"is at {first.loss:.3f} in its first evaluation, at {flops(first.cost.flops)} FLOPs, so where it crossed"
        f" {loss} was not measured"
    )


def _of_all(values: Sequence[float | None]) -> Spread | None:
    return None if None in values else spread(values)


def _flops(cost: Cost | None) -> float | None:
    return None if cost is None else cost.flops


def _seconds(cost: Cost | None) -> float | None:
    return None if cost is None else cost.seconds


def _saved_flops(comparison: Comparison) -> Saved | None:
    return comparison.flops


def _saved_seconds(comparison: Comparison) -> Saved | None:
    return comparison.seconds
