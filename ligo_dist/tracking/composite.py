"""Several trackers as one."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .jsonl import RECORD_KEYS, Record
from .protocol import Status, Tracker

Identity = tuple[str | None, str | None, int, frozenset[str]]
"""Tells the records of a run apart: stage, phase, step, names of the metrics."""


class CompositeTracker:
    """Passes every call to each of its trackers, in their order.

    All get the same records: each with a time of its own, so that no store takes two of them for one; and none
    twice, where a resumed run measures at its checkpoint's step what it had recorded there before.

    Args:
        trackers: those it is made of.
        recorded: the records of the step that the run goes on from.
    """

    def __init__(self, trackers: Sequence[Tracker], recorded: Iterable[Record] = ()) -> None:
        self._trackers = trackers
        self._recorded = {_identity(record) for record in recorded}
        self._stage: str | None = None
        self._phase: str | None = None
        self._milliseconds = 0  # of the last record

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        for tracker in self._trackers:
            tracker.start_run(name, parameters, tags)

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        self._stage, self._phase = stage, None
        for tracker in self._trackers:
            tracker.start_stage(stage, parameters)

    def start_phase(self, phase: str) -> None:
        self._phase = phase
        for tracker in self._trackers:
            tracker.start_phase(phase)

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        if (self._stage, self._phase, step, frozenset(metrics)) in self._recorded:
            return
        if time is None:
            self._milliseconds = max(round(clock.time() * 1000), self._milliseconds + 1)
            time = self._milliseconds / 1000
        for tracker in self._trackers:
            tracker.log(metrics, step, time)

    def artifact(self, content: Path | str, name: str) -> None:
        for tracker in self._trackers:
            tracker.artifact(content, name)

    def register_model(self, name: str, directory: Path) -> None:
        for tracker in self._trackers:
            tracker.register_model(name, directory)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for tracker in self._trackers:
            tracker.set_tags(tags)

    def end_stage(self, status: Status = "FINISHED") -> None:
        self._stage = self._phase = None
        for tracker in self._trackers:
            tracker.end_stage(status)

    def close(self, status: Status = "FINISHED") -> None:
        for tracker in self._trackers:
            tracker.close(status)


def _identity(record: Record) -> Identity:
    return record.get("stage"), record.get("phase"), record["step"], frozenset(record) - {*RECORD_KEYS}
