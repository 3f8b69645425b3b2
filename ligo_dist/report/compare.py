"""Runs side by side: which are one case, when a curve meets the baseline's final loss, and what was saved."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePath
from statistics import fmean
from typing import Literal

from ligo_dist.report.read import Cost, CurvePoint, Run, Source, find_maker, find_source
from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import SOURCE_PATH

_NOT_A_DIFFERENCE = ("seed", "run_dir", "data.cache_dir", "data.workers")
_NOT_DIFFERENT_SECTIONS = ("tracking.", "checkpoints.", "distributed.", "cluster.")
"""Parameters in which runs of one case may differ: they say where things are and how a run is watched."""

MANNER = (".micro_batch_size", ".activation_checkpointing")
"""The ends of those, the number of ranks beside them, that say how a batch is computed: what a step does to the
weights is the same but for rounding."""

_MEASURED_WITH = ("data.sequence_length", "data.mask_fraction", "evaluation.sequences")
"""Parameters that change the validation loss of one and the same model."""


@dataclass(frozen=True)
class Member:
    """One run of a report.

    Attributes:
        label: what it is called, unlike any other.
        run: its numbers.
        source: what trained what its target was grown from.
    """

    label: str
    run: Run
    source: Source


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone; often only one."""

    label: str
    members: Sequence[Member]


def make_groups(runs: Sequence[Run]) -> list[Group]:
    """The cases that the runs are of, in the order of their first runs.

    Raises:
        LigoError: two runs are the same, seed included.
    """
    members = [Member(label, run, find_source(run)) for label, run in zip(_labels(runs), runs, strict=True)]
    cases = [
        case
        for same in _sorted_out(members, _case)
        # A seed that is there twice was run in two ways, which is then what is compared.
        for case in ([same] if _seeds_differ(same) else _sorted_out(same, _manner))
    ]
    for case in cases:
        _refuse_repetitions(case)
    names = _unlike([_group_label(case) for case in cases])
    return [Group(name, case) for name, case in zip(names, cases, strict=True)]


def _sorted_out(members: Iterable[Member], by: Callable[[Run], object]) -> list[list[Member]]:
    """The members that have the same of something, in the order of the first of them."""
    found: dict[object, list[Member]] = {}
    for member in members:
        found.setdefault(by(member.run), []).append(member)
    return list(found.values())


def _seeds_differ(members: Sequence[Member]) -> bool:
    return len({member.run.seed for member in members}) == len(members)


def _manner(run: Run) -> object:
    """How a run was computed: on how many ranks, in which micro-batches, with what recomputed."""
    recorded = run.recorded
    keys = {name: value for name, value in recorded.parameters.items() if name.endswith(MANNER)}
    return recorded.tags.get("world_size"), frozenset(keys.items())


def check_comparable(runs: Sequence[Run]) -> None:
    """See that the losses of all runs are of the same validation data.

    Raises:
        LigoError: they are not; it says which run has which.
    """
    tags = ((run.recorded.place, run.recorded.tags.get("corpus.fingerprint")) for run in runs)
    _refuse_differences("corpus.fingerprint", tags)
    for key in _MEASURED_WITH:
        _refuse_differences(key, ((run.recorded.place, run.recorded.parameters.get(key)) for run in runs))


def _refuse_differences(key: str, values: Iterable[tuple[str, str | None]]) -> None:
    places: dict[str | None, list[str]] = {}
    for place, value in values:
        places.setdefault(value, []).append(place)
    if len(places) > 1:
        lines = [f"  {value or 'not recorded'}: {', '.join(those)}" for value, those in places.items()]
        raise LigoError(
            "\n".join([f"{key}: runs with other validation data have losses that cannot be compared", *lines])
        )


def _case(run: Run) -> object:
    """What runs of one case have in common. The model that they begin with is told by the case of the run that made
    it, as each seed has its own."""
    recorded = run.recorded
    parameters = {
        name: value
        for name, value in recorded.parameters.items()
        if name not in _NOT_A_DIFFERENCE
        and not name.startswith(_NOT_DIFFERENT_SECTIONS)
        and not name.endswith(MANNER)
    }
    given = parameters.pop("stages.0.from", "")
    maker = find_maker(recorded)
    model = recorded.tags.get(SOURCE_PATH, given)
    begun_from: object = model if maker is None else (maker.target.name, _case(maker))
    return begun_from, frozenset(parameters.items())


def _refuse_repetitions(members: Sequence[Member]) -> None:
    by_seed: dict[str, str] = {}
    for member in members:
        place, seed = member.run.recorded.place, member.run.seed
        if seed in by_seed:
            raise LigoError(
                f"{place}: the same configuration and seed ({seed}) as {by_seed[seed]}: it would count twice; leave one"
                " out"
            )
        by_seed[seed] = place


def _labels(runs: Sequence[Run]) -> list[str]:
    """The last parts of the runs' paths, as many as it takes to tell them apart."""
    paths = [_path(run) for run in runs]
    for length in range(1, max(len(path.parts) for path in paths)):
        labels = [str(PurePath(*path.parts[-length:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]


def _path(run: Run) -> PurePath:
    return PurePath(os.path.abspath(run.recorded.place))


def _group_label(members: Sequence[Member]) -> str:
    """What the names of its runs have in common."""
    names = [_path(member.run).name for member in members]
    return members[0].label if len(members) == 1 else _common(names) or members[0].label


def _common(names: Sequence[str]) -> str:
    """The beginning that names share, without what only announces the seed: `ligo` of `ligo-seed-0`, `ligo-seed-1`."""
    if len(set(names)) == 1:
        return names[0]
    shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in shared).rstrip("-_. 0123456789=")
    return common.removesuffix("seed").rstrip("-_. ")


def _unlike(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that have been there before."""
    seen: dict[str, int] = {}
    unlike = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unlike.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unlike


def same_seed(group: Group, seed: str) -> Member | None:
    """The run of a group to hold one with that seed against: its only one, else the one with the same seed."""
    if len(group.members) == 1:
        return group.members[0]
    return next((member for member in group.members if member.run.seed == seed), None)


def group_of(groups: Sequence[Group], place: str) -> Group:
    """The group that has the run from that place."""
    return next(
        group for group in groups if any(member.run.recorded.place == place for member in group.members)
    )


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


Outcome = Literal["reached", "not reached", "below from its first evaluation"]


@dataclass(frozen=True)
class Saved:
    """Parts of the baseline's cost that a run needs less of: 0.3 is 30 %; negative if it needs more.

    Attributes:
        excluded: the training of the run's source not counted.
        included: counted; None where it is not known.
    """

    excluded: float
    included: float | None


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
        flops, seconds: what is saved; None unless the curves cross, and where it is not known.
        best: the lowest loss the run came to.
        first: its first evaluation, from where the target begins.
    """

    baseline: str
    loss: float
    outcome: Outcome
    needed: Cost | None
    needed_in_all: Cost | None
    baseline_needed: Cost
    baseline_needed_in_all: Cost | None
    flops: Saved | None
    seconds: Saved | None
    best: CurvePoint
    first: CurvePoint


def compare(member: Member, baseline: Member) -> Comparison:
    """A run held against a baseline's final loss."""
    curve, reference = curve_of(member), curve_of(baseline)
    loss = reference[-1].loss
    needed = _needed(curve, loss)
    # Its falling curve ends at its final loss or below, but for the rounding of means.
    base = (_needed(reference, loss) or reference[-1].cost) + baseline.source.own
    before = baseline.source.before
    outcome: Outcome = "reached" if needed is not None else "not reached"
    if falling([evaluation.loss for evaluation in curve])[0] <= loss:
        outcome, needed = "below from its first evaluation", None
    total = member.source.total
    in_all = None if needed is None or total is None else needed + total
    base_in_all = None if before is None else base + before
    return Comparison(
        baseline=baseline.label,
        loss=loss,
        outcome=outcome,
        needed=needed,
        needed_in_all=in_all,
        baseline_needed=base,
        baseline_needed_in_all=base_in_all,
        flops=_saved(lambda cost: cost.flops, needed, in_all, base, base_in_all),
        seconds=_saved(lambda cost: cost.seconds, needed, in_all, base, base_in_all),
        best=min(curve, key=lambda evaluation: evaluation.loss),
        first=curve[0],
    )


def compare_group(group: Group, baseline: Group) -> dict[str, Comparison]:
    """The runs of a group by label, each held against the baseline of its own seed where there are several."""
    pairs = ((member, same_seed(baseline, member.run.seed)) for member in group.members)
    return {member.label: compare(member, other) for member, other in pairs if other is not None}


def curve_of(member: Member) -> list[CurvePoint]:
    """A run's evaluations, costs counted from where its target begins: learning and growing are in them, what trained
    its source is not."""
    target = member.run.target
    return [CurvePoint(each.cost - target.begins, each.loss, each.phase) for each in target.curve]


def _needed(curve: Sequence[CurvePoint], loss: float) -> Cost | None:
    """Where the falling curve meets a loss; what is not known of all its points is None."""
    losses = [evaluation.loss for evaluation in curve]

    def reached(costs: Sequence[float | None]) -> float | None:
        known = [cost for cost in costs if cost is not None]
        return cost_to_reach(known, losses, loss) if len(known) == len(costs) else None

    flops = reached([evaluation.cost.flops for evaluation in curve])
    if flops is None:
        return None
    return Cost(
        flops,
        reached([evaluation.cost.seconds for evaluation in curve]),
        reached([evaluation.cost.hardware_flops for evaluation in curve]),
    )


def _saved(
    measure: Callable[[Cost], float | None],
    needed: Cost | None,
    in_all: Cost | None,
    base: Cost,
    base_in_all: Cost | None,
) -> Saved | None:
    excluded = _part(measure, needed, base)
    return None if excluded is None else Saved(excluded, _part(measure, in_all, base_in_all))


def _part(measure: Callable[[Cost], float | None], cost: Cost | None, base: Cost | None) -> float | None:
    if cost is None or base is None:
        return None
    spent, whole = measure(cost), measure(base)
    return 1 - spent / whole if spent is not None and whole else None
