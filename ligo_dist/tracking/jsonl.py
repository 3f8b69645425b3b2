"""The metrics of a run as JSON lines: always written, and the same after a resume as without one."""

from __future__ import annotations

import json
import math
import os
import time as clock
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ligo_dist.errors import LigoError

from .protocol import NullTracker

Record = dict[str, Any]
"""One line: `time`, `stage`, `phase`, `step`, then the metrics by name."""

RECORD_KEYS = ("time", "stage", "phase", "step")


class JsonlTracker(NullTracker):
    """Writes each call of `log` as one line and flushes it.

    JSON has no number for what is not finite: such values are the strings "NaN", "Infinity" and "-Infinity",
    which `float` reads back.

    Args:
        path: the file. Its directory is made.
        resume_step: None for a new run: an earlier file is kept as `<stem>.previous.jsonl`. Otherwise the
            step of the checkpoint that the run goes on from: later records are dropped.
        warn: takes a message when a line could not be written, once.

    Raises:
        LigoError: the file cannot be written.
    """

    def __init__(self, path: Path, resume_step: int | None, warn: Callable[[str], None]) -> None:
        self._path, self._warn, self._warned = path, warn, False
        self._stage: str | None = None
        self._phase: str | None = None
        self.history: list[Record] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume_step is not None:
                self.history = truncate_records(path, resume_step)
            elif path.exists():
                path.replace(path.with_suffix(".previous.jsonl"))
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise LigoError(f"cannot write {path}: {error.strerror or error}") from error
        self._last_step = self.history[-1]["step"] if self.history else 0

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._stage, self._phase = stage, None

    def start_phase(self, phase: str) -> None:
        self._phase = phase

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        assert step >= self._last_step, f"step {step} after step {self._last_step}"
        self._last_step = step
        moment = datetime.fromtimestamp(clock.time() if time is None else time, UTC)
        record: Record = {
            "time": moment.isoformat(timespec="milliseconds"),
            "stage": self._stage,
            "phase": self._phase,
            "step": step,
        }
        record |= {name: _encode(value) for name, value in metrics.items()}
        self._write(json.dumps(record, allow_nan=False) + "\n")

    def end_stage(self, status: str = "FINISHED") -> None:
        self._stage = self._phase = None

    def close(self, status: str = "FINISHED") -> None:
        self._file.close()

    def _write(self, line: str) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"metrics are being lost, cannot write {self._path}: {error.strerror or error}")


def read_records(path: Path) -> list[Record]:
    """The records of a metrics file, oldest first; none if there is no such file.

    A line that is not a whole record is left out: the last one is torn when its writer was killed.
    """
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
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
    temporary = path.with_suffix(".temporary")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return kept


def record_metrics(record: Record) -> dict[str, float]:
    """The metrics of a record as numbers."""
    return {name: float(value) for name, value in record.items() if name not in RECORD_KEYS}


def _encode(value: float) -> float | str:
    value = float(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
