"""A report: its cases, each the mean over its seeds, and what has to be known to read the numbers right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ligo_dist.report.compare import (
    MANNER,
    Comparison,
    Group,
    Member,
    Saved,
    Spread,
    check_comparable,
    compare_group,
    group_of,
    make_groups,
    spread,
)
from ligo_dist.report.read import Cost, Run, check_target, make_run, planned_stages, read_run
from ligo_dist.runtime import quantities
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.quantities import flops

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
    """A saving over the seeds, `31 ± 5 %`; with a tenth, `31.2 ± 0.8 %`, where they agree to one percent. Of one run,
    whose scatter is not known, `31 %`."""
    digits = 1 if saved.count > 1 and saved.half_range < 0.01 else 0
    scatter = f" ± {100 * saved.half_range:.{digits}f}" if saved.count > 1 else ""
    return f"{100 * saved.mean:.{digits}f}{scatter} %"


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
        said += "; in brackets, its source's training is counted" if has_source else ""
        return said + (
            "; of one run, so how far this scatters is not known" if len(group.members) == 1 else ""
        )
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


_MOST_DIFFERENCES = 4

HOW_TO_GET_SAVINGS = (
    "No baseline was named, so no saving is stated. Name a finished run to hold the others against, usually the same"
    " target trained from scratch: --baseline RUN."
)


def notes_on(groups: Sequence[Group], baseline: Group | None) -> list[str]:
    """A sentence or two for each thing that is not as it might be thought to be."""
    members = [member for group in groups for member in group.members]
    notes = [] if baseline else [HOW_TO_GET_SAVINGS]
    notes += _of_baseline(baseline) if baseline else []
    notes += [note for group in groups if baseline for note in _of_differences(group, baseline)]
    notes += [
        f"{member.label}: what trained the model that it began with ({member.source.begun_from}) is not known: that is"
        " no RUN_DIR/export/STAGE of a run that is still there. So nothing is stated with its source included."
        for member in members
        if member.source.total is None
    ]
    unfinished = [m for m in members if m.run.recorded.status != "FINISHED"]
    notes += [f"{m.label} is {m.run.recorded.status}: it is shown as far as it came." for m in unfinished]
    timeless = [member.label for member in members if member.run.target.ends.seconds is None]
    if timeless:
        notes.append(
            f"No times of {_listed(timeless)}: made by a version that did not record cumulative/seconds."
        )
    notes += _of_recomputation(members)
    notes += _of_machines(members)
    return notes


def _of_differences(group: Group, baseline: Group) -> list[str]:
    """In what a group differs from the baseline beside how its models are made."""
    found = _differences(group.members[0].run, baseline.members[0].run)
    if group is baseline or not found:
        return []
    more = f" and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
    return [
        f"{group.label} differs from {baseline.label} in more than how its model is made, so that a saving is that of"
        f" all of it: {', '.join(found[:_MOST_DIFFERENCES])}{more}; in brackets, of {baseline.label}."
    ]


def _differences(run: Run, other: Run) -> list[str]:
    """In what the targets of two runs, and how these are trained, differ, with the values of either: `train.steps 70
    (100)`."""
    first, second = _training(run), _training(other)

    def differs(key: str) -> bool:
        values = first.get(key, "None"), second.get(key, "None")
        # What the configuration of a model leaves open, its family or the model that is begun with says.
        return values[0] != values[1] and not (key.startswith("model.") and "None" in values)

    keys = filter(differs, {**first, **second})
    return [f"{key} {first.get(key, '-')} ({second.get(key, '-')})" for key in keys]


def _training(run: Run) -> dict[str, str]:
    """What the target is and how it is trained; not how it is made, nor how its batches are computed."""
    recorded, last = run.recorded, f"stages.{len(planned_stages(run.recorded.parameters)) - 1}."
    found = {"parameters": "-" if run.target.parameters is None else f"{run.target.parameters:,}"}
    for name, value in recorded.parameters.items():
        key = name.removeprefix(last)
        if name.startswith(("precision", "model.", "data.random_", last + "train.")) and not key.endswith(
            MANNER
        ):
            found[key] = value
    return found


def _of_recomputation(members: Sequence[Member]) -> list[str]:
    runs = {member.label: (member.run, member.source.maker) for member in members}
    old = [
        label
        for label, pair in runs.items()
        if not all(run.recorded.knows_model_flops for run in pair if run is not None)
    ]
    if not old:
        return []
    return [
        f"The FLOPs of {_listed(old)} include what was recomputed, in learning and with activation checkpointing: made"
        " by a version that counted it in cumulative/flops."
    ]


def _of_baseline(baseline: Group) -> list[str]:
    """What counts as the baseline's cost."""
    first = baseline.members[0]
    notes = []
    if first.source.own.flops:
        notes.append(
            f"{baseline.label} trained its source itself ({flops(first.source.own.flops)} FLOPs): that is part of the"
            " baseline's cost in all columns."
        )
    if first.source.begun_from is not None:
        notes.append(
            f"{baseline.label} began with {first.source.begun_from}: what trained that is part of the baseline's cost"
            " where sources are included."
        )
    return notes


def _of_machines(members: Sequence[Member]) -> list[str]:
    places = {
        tuple(member.run.recorded.tags.get(tag, "?") for tag in ("world_size", "hosts")) for member in members
    }
    if len(places) == 1:
        return []
    where = "; ".join(
        sorted(f"{ranks} rank{'' if ranks == '1' else 's'} on {hosts}" for ranks, hosts in places)
    )
    return [f"The runs were made on different machines ({where}), so their times compare these too."]


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


@dataclass(frozen=True)
class Report:
    """What a report says, in numbers.

    Attributes:
        groups: the runs by case, in the order in which they were given.
        baseline: the group that the others are held against; None: none was named.
        comparisons: of each run that has a baseline, by its label; the baselines' own are among them.
        cases: what each group came to.
        notes: what has to be known to read the numbers right.
    """

    groups: Sequence[Group]
    baseline: Group | None
    comparisons: Mapping[str, Comparison]
    cases: Sequence[Case]
    notes: Sequence[str]

    @property
    def members(self) -> list[Member]:
        return [member for group in self.groups for member in group.members]


def build_report(places: Sequence[str], baseline: str | None = None) -> Report:
    """Read runs and compare them.

    Args:
        places: run directories.
        baseline: one of them, or another one, to hold the others against.

    Raises:
        LigoError: what is named is no run, or the runs cannot be compared.
    """
    runs = _read([*places, *([] if baseline is None else [baseline])])
    check_comparable(list(runs.values()))
    groups = make_groups(list(runs.values()))
    reference = None
    comparisons: dict[str, Comparison] = {}
    if baseline is not None:
        reference = group_of(groups, runs[os.path.realpath(baseline)].recorded.place)
        _check_finished(reference)
        for group in groups:
            comparisons |= compare_group(group, reference)
    cases = [make_case(group, reference, comparisons) for group in groups]
    return Report(groups, reference, comparisons, cases, notes_on(groups, reference))


def _read(places: Iterable[str]) -> dict[str, Run]:
    """The runs by what tells them apart; each once, however often it is named.

    Raises:
        LigoError: every fault, a line each.
    """
    runs: dict[str, Run] = {}
    faults: list[str] = []
    for place in places:
        identity = os.path.realpath(place)
        if identity in runs:
            continue
        try:
            run = make_run(read_run(Path(place)))
            check_target(run)
            runs[identity] = run
        except LigoError as error:
            faults += [str(error)] if str(error) not in faults else []
    if faults:
        raise LigoError("\n".join(faults))
    return runs


def _check_finished(baseline: Group) -> None:
    """See that the baseline's final losses are final.

    Raises:
        LigoError: a run of the group has not finished.
    """
    for member in baseline.members:
        recorded = member.run.recorded
        if recorded.status != "FINISHED":
            raise LigoError(
                f"{recorded.place}: as the baseline it has to have finished, and it is {recorded.status}; `ligo-dist"
                " run` on its run directory goes on with it, or name another run"
            )
