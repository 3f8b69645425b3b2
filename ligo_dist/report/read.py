"""Runs in numbers, read from their directories: what each stage cost and came to, how its loss fell, and what trained
the model that a run began with.

The *target* is the model of the last stage. Its *source* is all that was trained before, in the same run or in another
one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.tracking import (
    METRICS_FILE,
    SOURCE_PATH,
    SOURCE_RUN,
    STATE_FILE,
    Record,
    read_records,
    read_state,
)

LOSS = "evaluate/loss"
FLOPS, TOKENS, SECONDS = "cumulative/flops", "cumulative/tokens", "cumulative/seconds"
HARDWARE_FLOPS = "cumulative/hardware_flops"
SOURCE_LOSS, GROWN_LOSS, GROW_SECONDS = "grow/source_loss", "grow/grown_loss", "grow/seconds"

Quantity = Literal["flops", "seconds"]
"""What a saving is of."""


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        flops: of the model, as docs/accounting.md counts them: without what is recomputed.
        seconds: of work; None where it is not known: for runs of versions that did not record it.
        hardware_flops: with what is recomputed; None where it is not known, likewise.
    """

    flops: float = 0.0
    seconds: float | None = 0.0
    hardware_flops: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            _sum(self.seconds, other.seconds),
            _sum(self.hardware_flops, other.hardware_flops),
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.flops - other.flops,
            _sum(self.seconds, other.seconds, -1),
            _sum(self.hardware_flops, other.hardware_flops, -1),
        )


def _sum(first: float | None, second: float | None, sign: int = 1) -> float | None:
    return None if first is None or second is None else first + sign * second


def amount(cost: Cost | None, quantity: Quantity) -> float | None:
    """FLOPs or seconds of a cost; None where they are not known."""
    if cost is None:
        return None
    return cost.flops if quantity == "flops" else cost.seconds


@dataclass(frozen=True)
class CurvePoint:
    """A validation loss that was measured, and the cost until then: of the whole run, unless said otherwise."""

    cost: Cost
    loss: float


@dataclass(frozen=True)
class StageResult:
    """One stage of a run.

    Attributes:
        name: the user's name for it.
        parameters: of its model; None where they are not recorded.
        is_grown: whether it is grown out of the stage before.
        tokens: trained on in it, learning to grow included.
        begins, ends: what the run had spent before it, and has with it.
        growth: what growing into it cost: learning and applying the operator; None while it has not been grown.
        source_loss: of the model it was grown from.
        grown_loss: right after growing.
        curve: the losses of its own model in the order of the run; what learning to grow looked at is left out.
    """

    name: str
    parameters: int | None
    is_grown: bool
    tokens: float
    begins: Cost
    ends: Cost
    growth: Cost | None
    source_loss: float | None
    grown_loss: float | None
    curve: Sequence[CurvePoint]

    @property
    def cost(self) -> Cost:
        return self.ends - self.begins

    @property
    def final_loss(self) -> float | None:
        return self.curve[-1].loss if self.curve else None


@dataclass(frozen=True)
class Run:
    """A run in numbers.

    Attributes:
        label: what a report calls it.
        place: where it was read from, as the user named it.
        identity: a word that no other run has.
        status: `RUNNING`, `FINISHED`, `FAILED` or `KILLED`.
        parameters: the whole configuration, flat.
        tags: of the run.
        stages: those that have begun, as far as they have come.
        knows_model_flops: whether its FLOPs are those of the model; earlier versions counted what was recomputed too.
        maker: the run that exported the model that the first stage began with, up to the stage that did; None where
            there is none or it is not found.
    """

    label: str
    place: str
    identity: str
    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    stages: Sequence[StageResult]
    knows_model_flops: bool
    maker: Run | None

    @property
    def path(self) -> PurePath:
        return PurePath(os.path.abspath(self.place))

    @property
    def seed(self) -> str:
        return self.parameters.get("seed", "-")

    @property
    def planned_stages(self) -> list[str]:
        """The names of the stages of its configuration."""
        names: list[str] = []
        while (name := self.parameters.get(f"stages.{len(names)}.name")) is not None:
            names.append(name)
        return names

    @property
    def target(self) -> StageResult:
        return self.stages[-1]

    @property
    def curve(self) -> list[CurvePoint]:
        """The target's, costs counted from where it begins: learning and growing are in them, what trained its source
        is not."""
        target = self.target
        return [CurvePoint(point.cost - target.begins, point.loss) for point in target.curve]

    @property
    def begun_from(self) -> str | None:
        """Directory or hub name of the model that the first stage began with, if the target comes of it."""
        given = self.parameters.get("stages.0.from", "None")
        return None if self._first or given == "None" else given

    @property
    def source_maker(self) -> Run | None:
        """The run that made that model, if the target comes of it."""
        return None if self.begun_from is None else self.maker

    @property
    def source_stages(self) -> Sequence[StageResult]:
        """The stages in which the run itself trained the target's source."""
        return self.stages[self._first : -1]

    @property
    def origin(self) -> Cost:
        """What the run had spent when the model began that became the target."""
        return self.stages[self._first].begins

    @property
    def source_own(self) -> Cost:
        """What the run itself spent on the target's source."""
        return self.target.begins - self.origin

    @property
    def source_before(self) -> Cost | None:
        """What was spent on the model that the run began with, by the run that made it and by those before that one;
        None: not known."""
        if self.begun_from is None:
            return Cost()
        before = None if self.maker is None else self.maker.source_before
        return None if self.maker is None or before is None else self.maker.spent + before

    @property
    def source_total(self) -> Cost | None:
        """All that was spent on the target's source; None: not known."""
        before = self.source_before
        return None if before is None else self.source_own + before

    @property
    def spent(self) -> Cost:
        """What the run itself spent on the target, its source included."""
        return self.source_own + self.target.cost

    @property
    def _first(self) -> int:
        """Index of the stage in which the model began that became the target: one from scratch inherits nothing."""
        return max((index for index, stage in enumerate(self.stages) if not stage.is_grown), default=0)


def read_runs(places: Iterable[str]) -> list[Run]:
    """Runs whose target has a curve; each once, however often it is named.

    Raises:
        LigoError: what is named is no run, or has not come as far: every fault, a line each.
    """
    distinct: dict[str, str] = {}
    for place in places:
        distinct.setdefault(os.path.realpath(place), place)
    runs: list[Run] = []
    faults: list[str] = []
    for place, label in zip(distinct.values(), _labels(list(distinct.values())), strict=True):
        try:
            run = read_run(Path(place), label)
            _check_target(run)
            runs.append(run)
        except LigoError as error:
            faults.append(str(error))
    if faults:
        raise LigoError("\n".join(faults))
    return runs


def directory_fault(path: Path) -> str | None:
    """Why a path is no run directory; None: it looks like one."""
    if not path.is_dir():
        return f"{path}: there is no such directory; a run is named by its run directory"
    if not (path / STATE_FILE).is_file():
        return f"{path}: no directory of a run: {STATE_FILE} is missing"
    return None


def read_run(path: Path, label: str = "", seen: tuple[str, ...] = ()) -> Run:
    """A run from its directory, as far as it has come.

    Args:
        path: the directory.
        label: what to call it; unless given, by its directory's name.
        seen: identities of runs that it is read for: they have not made what it began with.

    Raises:
        LigoError: it is no run.
    """
    if (fault := directory_fault(path)) is not None:
        raise LigoError(fault)
    state = read_state(path)
    if state is None or state.run is None:
        raise LigoError(f"{path}: no directory of a run: {STATE_FILE} cannot be read as the record of a run")
    counted = [record for record in read_records(path / METRICS_FILE) if FLOPS in record]
    stages: list[StageResult] = []
    begins: Record = {FLOPS: 0.0, HARDWARE_FLOPS: 0.0, SECONDS: 0.0, TOKENS: 0.0}
    for name, tracked in state.stages.items():
        records = [record for record in counted if record.get("stage") == name]
        if records:
            stages.append(_stage(name, tracked.parameters, begins, records))
            begins = records[-1]
    run = Run(
        label=label or path.name,
        place=str(path),
        identity=state.identity,
        status=state.run.status,
        parameters=state.run.parameters,
        tags=state.run.tags,
        stages=stages,
        knows_model_flops=all(HARDWARE_FLOPS in record for record in counted),
        maker=None,
    )
    return run if run.identity in seen else replace(run, maker=_find_maker(run, (*seen, run.identity)))


def _stage(
    name: str, parameters: Mapping[str, str], begins: Record, records: Sequence[Record]
) -> StageResult:
    growth = next((record for record in records if GROW_SECONDS in record), None)
    count = parameters.get("parameters", "")
    return StageResult(
        name=name,
        parameters=int(count) if count.isdecimal() else None,
        is_grown=any(key.startswith("grow.") for key in parameters),
        tokens=float(records[-1].get(TOKENS, 0.0)) - float(begins.get(TOKENS, 0.0)),
        begins=_cost(begins),
        ends=_cost(records[-1]),
        growth=None if growth is None else _cost(growth) - _cost(begins),
        source_loss=_number(growth, SOURCE_LOSS),
        grown_loss=_number(growth, GROWN_LOSS),
        curve=[
            CurvePoint(_cost(record), float(record[LOSS]))
            for record in records
            if LOSS in record and record["phase"] != "learn" and math.isfinite(float(record[LOSS]))
        ],
    )


def _cost(record: Record) -> Cost:
    return Cost(float(record[FLOPS]), _number(record, SECONDS), _number(record, HARDWARE_FLOPS))


def _number(record: Record | None, metric: str) -> float | None:
    return None if record is None or metric not in record else float(record[metric])


def _find_maker(run: Run, seen: tuple[str, ...]) -> Run | None:
    """The run that exported the model that a run began with, up to the stage that did; None if it is not found.

    It is looked for where it was, and where it would be had both been moved together; it has to be the very run.
    """
    model = Path(run.parameters.get("stages.0.from", "")).expanduser()
    path, identity = run.tags.get(SOURCE_PATH), run.tags.get(SOURCE_RUN)
    if path is None:  # a run of a version that did not record it
        exports = [model] if model.is_absolute() else []
    else:
        was = Path(run.tags["checkpoints.path"]).parent
        exports = [Path(path), Path(run.place).resolve() / os.path.relpath(path, was)]
    for export in exports:
        if export.parent.name != EXPORTS_DIRECTORY or (path is not None and identity is None):
            continue
        try:
            maker = read_run(export.parent.parent, seen=seen)
        except LigoError:
            continue
        if identity in (None, maker.identity):
            names = [stage.name for stage in maker.stages]
            made = names.index(export.name) + 1 if export.name in names else 0
            return replace(maker, stages=maker.stages[:made]) if made else None
    return None


def _check_target(run: Run) -> None:
    """See that a run has come as far as to have a target with a curve.

    Raises:
        LigoError: it has no validation loss of its last stage, or no FLOPs.
    """
    planned = run.planned_stages
    reached = [stage.name for stage in run.stages if stage.curve]
    if not reached or (planned and reached[-1] != planned[-1]):
        last = f" of its last stage, {planned[-1]!r}," if planned else ""
        where = f", in {run.stages[-1].name!r}" if run.stages else ""
        raise LigoError(
            f"{run.place}: no {LOSS}{last} is recorded beside {FLOPS}, which is what a report compares; the run is"
            f" {run.status}{where}"
        )


def _labels(places: Sequence[str]) -> list[str]:
    """The last parts of the runs' paths, as many as it takes to tell them apart."""
    paths = [PurePath(os.path.abspath(place)) for place in places]
    for length in range(1, max(len(path.parts) for path in paths)):
        labels = [str(PurePath(*path.parts[-length:])) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in paths]
