"""The points of metrics, and which of them a store misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from ligo_dist.tracking.parameters import clean_key
from ligo_dist.tracking.record import PARENT, Record, record_metrics


class Point(NamedTuple):
    """One value of a metric; `time` in milliseconds since the epoch, as MLflow has it."""

    metric: str
    step: int
    time: int
    value: float


def points_of(records: Iterable[Record], key: str) -> list[Point]:
    """The points that an MLflow run should have: the parent (`PARENT`) those of all records, a stage its own."""
    points = []
    for record in records:
        if key in (PARENT, record.get("stage")):
            moment = datetime.fromisoformat(record["time"]).timestamp()
            points += make_points(record_metrics(record), record["step"], moment)
    return points


def make_points(metrics: Mapping[str, float], step: int, time: float) -> list[Point]:
    """The points of one record; `time` in seconds since the epoch."""
    milliseconds = round(time * 1000)
    return [Point(clean_key(name), step, milliseconds, float(value)) for name, value in metrics.items()]


def compare(wanted: Iterable[Point], there: Iterable[Point]) -> tuple[list[Point], Counter[tuple[str, int]]]:
    """What of `wanted` is missing `there`, and what is there beyond it.

    A run that was killed and went on from an earlier checkpoint takes some steps again: at another time, with the
    same result. So a point that is wanted is there if one of its metric, step and time is, or else one of its metric
    and step that nothing else stands for.

    Returns:
        The missing points; and the number of points beyond the wanted ones, by metric and step.
    """
    exact = Counter((point.metric, point.step, point.time) for point in there)
    retaken = []
    for point in wanted:
        place = (point.metric, point.step, point.time)
        if exact[place]:
            exact[place] -= 1
        else:
            retaken.append(point)
    spare: Counter[tuple[str, int]] = Counter()
    for (metric, step, _), count in exact.items():
        spare[metric, step] += count
    missing = []
    for point in retaken:
        if spare[point.metric, point.step]:
            spare[point.metric, point.step] -= 1
        else:
            missing.append(point)
    return missing, spare
