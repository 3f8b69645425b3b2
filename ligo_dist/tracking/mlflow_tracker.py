"""Tracking in MLflow while the run goes on: a parent run for the schedule and a nested run for each stage.

Its calls may raise and may take long: `BackgroundTracker` is what keeps that from the training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ligo_dist.redaction import redact

from .delivery import as_ended, deliver, files_of, send_missing_files
from .failures import Refused, Unusable
from .jsonl import Record
from .ledger import PARENT, Ledger, new_run
from .mlflow import MlflowStore
from .parameters import METRIC_BATCH, clean_tags
from .points import Point, make_points, points_of
from .protocol import EXPORT_ARTIFACT, Status


@dataclass
class _OpenRun:
    """A run that is being recorded.

    Attributes:
        run_id: in the store.
        spare: points that the store has of steps that a resumed run takes again, by metric and step.
        waiting: points that wait for `flush`.
    """

    run_id: str
    spare: Counter[tuple[str, int]]
    waiting: list[Point] = field(default_factory=list)


class MlflowTracker:
    """Records a run in an MLflow store; a resumed run goes on in the same MLflow runs.

    Metrics go to the stage's run and to the parent, whose charts so show the whole schedule. On resuming, what the
    store missed of the run before is sent, and points that it has are not sent again.

    Args:
        store: the store.
        earlier: what the run directory said when the run began, if it said anything.
        resume: whether this goes on with that earlier run.
        history: the records it left.
        warn: takes a message for the user.
    """

    def __init__(
        self,
        store: MlflowStore,
        earlier: Ledger | None,
        resume: bool,
        history: Sequence[Record],
        warn: Callable[[str], None],
    ) -> None:
        self._store, self._history, self._warn = store, history, warn
        self._earlier = earlier if resume else None
        self._abandoned = None if resume or earlier is None else earlier.identity
        self._open: dict[str, _OpenRun] = {}  # the parent first, then the stage

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        try:
            self._store.connect()
            if self._abandoned is not None:
                self._store.end_running(self._abandoned)
            self._begin(PARENT, name, parameters, tags)
        except Refused as error:
            raise Unusable(str(error)) from error
        for stage, run in self._earlier.stages.items() if self._earlier else ():
            points = points_of(self._history, stage)
            deliver(self._store, stage, as_ended(run, points), points)

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._begin(stage, stage, parameters, {})

    def start_phase(self, phase: str) -> None:
        self.set_tags({"phase": phase})

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        assert time is not None
        for run in self._open.values():
            for point in make_points(metrics, step, time):
                if run.spare[point.metric, step] > 0:
                    run.spare[point.metric, step] -= 1
                else:
                    run.waiting.append(point)

    def artifact(self, content: Path | str, name: str) -> None:
        run_id = self._innermost.run_id
        with self._optional(f"artifact {name} was not stored"):
            if isinstance(content, str):
                self._store.send_text(run_id, redact(content), name)
                return
            files = list(files_of(content, name))
            if not files:
                raise Refused(f"there is no {content}")
            for file, inner in files:
                self._store.send_file(run_id, file, inner)

    def register_model(self, name: str, directory: Path) -> None:
        run_id, name = self._innermost.run_id, redact(name)
        with self._optional(f"model {name} was not registered"):
            files = files_of(directory, EXPORT_ARTIFACT)
            send_missing_files(self._store, run_id, files, self._store.artifacts(run_id))
            version = self._store.register(run_id, name, EXPORT_ARTIFACT)
        if version is not None:
            self._warn(f"MLflow: {directory} is version {version} of the registered model {name}")

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._store.send_tags(self._innermost.run_id, clean_tags(tags))

    def end_stage(self, status: Status = "FINISHED") -> None:
        self._end([key for key in self._open if key != PARENT], status)

    def close(self, status: Status = "FINISHED") -> None:
        self._end(list(self._open), status)

    def flush(self) -> None:
        """Send the metrics kept back, in batches; one that is refused does not keep back the others."""
        refused = []
        for run in self._open.values():
            while batch := run.waiting[:METRIC_BATCH]:
                try:
                    self._store.send_points(run.run_id, batch)
                except Refused as error:
                    refused.append(error)
                del run.waiting[:METRIC_BATCH]
        if refused:
            raise refused[0]

    @contextmanager
    def _optional(self, failed: str) -> Iterator[None]:
        """Something to do with files: a failure is worth another try only while the whole store is out of reach, as
        it may well have no place for files, or no registry."""
        try:
            yield
        except Exception as error:
            self._store.find(PARENT)  # raises where the store is out of reach
            raise Refused(f"{failed}: {error}") from error

    @property
    def _innermost(self) -> _OpenRun:
        return list(self._open.values())[-1]

    def _begin(self, key: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Go on with the run of that key, or make it. May be called again after it raised."""
        delivery = deliver(self._store, key, new_run(name, parameters, tags), points_of(self._history, key))
        if delivery.is_new and key == PARENT and self._earlier is not None:
            where = redact(self._store.address)
            self._warn(f"MLflow: {where} does not have the run that is resumed; it begins there now")
        self._open[key] = _OpenRun(delivery.run_id, delivery.spare)

    def _end(self, keys: Sequence[str], status: Status) -> None:
        """End runs, whatever the store refuses on the way; may be called again after it raised `OutOfReach`."""
        refused = []
        for key in keys:
            try:
                self._store.set_status(self._open[key].run_id, status)
            except Refused as error:
                refused.append(error)
        try:
            self.flush()
        except Refused as error:
            refused.append(error)
        for key in keys:
            del self._open[key]
        if refused:
            raise refused[0]
