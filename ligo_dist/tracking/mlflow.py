"""An MLflow store as the runs of one directory use it. The only file that imports mlflow.

Its calls go through `MlflowClient`, never through the module's global state. They raise `OutOfReach` or `Refused`, in
messages of one line without secrets.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.redaction import redact, secrets_of
from ligo_dist.tracking.address import artifact_directory, database_file
from ligo_dist.tracking.state import PARENT, TrackedRun

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

IDENTITY_TAG = "ligo_dist.identity"
STAGE_TAG = "stage"
PARENT_TAG = "mlflow.parentRunId"
BATCH = 100
"""Parameters or tags in one request."""
METRIC_BATCH = 1000
"""Points of metrics in one request."""

_PASSING_CODES = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}
"""Error codes of MLflow that another try may not meet."""

P = ParamSpec("P")
R = TypeVar("R", bound="MlflowStore")
T = TypeVar("T")


class OutOfReach(Exception):
    """The store did not answer, or not now: the call is worth another try."""


class Refused(Exception):
    """The store refuses a call and would refuse it again."""


class Point(NamedTuple):
    """One value of a metric; `time` in milliseconds since the epoch, as MLflow has it."""

    metric: str
    step: int
    time: int
    value: float


@dataclass(frozen=True)
class StoredRun:
    """What a store says of a run; `metrics` are the names of those that it has points of."""

    run_id: str
    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[str] = ()


def _translated(
    method: Callable[Concatenate[R, P], T],
) -> Callable[Concatenate[R, P], T]:
    """Tell what the store refuses from what passes."""

    @functools.wraps(method)
    def call(store: R, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(store, *args, **kwargs)
        except (OutOfReach, Refused):
            raise
        except Exception as error:
            raise _translate(error, store.address) from error

    return call


class MlflowStore:
    """The MLflow runs of a run directory: a parent and one for each stage, nested in it.

    They are found by a tag that they all bear, so that no id need be kept, and a run whose making was answered too
    late is not made twice.

    Args:
        address: tracking URI, as `tracking_address` gives it.
        experiment: name of the experiment, which is made if there is none.
        identity: what the tag says.
        run_dir: the run's directory.
    """

    def __init__(self, address: str, experiment: str, identity: str, run_dir: Path) -> None:
        self.address = address
        self._opened: MlflowClient | None = None
        self._experiment, self._identity, self._run_dir = experiment, identity, run_dir
        self._experiment_id = ""

    @_translated
    def connect(self) -> None:
        """Open the store, and find or make the experiment."""
        if (file := database_file(self.address)) is not None:
            _check_database(file)
        from mlflow.tracking import MlflowClient

        self._opened = self._opened or MlflowClient(self.address)
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            self._make_experiment()
            experiment = self._client.get_experiment_by_name(self._experiment)
            assert experiment is not None, "it was made, by this run or by another"
        if experiment.lifecycle_stage != "active":
            raise Refused(f"experiment {self._experiment!r} was deleted; restore it or name another")
        self._experiment_id = experiment.experiment_id

    @_translated
    def points(self, run: StoredRun) -> list[Point]:
        """All points that a run has of its `metrics`."""
        return [
            Point(metric, point.step, point.timestamp, point.value)
            for metric in run.metrics
            for point in self._client.get_metric_history(run.run_id, metric)  # page by page
        ]

    @_translated
    def find(self, key: str) -> StoredRun | None:
        """The run with that key, None if the store has none."""
        return next((run for run in self._search(self._identity) if _key_of(run) == key), None)

    @_translated
    def create(self, key: str, run: TrackedRun) -> StoredRun:
        """Make a run, with its tags."""
        tags = {**run.tags, IDENTITY_TAG: self._identity}
        if key != PARENT:
            parent = self.find(PARENT)
            assert parent is not None, "the parent is made first"
            tags |= {STAGE_TAG: key, PARENT_TAG: parent.run_id}
        started = int(run.started * 1000)
        return _stored(self._client.create_run(self._experiment_id, started, tags, run.name))

    @_translated
    def end_running(self, identity: str) -> None:
        """End as `KILLED` the runs of another identity that still count as running."""
        for run in self._search(identity):
            if run.status == "RUNNING":
                self._client.set_terminated(run.run_id, "KILLED")

    @_translated
    def set_status(self, run_id: str, status: str, ended: float | None = None) -> None:
        """Say that a run goes on, or how and when it ended; without a time: now."""
        if status == "RUNNING":
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, None if ended is None else int(ended * 1000))

    @_translated
    def send_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        """Add parameters. One that the run has with another value would lose its whole batch."""
        from mlflow.entities import Param

        for batch in _batches([Param(key, value) for key, value in parameters.items()]):
            self._client.log_batch(run_id, params=batch)

    @_translated
    def send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(key, value) for key, value in tags.items()]):
            self._client.log_batch(run_id, tags=batch)

    @_translated
    def send_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Add points, `METRIC_BATCH` at most; one that the store has is there twice afterwards."""
        from mlflow.entities import Metric

        metrics = [Metric(point.metric, point.value, point.time, point.step) for point in points]
        self._client.log_batch(run_id, metrics=metrics)

    @_translated
    def send_text(self, run_id: str, text: str, name: str) -> None:
        """Add an artifact that is a text, or replace it."""
        self._client.log_text(run_id, text, name)

    @_translated
    def send_file(self, run_id: str, file: Path, name: str) -> None:
        """Add an artifact that is a file, under a name that may be another, or replace it."""
        folder, _, own = name.rpartition("/")
        with tempfile.TemporaryDirectory() as directory:
            source = file if file.name == own else Path(shutil.copy(file, Path(directory, own)))
            self._client.log_artifact(run_id, str(source), folder or None)

    @_translated
    def artifacts(self, run_id: str, folder: str | None = None) -> dict[str, int]:
        """The files among a run's artifacts, in all folders, with their sizes in bytes."""
        sizes: dict[str, int] = {}
        for entry in self._client.list_artifacts(run_id, folder):
            if entry.is_dir:
                sizes |= self.artifacts(run_id, entry.path)
            else:
                sizes[entry.path] = entry.file_size or 0
        return sizes

    @_translated
    def register(self, run_id: str, name: str, artifact: str) -> str | None:
        """Make a version of the registered model `name` of an artifact directory.

        Returns:
            Its number; None if the run has such a version already.
        """
        source = f"{self._client.get_run(run_id).info.artifact_uri}/{artifact}"
        of_run = self._client.search_model_versions(f"run_id = '{run_id}'")
        if any((version.name, version.source) == (name, source) for version in of_run):
            return None
        with _may_exist():
            self._client.create_registered_model(name)
        return str(self._client.create_model_version(name, source, run_id, await_creation_for=0).version)

    @property
    def _client(self) -> MlflowClient:
        assert self._opened is not None, "called before it was opened"
        return self._opened

    def _make_experiment(self) -> None:
        artifacts = artifact_directory(self.address, self._run_dir)
        location = None if artifacts is None else artifacts.as_uri()
        with _may_exist():
            self._client.create_experiment(self._experiment, artifact_location=location)

    def _search(self, identity: str) -> list[StoredRun]:
        wanted = f"tags.`{IDENTITY_TAG}` = '{identity}'"
        return [_stored(run) for run in self._client.search_runs([self._experiment_id], wanted)]


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


@contextlib.contextmanager
def _may_exist() -> Iterator[None]:
    """Let pass that another run was first to make what this one makes."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _key_of(run: StoredRun) -> str:
    return run.tags.get(STAGE_TAG, PARENT)


def _stored(run: Run) -> StoredRun:
    data = run.data
    return StoredRun(run.info.run_id, run.info.status, data.params, data.tags, sorted(data.metrics))


def _batches(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _check_database(file: Path) -> None:
    """Refuse what SQLite could not open: MLflow would try again for minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"cannot make the directory of the database {file}: {error.strerror}") from error
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise Refused(f"cannot write the database {file}")


def _translate(error: Exception, address: str) -> OutOfReach | Refused:
    """The failure that an exception of MLflow, of its database or of the network amounts to."""
    kind = OutOfReach if _may_pass(error) else Refused
    return kind(f"{redact(address)}: {_describe(error, address)}")


def _describe(error: Exception, address: str) -> str:
    """An error in one line without secrets; of a failed connection, the cause alone."""
    text = str(error) or type(error).__name__
    if connection := re.findall(r"\[Errno -?\d+\] ([^'\")>\n]+)", text):
        text = connection[-1]
    for secret in secrets_of(address):
        text = text.replace(secret, "***")
    return redact(text).strip().partition("\n")[0][:300]


def _may_pass(error: Exception) -> bool:
    if code := getattr(error, "error_code", None):
        return code in _PASSING_CODES
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
        return False
    return isinstance(error, OSError) or type(error).__module__.startswith("sqlalchemy")
