"""Which runs are one case with several seeds, which may be compared at all, and what they are called."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePath

from ligo_dist.errors import LigoError

from .places import STORED
from .runs import Run
from .sources import Source, find_maker, find_source

_NOT_A_DIFFERENCE = ("seed", "run_dir", "data.cache_dir", "data.workers")
_NOT_DIFFERENT_SECTIONS = ("tracking.", "checkpoints.", "distributed.", "cluster.")
"""Parameters in which runs of one case may differ: they say where things are and how a run is watched."""

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
    labels = _labels(runs)
    cases: dict[object, list[Member]] = {}
    for label, run in zip(labels, runs, strict=True):
        member = Member(label, run, find_source(run))
        cases.setdefault(_case(run), []).append(member)
    for members in cases.values():
        _refuse_repetitions(members)
    names = _unlike([_group_label(members) for members in cases.values()])
    return [Group(name, members) for name, members in zip(names, cases.values(), strict=True)]


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
        if name not in _NOT_A_DIFFERENCE and not name.startswith(_NOT_DIFFERENT_SECTIONS)
    }
    model = parameters.pop("stages.0.from", "")
    maker = find_maker(model)
    begun_from: object = model if maker is None else (maker.target.name, _case(maker))
    return recorded.tags.get("world_size"), begun_from, frozenset(parameters.items())


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
    """A run's directory; in MLflow its name behind its id."""
    place = run.recorded.place
    if place.startswith(STORED):
        return PurePath(place, run.recorded.name.replace("/", "-"))
    return PurePath(os.path.abspath(place))


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
