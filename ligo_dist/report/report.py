"""A report in numbers: runs in groups, held against a baseline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ligo_dist.errors import LigoError

from .cases import Case, make_case
from .groups import Group, Member, check_comparable, group_of, make_groups
from .notes import notes_on
from .places import STORED
from .reading import read_run
from .runs import Run, check_target, make_run
from .savings import Comparison, compare_group


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


def build_report(places: Sequence[str], baseline: str | None = None, uri: str | None = None) -> Report:
    """Read runs and compare them.

    Args:
        places: run directories, or `mlflow:RUN_ID`.
        baseline: one of them, or another one, to hold the others against.
        uri: of the MLflow store; None: as the environment's `MLFLOW_TRACKING_URI`.

    Raises:
        LigoError: what is named is no run, or the runs cannot be compared.
        OutOfReach, Refused: the store does not answer.
    """
    runs = _read([*places, *([] if baseline is None else [baseline])], uri)
    check_comparable(list(runs.values()))
    groups = make_groups(list(runs.values()))
    reference = None
    comparisons: dict[str, Comparison] = {}
    if baseline is not None:
        reference = group_of(groups, runs[_identity(baseline)].recorded.place)
        _check_finished(reference)
        for group in groups:
            comparisons |= compare_group(group, reference)
    cases = [make_case(group, reference, comparisons) for group in groups]
    return Report(groups, reference, comparisons, cases, notes_on(groups, reference))


def _read(places: Iterable[str], uri: str | None) -> dict[str, Run]:
    """The runs by what tells them apart; each once, however often it is named.

    Raises:
        LigoError: every fault, a line each.
    """
    runs: dict[str, Run] = {}
    faults: list[str] = []
    for place in places:
        if _identity(place) in runs:
            continue
        try:
            run = make_run(read_run(place, uri))
            check_target(run)
            runs[_identity(place)] = run
        except LigoError as error:
            faults += [str(error)] if str(error) not in faults else []
    if faults:
        raise LigoError("\n".join(faults))
    return runs


def _identity(place: str) -> str:
    return place if place.startswith(STORED) else os.path.realpath(place)


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
