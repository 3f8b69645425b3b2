"""A run in numbers, read from its directory: what each stage cost and came to, how the target's loss fell, and what
trained its source.

The *target* is the model of the last stage. Its *source* is all that was trained before, in the same run or in another
one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.tracking import METRICS_FILE, SOURCE_PATH, SOURCE_RUN
from ligo_dist.tracking.record import STATE_FILE, Record, read_records, read_state

PICTURE, NUMBERS = "report.png", "report.json"
_OF_A_REPORT = {name + ending for name in (PICTURE, NUMBERS) for ending in ("", ".writing")}


def check_arguments(runs: Iterable[str], output: Path) -> None:
    """Whether there may be such runs, and whether the report can be written there.

    Raises:
        LigoError: every fault, a line each.
    """
    faults = []
    for run in runs:
        try:
            check_directory(Path(run))
        except LigoError as error:
            faults.append(str(error))
    try:
        check_output(output)
    except LigoError as error:
        faults.append(str(error))
    if faults:
        raise LigoError("\n".join(faults))


def check_directory(path: Path) -> None:
    """See that a path is a run directory.

    Raises:
        LigoError: it is none.
    """
    if not path.is_dir():
        raise LigoError(f"{path}: there is no such directory; a run is named by its run directory")
    if not (path / STATE_FILE).is_file():
        raise LigoError(f"{path}: no directory of a run: {STATE_FILE} is missing")


def check_output(output: Path) -> None:
    """See that a report may be written to a directory, which need not be there.

    Raises:
        LigoError: there is something that is no report.
    """
    if output.exists() and not output.is_dir():
        raise LigoError(f"--output: {output} is a file; name a directory")
    others = sorted({path.name for path in output.iterdir()} - _OF_A_REPORT) if output.exists() else []
    if others:
        raise LigoError(
            f"--output: {output} holds other things than a report ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}), which it would get lost among; name another directory"
        )


LOSS = "evaluate/loss"
FLOPS, TOKENS, SECONDS = "cumulative/flops", "cumulative/tokens", "cumulative/seconds"
HARDWARE_FLOPS = "cumulative/hardware_flops"
SOURCE_LOSS, GROWN_LOSS, GROW_SECONDS = "grow/source_loss", "grow/grown_loss", "grow/seconds"


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a run.

    Attributes:
        place: where it was read from, as the user named it.
        identity: a word that no other run has.
        status: `RUNNING`, `FINISHED`, `FAILED` or `KILLED`.
        parameters: the whole configuration, flat.
        tags: of the run.
        stages: of each stage that has begun, in order, the parameters.
        records: in the order in which they were made, each with its stage.
    """

    place: str
    identity: str
    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    stages: Mapping[str, Mapping[str, str]]
    records: Sequence[Record]

    @property
    def knows_model_flops(self) -> bool:
        """Whether its FLOPs are those of the model; earlier versions counted what was recomputed too."""
        return all(HARDWARE_FLOPS in record for record in self.records if FLOPS in record)


def read_run(path: Path) -> Recorded:
    """A run from its directory.

    Raises:
        LigoError: it is none.
    """
    check_directory(path)
    state = read_state(path)
    if state is None or state.run is None:
        raise LigoError(f"{path}: no directory of a run: {STATE_FILE} cannot be read as the record of a run")
    run = state.run
    stages = {stage: tracked.parameters for stage, tracked in state.stages.items()}
    records = read_records(path / METRICS_FILE)
    return Recorded(str(path), state.identity, run.status, run.parameters, run.tags, stages, records)


def is_grown(parameters: Mapping[str, str]) -> bool:
    """Whether a stage with these parameters is grown out of the stage before."""
    return any(name.startswith("grow.") for name in parameters)


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


@dataclass(frozen=True)
class CurvePoint:
    """A validation loss that was measured; `cost`: of the whole run until then."""

    cost: Cost
    loss: float
    phase: str


@dataclass(frozen=True)
class StageResult:
    """One stage of a run.

    Attributes:
        name: the user's name for it.
        parameters: of its model; None where they are not recorded.
        tokens: trained on in it, learning to grow included.
        begins, ends: what the run had spent before it, and has with it.
        growth: what growing into it cost: learning and applying the operator; None for a model that was not grown.
        source_loss: of the model it was grown from.
        grown_loss: right after growing.
        evaluations: in the order in which they were measured.
    """

    name: str
    parameters: int | None
    tokens: float
    begins: Cost
    ends: Cost
    growth: Cost | None
    source_loss: float | None
    grown_loss: float | None
    evaluations: Sequence[CurvePoint]

    @property
    def cost(self) -> Cost:
        return self.ends - self.begins

    @cached_property
    def curve(self) -> list[CurvePoint]:
        """The evaluations of the stage's model itself: what learning to grow only looked at is left out."""
        return [evaluation for evaluation in self.evaluations if evaluation.phase != "learn"]

    @property
    def final_loss(self) -> float | None:
        return self.curve[-1].loss if self.curve else None


@dataclass(frozen=True)
class Run:
    """A run in numbers.

    Attributes:
        recorded: what that was read from.
        stages: those that have begun.
    """

    recorded: Recorded
    stages: Sequence[StageResult]

    @property
    def target(self) -> StageResult:
        return self.stages[-1]

    @property
    def seed(self) -> str:
        return self.recorded.parameters.get("seed", "-")

    @property
    def begun_from(self) -> str | None:
        """Directory or hub name of the model that the first stage began with, if the target comes of it."""
        given = self.recorded.parameters.get("stages.0.from", "None")
        return None if self._first or given == "None" else given

    @property
    def source(self) -> Cost:
        """What the run itself spent on the target's source."""
        return self.target.begins - self.origin

    @property
    def source_stages(self) -> Sequence[StageResult]:
        """The stages in which it did."""
        return self.stages[self._first : -1]

    @property
    def origin(self) -> Cost:
        """What the run had spent when the model began that became the target."""
        return self.stages[self._first].begins

    @property
    def spent(self) -> Cost:
        """What the run itself spent on the target, its source included."""
        return self.source + self.target.cost

    def until(self, stage: str) -> Run | None:
        """The part of the run that made a stage's model; None if there is no such stage."""
        names = [each.name for each in self.stages]
        return Run(self.recorded, self.stages[: names.index(stage) + 1]) if stage in names else None

    @property
    def _first(self) -> int:
        """Index of the stage in which the model began that became the target: one from scratch inherits nothing."""
        grown = [is_grown(self.recorded.stages.get(stage.name, {})) for stage in self.stages]
        return max((index for index, is_grown in enumerate(grown) if not is_grown), default=0)


def make_run(recorded: Recorded) -> Run:
    """The numbers of a run, as far as it has come."""
    stages: list[StageResult] = []
    begins: Record = {FLOPS: 0.0, HARDWARE_FLOPS: 0.0, SECONDS: 0.0, TOKENS: 0.0}
    for name in recorded.stages:
        records = [record for record in recorded.records if record.get("stage") == name and FLOPS in record]
        if records:
            stages.append(_stage(name, recorded.stages[name], begins, records))
            begins = records[-1]
    return Run(recorded, stages)


def check_target(run: Run) -> None:
    """See that a run has come as far as to have a target with a curve.

    Raises:
        LigoError: it has no validation loss of its last stage, or no FLOPs.
    """
    recorded = run.recorded
    for metric in (LOSS, FLOPS):
        if not any(metric in record for record in recorded.records):
            raise LigoError(
                f"{recorded.place}: no {metric} is recorded, which is what a report compares; the run is"
                f" {recorded.status}"
            )
    planned = planned_stages(recorded.parameters)
    reached = [stage.name for stage in run.stages if stage.curve]
    if not reached or (planned and reached[-1] != planned[-1]):
        where = f"in {run.stages[-1].name!r}" if run.stages else "before its first step"
        last = f" of its last stage, {planned[-1]!r}," if planned else ""
        raise LigoError(
            f"{recorded.place}: no {LOSS}{last} is recorded; the run is {recorded.status}, {where}"
        )


def planned_stages(parameters: Mapping[str, str]) -> list[str]:
    """The names of the stages of a configuration."""
    names: list[str] = []
    while (name := parameters.get(f"stages.{len(names)}.name")) is not None:
        names.append(name)
    return names


def _stage(
    name: str, parameters: Mapping[str, str], begins: Record, records: Sequence[Record]
) -> StageResult:
    evaluations = [
        CurvePoint(_cost(record), float(record[LOSS]), record["phase"])
        for record in records
        if LOSS in record and math.isfinite(float(record[LOSS]))
    ]
    growth = next((record for record in records if GROW_SECONDS in record), None)
    count = parameters.get("parameters", "")
    return StageResult(
        name=name,
        parameters=int(count) if count.isdecimal() else None,
        tokens=float(records[-1].get(TOKENS, 0.0)) - float(begins.get(TOKENS, 0.0)),
        begins=_cost(begins),
        ends=_cost(records[-1]),
        growth=None if growth is None else _cost(growth) - _cost(begins),
        source_loss=_number(growth, SOURCE_LOSS),
        grown_loss=_number(growth, GROWN_LOSS),
        evaluations=evaluations,
    )


def _cost(record: Record) -> Cost:
    return Cost(float(record[FLOPS]), _number(record, SECONDS), _number(record, HARDWARE_FLOPS))


def _number(record: Record | None, metric: str) -> float | None:
    return None if record is None or metric not in record else float(record[metric])


@dataclass(frozen=True)
class Source:
    """All that was trained before a run's target.

    Attributes:
        own: what the run itself spent on it.
        begun_from: the directory or hub name of the model that the run began with; None: with random values.
        maker: the run that exported that model, up to the stage that did; None: not known.
        before: what was spent on it; None: not known.
    """

    own: Cost
    begun_from: str | None
    maker: Run | None
    before: Cost | None

    @property
    def total(self) -> Cost | None:
        return None if self.before is None else self.own + self.before


def find_source(run: Run) -> Source:
    """The source of a run's target. What another run spent is read from that run's directory."""
    maker, before = _found(run, ())
    return Source(run.source, run.begun_from, maker, before)


def find_maker(recorded: Recorded) -> Run | None:
    """The run that exported the model that a run began with, up to the stage that did; None if it is not found.

    It is looked for where it was, and where it would be had both been moved together; it has to be the very run.
    """
    model = Path(recorded.parameters.get("stages.0.from", "")).expanduser()
    path, identity = recorded.tags.get(SOURCE_PATH), recorded.tags.get(SOURCE_RUN)
    if path is None:  # a run of a version that did not record it
        exports = [model] if model.is_absolute() else []
    else:
        was = Path(recorded.tags["checkpoints.path"]).parent
        exports = [Path(path), Path(recorded.place).resolve() / os.path.relpath(path, was)]
    for export in exports:
        if export.parent.name != EXPORTS_DIRECTORY or (path is not None and identity is None):
            continue
        try:
            maker = read_run(export.parent.parent)
        except LigoError:
            continue
        if identity in (None, maker.identity):
            return make_run(maker).until(export.name)
    return None


def _found(run: Run, seen: tuple[str, ...]) -> tuple[Run | None, Cost | None]:
    """The run that made what a run began with, and what was spent on it by that run and by those before it."""
    if run.begun_from is None:
        return None, Cost()
    maker = None if run.recorded.identity in seen else find_maker(run.recorded)
    if maker is None:
        return None, None
    _, before = _found(maker, (*seen, run.recorded.identity))
    return maker, None if before is None else maker.spent + before
