"""Records that a metrics file has lost, made again of the points that the run's MLflow store has."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from ligo_dist.runtime.heartbeat import beat
from ligo_dist.runtime.redaction import redact
from ligo_dist.tracking.mlflow import MlflowStore, OutOfReach, Point, Refused
from ligo_dist.tracking.record import Record, RunRecord, encode, identity
from ligo_dist.tracking.state import clean_key

_GROWN, _CHECKED = "grow/seconds", "grow/preservation_error"


def recover(record: RunRecord, lost: int, last_step: int, store: MlflowStore | None) -> str:
    """Take what a resumed run's file has lost from its store; a line that says what came of it.

    Args:
        record: of the run; what is found is put into its file.
        lost: number of records that the checkpoint knows of and the file does not have.
        last_step: global step of the checkpoint.
        store: None: the run is not tracked.
    """
    found: list[Record] = []
    reason = "the run is not tracked in MLflow"
    if store is not None:
        try:
            found = _missing(record.history, _stored(store, record.state.stages), last_step)
            reason = "MLflow does not have them either"
        except (OutOfReach, Refused) as error:
            reason = f"MLflow: {redact(str(error))}"
    record.restore(found)
    what = f"metrics.jsonl: {lost} records from before the checkpoint are not there"
    taken = [f"{len(found)} were taken from MLflow"] if found else []
    rest = lost - len(found)
    gone = [f"{rest} are lost ({reason})"] if rest > 0 else []
    return f"{what}; {', '.join([*taken, *gone])}"


def _stored(store: MlflowStore, stages: Iterable[str]) -> list[Record]:
    """All records that the runs of the stages have points of."""
    store.connect()
    records = []
    for stage in stages:
        beat(f"reading what MLflow has of {stage}")
        run = store.find(stage)
        records += [] if run is None else records_of(stage, store.points(run))
    return records


def records_of(stage: str, points: Iterable[Point]) -> list[Record]:
    """The records of a stage that its points are of: those of one record have its step and its time. The phase, which
    no point has, follows from the names of the metrics and the order of the records."""
    moments: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for point in points:
        moments[point.step, point.time][point.metric] = _decode(point.value)
    records: list[Record] = []
    phase: str | None = None
    learns = any(_phase(metrics) == "learn" for metrics in moments.values())
    for (step, time), metrics in sorted(moments.items()):
        own = _phase(metrics)
        if own is not None:
            phase = own
        elif phase is None:
            phase = "learn" if learns else "train"
        elif phase == "grow" and _CHECKED not in metrics:
            phase = "train"
        moment = datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")
        place = {"time": moment, "stage": stage, "phase": phase, "step": step}
        records.append({**place, **{name: encode(value) for name, value in metrics.items()}})
    return records


def _phase(metrics: Mapping[str, float]) -> str | None:
    """What the names say: None: nothing."""
    if _GROWN in metrics:
        return "grow"
    return next((kind for kind in ("learn", "train") if f"{kind}/loss" in metrics), None)


def _missing(kept: Iterable[Record], stored: Iterable[Record], last_step: int) -> list[Record]:
    """Those that are stored and not kept, each once: a run that took steps again has them stored once or twice."""
    known = {identity({clean_key(name): value for name, value in record.items()}) for record in kept}
    missing = []
    for record in stored:
        if record["step"] <= last_step and identity(record) not in known:
            known.add(identity(record))
            missing.append(record)
    return missing


def _decode(value: float) -> float:
    """A database that has no infinite number has the largest one in its place."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value
