"""What a tracking store should hold of a run, in a file of its directory, so that what it misses can be delivered."""

from __future__ import annotations

import os
import time as clock
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from ligo_dist.redaction import redact

from .parameters import clean_tags, flatten
from .protocol import EXPORT_ARTIFACT, NullTracker, Status

LEDGER_FILE = "tracking.json"
PARENT = ""
"""Key of the parent run; those of the stages are keyed by the stage's name."""


class TrackedRun(BaseModel):
    """One MLflow run as it should be; names and values are such that MLflow takes them, without secrets.

    Attributes:
        name, parameters, tags: of the run.
        texts: artifacts that are texts, by name.
        files: artifacts that are files or directories: by name, their path, relative to the run directory if they lie
            in it.
        registered: names of registered models, each with the artifact that is a version of it.
        status: how it ended; `RUNNING` where nobody has said so: it goes on, or was killed.
        started, ended: in seconds since the epoch.
    """

    name: str
    parameters: dict[str, str] = {}
    tags: dict[str, str] = {}
    texts: dict[str, str] = {}
    files: dict[str, str] = {}
    registered: dict[str, str] = {}
    status: Literal["RUNNING", "FINISHED", "FAILED", "KILLED"] = "RUNNING"
    started: float
    ended: float | None = None


class Ledger(BaseModel):
    """What `tracking.json` says.

    Attributes:
        identity: a word that the run's MLflow runs bear as a tag, by which they are found in any store.
        address: of the store, without secrets; None: the run was not tracked in MLflow.
        experiment: its name.
        run: the parent run; None before it has begun.
        stages: the nested runs by stage, in their order.
    """

    identity: str
    address: str | None
    experiment: str
    run: TrackedRun | None = None
    stages: dict[str, TrackedRun] = {}

    def runs(self) -> Iterator[tuple[str, TrackedRun]]:
        """The runs with their keys, the parent first."""
        if self.run is not None:
            yield PARENT, self.run
        yield from self.stages.items()


def read_ledger(run_dir: Path) -> Ledger | None:
    """The ledger of a run directory; None if there is none, or one that cannot be read."""
    try:
        return Ledger.model_validate_json((run_dir / LEDGER_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


class LedgerTracker(NullTracker):
    """Keeps the ledger of a run, written anew at each change but for metrics, which are in a file of their own.

    Args:
        run_dir: the run's directory.
        address: tracking URI, if the run is tracked in MLflow.
        experiment: name of the MLflow experiment.
        resume: whether the run goes on with an earlier one in `run_dir`.
        warn: takes a message when the file could not be written, once.

    Attributes:
        earlier: the ledger that was there before, as it was.
        identity: of this run: the earlier one's, if it goes on.
    """

    def __init__(
        self, run_dir: Path, address: str | None, experiment: str, resume: bool, warn: Callable[[str], None]
    ) -> None:
        self._run_dir, self._warn, self._warned, self._closed = run_dir, warn, False, False
        self._stage: str | None = None
        self.earlier = read_ledger(run_dir)
        shown = None if address is None else redact(address)
        if self.earlier is not None and resume:
            place = {"address": shown, "experiment": redact(experiment)}
            self._ledger = self.earlier.model_copy(update=place, deep=True)
        else:
            self._ledger = Ledger(identity=uuid.uuid4().hex, address=shown, experiment=redact(experiment))
        self.identity = self._ledger.identity

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._ledger.run = _begun(self._ledger.run, name, parameters, tags)
        self._write()

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._stage = stage
        self._ledger.stages[stage] = _begun(self._ledger.stages.get(stage), stage, parameters, {})
        self._write()

    def start_phase(self, phase: str) -> None:
        self.set_tags({"phase": phase})

    def artifact(self, content: Path | str, name: str) -> None:
        if isinstance(content, str):
            self._open.texts[name] = redact(content)
        else:
            path, run_dir = content.absolute(), self._run_dir.absolute()
            within = path.relative_to(run_dir) if path.is_relative_to(run_dir) else path
            self._open.files[name] = str(within)
        self._write()

    def register_model(self, name: str, directory: Path) -> None:
        self._open.registered[redact(name)] = EXPORT_ARTIFACT
        self.artifact(directory, EXPORT_ARTIFACT)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._open.tags.update(clean_tags(tags))
        self._write()

    def end_stage(self, status: Status = "FINISHED") -> None:
        if self._stage is not None:
            _end(self._open, status)
            self._stage = None
            self._write()

    def close(self, status: Status = "FINISHED") -> None:
        self.end_stage(status)
        if self._ledger.run is not None and not self._closed:
            _end(self._ledger.run, status)
            self._write()
        self._closed = True

    @property
    def _open(self) -> TrackedRun:
        """The run that calls are about: of the open stage, else the parent."""
        run = self._ledger.run if self._stage is None else self._ledger.stages[self._stage]
        assert run is not None, "called before start_run"
        return run

    def _write(self) -> None:
        if self._closed:
            return
        temporary = self._run_dir / f"{LEDGER_FILE}.temporary"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(self._ledger.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._run_dir / LEDGER_FILE)
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"cannot write {self._run_dir / LEDGER_FILE}: {error.strerror or error}")


def new_run(name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> TrackedRun:
    """A run that begins now."""
    return TrackedRun(
        name=redact(name), parameters=flatten(parameters), tags=clean_tags(tags), started=clock.time()
    )


def _begun(
    earlier: TrackedRun | None, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]
) -> TrackedRun:
    """A run that begins, or goes on: then parameters that it has do not change, as MLflow lets none change."""
    run = new_run(name, parameters, tags)
    if earlier is None:
        return run
    return run.model_copy(
        update={
            "parameters": run.parameters | earlier.parameters,
            "tags": earlier.tags | run.tags,
            "texts": earlier.texts,
            "files": earlier.files,
            "registered": earlier.registered,
            "started": earlier.started,
        }
    )


def _end(run: TrackedRun, status: Status) -> None:
    run.status, run.ended = status, clock.time()
