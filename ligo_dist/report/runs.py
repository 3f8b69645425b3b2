"""A run in numbers: what each of its stages cost and came to, and how the target's loss fell.

The *target* is the model of the last stage. Its *source* is all that was trained before, in the same run or in another
one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ligo_dist.errors import LigoError
from ligo_dist.tracking.jsonl import Record

from .reading import (
    FLOPS,
    GROW_SECONDS,
    GROWN_LOSS,
    LOSS,
    SECONDS,
    SOURCE_LOSS,
    TOKENS,
    Recorded,
    is_grown,
)


@dataclass(frozen=True)
class Cost:
    """What was spent.

    Attributes:
        flops: floating point operations, as docs/accounting.md counts them.
        seconds: of work; None where it is not known: for runs of versions that did not record it.
    """

    flops: float = 0.0
    seconds: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        unknown = self.seconds is None or other.seconds is None
        seconds = None if unknown else (self.seconds or 0.0) + (other.seconds or 0.0)
        return Cost(self.flops + other.flops, seconds)

    def __sub__(self, other: Cost) -> Cost:
        negative = Cost(-other.flops, None if other.seconds is None else -other.seconds)
        return self + negative


@dataclass(frozen=True)
class Evaluation:
    """A validation loss that was measured; `cost`: of the whole run until then."""

    cost: Cost
    loss: float
    phase: str


@dataclass(frozen=True)
class Stage:
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
    evaluations: Sequence[Evaluation]

    @property
    def cost(self) -> Cost:
        return self.ends - self.begins

    @cached_property
    def curve(self) -> list[Evaluation]:
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
    stages: Sequence[Stage]

    @property
    def target(self) -> Stage:
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
    def source_stages(self) -> Sequence[Stage]:
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
    stages: list[Stage] = []
    begins: Record = {FLOPS: 0.0, SECONDS: 0.0, TOKENS: 0.0}
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


def _stage(name: str, parameters: Mapping[str, str], begins: Record, records: Sequence[Record]) -> Stage:
    evaluations = [
        Evaluation(_cost(record), float(record[LOSS]), record["phase"])
        for record in records
        if LOSS in record and math.isfinite(float(record[LOSS]))
    ]
    growth = next((record for record in records if GROW_SECONDS in record), None)
    count = parameters.get("parameters", "")
    return Stage(
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
    return Cost(float(record[FLOPS]), _number(record, SECONDS))


def _number(record: Record | None, metric: str) -> float | None:
    return None if record is None or metric not in record else float(record[metric])
