"""Tracking in MLflow: a parent run for the schedule and a nested run for each stage.

The only file that imports mlflow. Its calls go through `MlflowClient`, never through the module's global
state, and may raise: `BackgroundTracker` is what keeps that from the training.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ligo_dist.errors import LigoError

from .address import artifact_directory, database_file, redact
from .failures import OutOfReach, Refused, Unusable, describe, translate
from .jsonl import Record, record_metrics
from .parameters import BATCH, METRIC_BATCH, clean_key, clean_tags, flatten
from .protocol import Status
from .run_ids import PARENT, read_run_ids, write_run_ids

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient


class MlflowTracker:
    """Records a run in an MLflow store; a resumed run goes on in the same MLflow runs.

    Metrics go to the stage's run and to the parent, whose charts so show the whole schedule. Which runs these
    are is kept in the run's directory. On resuming, points that the store already has are not sent again, and
    those that it missed are sent from `history`.

    Args:
        address: tracking URI, as `tracking_address` gives it.
        experiment: name of the experiment, which is made if there is none.
        run_dir: the run's directory.
        resume: whether this goes on with an earlier run in `run_dir`.
        history: the records that run left.
        warn: takes a message for the user.
    """

    def __init__(
        self,
        address: str,
        experiment: str,
        run_dir: Path,
        resume: bool,
        history: Sequence[Record],
        warn: Callable[[str], None],
    ) -> None:
        self._address, self._experiment, self._run_dir = address, experiment, run_dir
        self._history, self._warn = history, warn
        earlier = read_run_ids(run_dir)
        self._runs = earlier if resume else {}
        self._abandoned = {} if resume else earlier
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._stage: str | None = None
        self._delivered: dict[
            str, dict[str, int]
        ] = {}  # per open run and metric, the last step the store had
        self._points: dict[str, list[Metric]] = {}  # per open run, what waits for `flush`

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        try:
            with self._store():
                self._connect()
                self._open(PARENT, name, parameters, tags)
        except Refused as error:
            raise Unusable(str(error)) from error

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        with self._store():
            parent = {"mlflow.parentRunId": self._runs[PARENT]}
            self._open(stage, stage, parameters, parent | {"stage": stage})
        self._stage = stage

    def start_phase(self, phase: str) -> None:
        self.set_tags({"phase": phase})

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        assert time is not None
        for key in self._open_keys():
            self._keep(self._runs[key], metrics, step, time)

    def artifact(self, content: Path | str, name: str) -> None:
        """Tried once: a store that takes metrics may well have no place for files."""
        run_id = self._runs[self._open_keys()[-1]]
        try:
            if isinstance(content, str):
                self._connected.log_text(run_id, redact(content), name)
            elif content.is_dir():
                self._connected.log_artifacts(run_id, str(content), name)
            else:
                self._copy_file(run_id, content, Path(name))
        except Exception as error:
            raise Refused(f"artifact {name} was not stored: {describe(error, self._address)}") from error

    def set_tags(self, tags: Mapping[str, str]) -> None:
        with self._store():
            self._send_tags(self._runs[self._open_keys()[-1]], tags)

    def end_stage(self, status: Status = "FINISHED") -> None:
        if self._stage is not None:
            self._end(self._stage, status)
            self._stage = None

    def close(self, status: Status = "FINISHED") -> None:
        self.end_stage(status)
        self._end(PARENT, status)

    def flush(self) -> None:
        """Send the metrics kept back, in batches."""
        for run_id, points in self._points.items():
            while points:
                try:
                    with self._store():
                        self._connected.log_batch(run_id, metrics=points[:METRIC_BATCH])
                except Refused:
                    points.clear()
                    raise
                del points[:METRIC_BATCH]

    @property
    def _connected(self) -> MlflowClient:
        assert self._client is not None
        return self._client

    def _open_keys(self) -> list[str]:
        return [PARENT] if self._stage is None else [PARENT, self._stage]

    def _connect(self) -> None:
        """Open the store, find or make the experiment, and end what a run that began anew left behind."""
        if (file := database_file(self._address)) is not None:
            _check_database(file)
        from mlflow.tracking import MlflowClient

        client = self._client = self._client or MlflowClient(self._address)
        experiment = client.get_experiment_by_name(self._experiment)
        if experiment is None:
            artifacts = artifact_directory(self._address, self._run_dir)
            location = None if artifacts is None else artifacts.as_uri()
            self._experiment_id = client.create_experiment(self._experiment, artifact_location=location)
        elif experiment.lifecycle_stage != "active":
            raise Refused(f"experiment {self._experiment!r} was deleted; restore it or name another")
        else:
            self._experiment_id = experiment.experiment_id
        while self._abandoned:
            _, run_id = self._abandoned.popitem()
            run = self._find(run_id)
            if run is not None and run.info.status == "RUNNING":
                client.set_terminated(run_id, "KILLED")

    def _open(self, key: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Go on with the run of that key, or make it. May be called again after it raised."""
        run = self._find(self._runs[key]) if key in self._runs else None
        if run is None:
            if key in self._runs:
                self._forget(key)
            run = self._connected.create_run(self._experiment_id, tags=clean_tags(tags), run_name=name)
            self._runs[key] = run.info.run_id
            write_run_ids(self._run_dir, self._runs, redact(self._address))
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._connected.update_run(run_id, status="RUNNING")
        self._send_tags(run_id, tags)
        known = run.data.params  # sending one of them with another value would lose its whole batch
        self._send_parameters(run_id, {k: v for k, v in flatten(parameters).items() if k not in known})
        self._delivered[run_id] = {metric.key: metric.step for metric in run.to_proto().data.metrics}
        self._points[run_id] = []
        for record in self._history:
            if key in (PARENT, record.get("stage")):
                moment = datetime.fromisoformat(record["time"]).timestamp()
                self._keep(run_id, record_metrics(record), record["step"], moment)

    def _forget(self, key: str) -> None:
        what = f"stage {key!r}" if key else "run"
        store = redact(self._address)
        self._warn(f"MLflow: {store} does not have the {what} that is resumed; a new one begins there")
        self._runs = {} if key == PARENT else {k: v for k, v in self._runs.items() if k != key}

    def _find(self, run_id: str) -> Run | None:
        from mlflow.exceptions import MlflowException

        try:
            run = self._connected.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _keep(self, run_id: str, metrics: Mapping[str, float], step: int, time: float) -> None:
        from mlflow.entities import Metric

        delivered = self._delivered[run_id]
        for name, value in metrics.items():
            key = clean_key(name)
            if step > delivered.get(key, -1):
                self._points[run_id].append(Metric(key, float(value), int(time * 1000), step))

    def _send_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(key, value) for key, value in parameters.items()]
        for start in range(0, len(entries), BATCH):
            self._connected.log_batch(run_id, params=entries[start : start + BATCH])

    def _send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in clean_tags(tags).items()]
        for start in range(0, len(entries), BATCH):
            self._connected.log_batch(run_id, tags=entries[start : start + BATCH])

    def _copy_file(self, run_id: str, file: Path, name: Path) -> None:
        folder = None if name.parent == Path() else name.parent.as_posix()
        if file.name == name.name:
            self._connected.log_artifact(run_id, str(file), folder)
            return
        with tempfile.TemporaryDirectory() as directory:
            renamed = shutil.copy(file, Path(directory, name.name))
            self._connected.log_artifact(run_id, str(renamed), folder)

    def _end(self, key: str, status: Status) -> None:
        self.flush()
        with self._store():
            self._connected.set_terminated(self._runs[key], status)

    @contextmanager
    def _store(self) -> Iterator[None]:
        """Tell what the store refuses from what passes, in messages of one line without secrets."""
        try:
            yield
        except (OutOfReach, Refused):
            raise
        except Exception as error:
            raise translate(error, self._address) from error


def import_mlflow() -> None:
    """Import mlflow, quiet and set to give up soon; it takes seconds.

    Raises:
        LigoError: mlflow is not installed.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default it retries for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # the address may hold a password
    try:
        import mlflow.tracking  # noqa: F401
    except ImportError as error:
        message = f"tracking.mlflow: mlflow cannot be imported ({error}); install it or set this to false"
        raise LigoError(message) from error
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _check_database(file: Path) -> None:
    """Refuse what SQLite could not open: MLflow would try again for minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"cannot make the directory of the database {file}: {error.strerror}") from error
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise Refused(f"cannot write the database {file}")
