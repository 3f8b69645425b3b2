"""Several trackers as one."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .protocol import Status, Tracker


class CompositeTracker:
    """Passes every call to each of its trackers, in their order."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        for tracker in self._trackers:
            tracker.start_run(name, parameters, tags)

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.start_stage(stage, parameters)

    def start_phase(self, phase: str) -> None:
        for tracker in self._trackers:
            tracker.start_phase(phase)

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        time = clock.time() if time is None else time  # one time for all of them
        for tracker in self._trackers:
            tracker.log(metrics, step, time)

    def artifact(self, content: Path | str, name: str) -> None:
        for tracker in self._trackers:
            tracker.artifact(content, name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for tracker in self._trackers:
            tracker.set_tags(tags)

    def end_stage(self, status: Status = "FINISHED") -> None:
        for tracker in self._trackers:
            tracker.end_stage(status)

    def close(self, status: Status = "FINISHED") -> None:
        for tracker in self._trackers:
            tracker.close(status)
