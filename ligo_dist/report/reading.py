"""What is recorded of a run, read from its directory or from an MLflow store: the same either way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ligo_dist.errors import LigoError
from ligo_dist.tracking import METRICS_FILE
from ligo_dist.tracking.failures import Refused
from ligo_dist.tracking.jsonl import Record, read_records
from ligo_dist.tracking.ledger import LEDGER_FILE, read_ledger
from ligo_dist.tracking.mlflow import PARENT_TAG, MlflowReader, StoredRun, import_mlflow
from ligo_dist.tracking.points import Point

from .places import STORED, check_directory, store_address

LOSS = "evaluate/loss"
FLOPS, TOKENS, SECONDS = "cumulative/flops", "cumulative/tokens", "cumulative/seconds"
SOURCE_LOSS, GROWN_LOSS, GROW_SECONDS = "grow/source_loss", "grow/grown_loss", "grow/seconds"
_READ = {LOSS, FLOPS, TOKENS, SECONDS, SOURCE_LOSS, GROWN_LOSS, GROW_SECONDS}


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a run.

    Attributes:
        place: where it was read from, as the user named it.
        name: of the run.
        status: `RUNNING`, `FINISHED`, `FAILED` or `KILLED`.
        parameters: the whole configuration, flat.
        tags: of the run.
        stages: of each stage that has begun, in order, the parameters.
        records: in the order in which they were made, each with its stage.
    """

    place: str
    name: str
    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    stages: Mapping[str, Mapping[str, str]]
    records: Sequence[Record]


def read_run(place: str, uri: str | None = None) -> Recorded:
    """A run from its directory, or if `place` is `mlflow:RUN_ID` from the store at `uri`, else at the environment's
    `MLFLOW_TRACKING_URI`.

    Raises:
        LigoError: there is no such run.
        OutOfReach, Refused: the store does not answer.
    """
    if place.startswith(STORED):
        return _read_stored(place, store_address(place, uri))
    return read_directory(Path(place))


def read_directory(path: Path) -> Recorded:
    """A run from its directory.

    Raises:
        LigoError: it is none.
    """
    check_directory(path)
    ledger = read_ledger(path)
    if ledger is None or ledger.run is None:
        raise LigoError(f"{path}: no directory of a run: {LEDGER_FILE} cannot be read as the record of a run")
    run = ledger.run
    stages = {stage: tracked.parameters for stage, tracked in ledger.stages.items()}
    records = read_records(path / METRICS_FILE)
    return Recorded(str(path), run.name, run.status, run.parameters, run.tags, stages, records)


def _read_stored(place: str, address: str) -> Recorded:
    import_mlflow()
    store = MlflowReader(address)
    store.open()
    try:
        run, nested = store.read(place.removeprefix(STORED))
    except Refused as error:
        raise LigoError(f"{place}: {error}") from error
    if parent := run.tags.get(PARENT_TAG):
        raise LigoError(f"{place}: one stage of a run; the run itself is {STORED}{parent}")
    points = {stage: store.points(_only_read(stored)) for stage, stored in nested.items()}
    order = sorted(points, key=lambda stage: min((p.time for p in points[stage]), default=0))
    stages = {stage: nested[stage].parameters for stage in order}
    records = [
        record for stage in order for record in _records(stage, points[stage], is_grown(stages[stage]))
    ]
    return Recorded(place, run.name, run.status, run.parameters, run.tags, stages, records)


def is_grown(parameters: Mapping[str, str]) -> bool:
    """Whether a stage with these parameters is grown out of the stage before."""
    return any(name.startswith("grow.") for name in parameters)


def _only_read(run: StoredRun) -> StoredRun:
    return replace(run, metrics=[name for name in run.metrics if name in _READ])


def _records(stage: str, points: Sequence[Point], grown: bool) -> list[Record]:
    """The records that a stage's points were made from: those of one record have step and time in common. MLflow does
    not keep their phase; it is told by where they stand to the growth."""
    together: dict[tuple[int, int], Record] = {}
    for point in points:
        moment = datetime.fromtimestamp(point.time / 1000, UTC).isoformat(timespec="milliseconds")
        record: Record = {"time": moment, "stage": stage, "phase": "train", "step": point.step}
        together.setdefault((point.step, point.time), record)[point.metric] = point.value
    records = [record for _, record in sorted(together.items(), key=lambda item: item[0])]
    growths = [index for index, record in enumerate(records) if GROW_SECONDS in record]
    growth = growths[-1] if growths else len(records) if grown else -1
    for record in records[: max(growth, 0)]:
        record["phase"] = "learn"
    if growths:
        records[growth]["phase"] = "grow"
    return records
