"""What a tracker is: where parameters, metrics and artifacts of a run go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run or a stage ended: by itself, by an error, by a signal."""

EXPORT_ARTIFACT = "export"
"""Name of the artifact that a registered model's files are."""


class Tracker(Protocol):
    """Records one run, its stages and their phases, in this order:

        start_run, (start_stage, (start_phase, log ...) ..., end_stage) ..., close

    No method raises because a store is slow or gone: a run is worth more than its record.
    """

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the run, or go on with it when it is resumed. `parameters` may be nested."""
        ...

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None:
        """Begin a stage, or go on with the stage of that name of a resumed run."""
        ...

    def start_phase(self, phase: str) -> None:
        """Name the phase (`train`, `learn`, `grow`) that the metrics from here on belong to."""
        ...

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        """Record metrics at `step`.

        Args:
            metrics: name to value; names such as `train/loss`, `evaluate/loss`, `cumulative/flops`.
            step: the run's global step, counted over all stages; it never goes backwards.
            time: when it was measured, in seconds since the epoch; now, unless given.
        """
        ...

    def artifact(self, content: Path | str, name: str) -> None:
        """Keep a file or directory (`Path`) or a text (`str`) under `name`, e.g. `config/resolved.yaml`.

        It belongs to the stage, if one is open, else to the run.
        """
        ...

    def register_model(self, name: str, directory: Path) -> None:
        """Keep the files of a model as the artifact `EXPORT_ARTIFACT`, and make a version of the registered model
        `name` of them; no second one of the same run."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, which unlike parameters may change, on the open stage, else on the run."""
        ...

    def end_stage(self, status: Status = "FINISHED") -> None:
        """End the open stage."""
        ...

    def close(self, status: Status = "FINISHED") -> None:
        """End the run, and with it a stage that is still open. What is called afterwards has no effect."""
        ...


class NullTracker:
    """Records nothing: the tracker of every rank but 0."""

    def start_run(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None: ...

    def start_stage(self, stage: str, parameters: Mapping[str, Any]) -> None: ...

    def start_phase(self, phase: str) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None: ...

    def artifact(self, content: Path | str, name: str) -> None: ...

    def register_model(self, name: str, directory: Path) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def end_stage(self, status: Status = "FINISHED") -> None: ...

    def close(self, status: Status = "FINISHED") -> None: ...
