"""What is recorded of a run, in files of its directory: they are the truth, and an MLflow store is their mirror.

metrics.jsonl      a line for each call of `log`; after a resume the same as without one
tracking.json      all else that a store should have: parameters, tags, artifacts, how each stage ended
"""

from __future__ import annotations

import json
import math
import time as clock
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_text
from ligo_dist.runtime.redaction import redact
from ligo_dist.tracking.state import STATE_FILE, TrackedRun, TrackingState, clean_tags, read_state

METRICS_FILE = "metrics.jsonl"
EXPORT_ARTIFACT = "export"
"""Name of the artifact that a registered model's files are."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run or a stage ended: by itself, by an error, by a signal."""

Record = dict[str, Any]
"""One line of the metrics: `time`, `stage`, `phase`, `step`, then the metrics by name."""

RECORD_KEYS = ("time", "stage", "phase", "step")


class Tracker:
    """Records one run, its stages and their phases, in this order:

        start_run, (start_stage, (start_phase, log ...) ..., end_stage) ..., close

    This one records nothing: it is that of every rank but the first.

    Attributes:
        recorded: records in the metrics file, those that a resumed run goes on from among them.
    """

    recorded = 0

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the run, or go on with it when it is resumed. `parameters` may be nested."""

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        """Begin a stage, or go on with the stage of that name of a resumed run."""

    def start_phase(self, phase: str) -> None:
        """Name the phase (`train`, `learn`, `grow`) that the metrics from here on belong to."""

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        """Record metrics at `step`.

        Args:
            metrics: name to value; names such as `train/loss`, `evaluate/loss`, `cumulative/flops`.
            step: the run's global step, counted over all stages; it never goes backwards.
            time: when it was measured, in seconds since the epoch; now, unless given.
        """

    def artifact(self, content: Path | str, name: str) -> None:
        """Keep a file or directory (`Path`) or a text (`str`) under `name`, e.g. `config/resolved.yaml`.

        It belongs to the stage, if one is open, else to the run.
        """

    def register_model(self, name: str, directory: Path) -> None:
        """Keep the files of a model as the artifact `EXPORT_ARTIFACT`, and make a version of the registered model
        `name` of them; no second one of the same run."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, which unlike parameters may change, on the open stage, else on the run."""

    def end_stage(self, status: Status = "FINISHED") -> None:
        """End the open stage."""

    def close(self, status: Status = "FINISHED") -> None:
        """End the run, and with it a stage that is still open. What is called afterwards has no effect."""


class RunRecord(Tracker):
    """Writes the files; no method raises because one cannot be written: a run is worth more than its record.

    JSON has no number for what is not finite: such values are the strings "NaN", "Infinity" and "-Infinity",
    which `float` reads back.

    Args:
        run_dir: the run's directory, which is made.
        address: tracking URI, if the run is tracked in MLflow.
        experiment: name of the MLflow experiment.
        resume_step: None for a new run: earlier metrics are kept as `metrics.previous.jsonl`. Otherwise the step of
            the checkpoint that the run goes on from: later records are dropped.
        warn: takes a message when a file could not be written, once for each.

    Attributes:
        earlier: what the tracking file said before.
        state: what it says now.
        history: the records that a resumed run goes on from.
        on_change: called when there is something new to read; replaced by who reads it.
        on_close: called after the last of it.

    Raises:
        LigoError: the metrics file cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        address: str | None,
        experiment: str,
        resume_step: int | None,
        warn: Callable[[str], None],
    ) -> None:
        self._run_dir, self._warn, self._warned, self._closed = run_dir, warn, set[str](), False
        self._stage: str | None = None
        self._phase: str | None = None
        self._milliseconds = 0  # of the last record
        self.on_change: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None
        path = self._path = run_dir / METRICS_FILE
        self._resume_step = resume_step
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            if resume_step is None and path.exists():
                path.replace(path.with_suffix(".previous.jsonl"))
            self._go_on_from([] if resume_step is None else truncate_records(path, resume_step))
        except OSError as error:
            raise LigoError(f"cannot write {path}: {error.strerror or error}") from error
        self.earlier = read_state(run_dir)
        place: dict[str, Any] = {
            "address": None if address is None else redact(address),
            "experiment": redact(experiment),
        }
        if self.earlier is not None and resume_step is not None:
            self.state = self.earlier.model_copy(update=place, deep=True)
            for stage, run in self.state.stages.items():
                self.state.stages[stage] = run.killed(_last_time(self.history, stage))
        else:
            self.state = TrackingState(identity=uuid.uuid4().hex, **place)

    def _go_on_from(self, history: list[Record]) -> None:
        self.history, self.recorded = history, len(history)
        self._last_step = history[-1]["step"] if history else 0
        # What a resumed run measures at its checkpoint's step it had perhaps recorded there before.
        self._known = {identity(record) for record in history if record["step"] == self._resume_step}
        self._file = self._path.open("a", encoding="utf-8")

    def restore(self, records: Iterable[Record]) -> None:
        """Put records into the file that a resumed run goes on from, before anything is recorded.

        Raises:
            LigoError: the metrics file cannot be written.
        """
        history = sorted([*self.history, *records], key=lambda record: (record["step"], record["time"]))
        try:
            self._file.close()
            write_records(self._path, history)
            self._go_on_from(history)
        except OSError as error:
            raise LigoError(f"cannot write {self._path}: {error.strerror or error}") from error

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        run = self.state.run
        self.state.run = (
            TrackedRun.begin(name, parameters, tags) if run is None else run.resume(parameters, tags)
        )
        self._write()

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._stage, self._phase = stage, None
        run = self.state.stages.get(stage)
        self.state.stages[stage] = (
            TrackedRun.begin(stage, parameters, {}) if run is None else run.resume(parameters, {})
        )
        self._write()

    def start_phase(self, phase: str) -> None:
        self._phase = phase
        self.set_tags({"phase": phase})

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        assert step >= self._last_step, f"step {step} after step {self._last_step}"
        self._last_step = step
        place = {"stage": self._stage, "phase": self._phase, "step": step}
        if self._closed or identity({**place, **metrics}) in self._known:
            return
        if time is None:
            # Each has a time of its own, so that no store takes two of them for one.
            self._milliseconds = max(round(clock.time() * 1000), self._milliseconds + 1)
            time = self._milliseconds / 1000
        moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
        record = {"time": moment, **place, **{name: encode(value) for name, value in metrics.items()}}
        try:
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            self.recorded += 1
        except OSError as error:
            lost = f"metrics are being lost, cannot write {self._path}"
            self._tell_once(METRICS_FILE, f"{lost}: {error.strerror or error}")
        self.on_change()

    def artifact(self, content: Path | str, name: str) -> None:
        if isinstance(content, str):
            self._open.texts[name] = redact(content)
        else:
            path, run_dir = content.absolute(), self._run_dir.absolute()
            within = path.relative_to(run_dir) if path.is_relative_to(run_dir) else path
            self._open.files[name] = str(within)
        self._open.given[name] = self._open.given.get(name, 0) + 1
        self._write()

    def register_model(self, name: str, directory: Path) -> None:
        self._open.registered[redact(name)] = EXPORT_ARTIFACT
        self.artifact(directory, EXPORT_ARTIFACT)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._open.tags.update(clean_tags(tags))
        self._write()

    def end_stage(self, status: Status = "FINISHED") -> None:
        if self._stage is not None:
            self._end(self._open, status)
            self._stage = self._phase = None
            self._write()

    def close(self, status: Status = "FINISHED") -> None:
        if self._closed:
            return
        self.end_stage(status)
        if self.state.run is not None:
            self._end(self.state.run, status)
            self._write()
        self._closed = True
        self._file.close()
        self.on_close()

    @property
    def _open(self) -> TrackedRun:
        """The run that calls are about: of the open stage, else the parent."""
        run = self.state.run if self._stage is None else self.state.stages[self._stage]
        assert run is not None, "called before start_run"
        return run

    @staticmethod
    def _end(run: TrackedRun, status: Status) -> None:
        run.status, run.ended = status, clock.time()

    def _write(self) -> None:
        if self._closed:
            return
        path = self._run_dir / STATE_FILE
        try:
            replace_text(path, self.state.model_dump_json(indent=2) + "\n")
        except OSError as error:
            self._tell_once(STATE_FILE, f"cannot write {path}: {error.strerror or error}")
        self.on_change()

    def _tell_once(self, file: str, message: str) -> None:
        if file not in self._warned:
            self._warned.add(file)
            self._warn(message)


def read_records(path: Path) -> list[Record]:
    """The records of a metrics file, oldest first; none if there is no such file.

    A line that is not a whole record is left out: the last one is torn when its writer was killed.
    """
    return parse_records(path.read_bytes()) if path.exists() else []


def parse_records(lines: bytes) -> list[Record]:
    """The records in lines of a metrics file."""
    records = []
    for line in lines.decode(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def truncate_records(path: Path, last_step: int) -> list[Record]:
    """Drop the records after `last_step` from a metrics file, atomically, and give those that stay."""
    kept = [record for record in read_records(path) if record["step"] <= last_step]
    write_records(path, kept)
    return kept


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write a metrics file that has these records, atomically."""
    replace_text(path, "".join(json.dumps(record) + "\n" for record in records))


def record_metrics(record: Record) -> dict[str, float]:
    """The metrics of a record as numbers."""
    return {name: float(value) for name, value in record.items() if name not in RECORD_KEYS}


def identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tells the records of a run apart: stage, phase, step, names of the metrics."""
    return (record["stage"], record["phase"], record["step"], frozenset(record) - set(RECORD_KEYS))


def _last_time(records: list[Record], stage: str) -> float | None:
    times = [record["time"] for record in records if record["stage"] == stage]
    return datetime.fromisoformat(times[-1]).timestamp() if times else None


def encode(value: float) -> float | str:
    """A number as a record has it."""
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
