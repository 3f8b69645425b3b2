"""Where runs stand, told by the files of their directories alone; no torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.tracking import (
    EVALUATE,
    METRICS_FILE,
    STATE_FILE,
    Record,
    TrackingState,
    parse_records,
    read_records,
    read_state,
)

LOST_SECONDS = 600.0
"""A run that nobody has ended is lost when none of its files has been written for so long: a launcher that watches
writes every few seconds. More than the clocks of two machines differ."""

_TAIL_BYTES = 1 << 18
"""Of the metrics: as a rule the last loss and evaluation are in it."""

RunStatus = Literal["running", "finished", "failed", "stopped", "lost"]
"""`stopped`: it was asked to, and the same command goes on; `lost`: it did not say how it ended."""

_ENDED: dict[str, RunStatus] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped"}


@dataclass(frozen=True)
class Standing:
    """Where a run stands; None is what it has not come to, or did not record.

    Attributes:
        run_dir: its directory.
        status: whether it goes on, or how it ended.
        stage: the last that was begun.
        stage_number: its place among the stages, from 1.
        stages: how many there are.
        phase: `learn`, `grow` or `train`.
        step: of the phase.
        steps: that the phase has.
        loss: of the last training step that was recorded.
        validation_loss: the last that was measured.
        age: seconds since the last record, or where there is none, since the last file was written.
    """

    run_dir: Path
    status: RunStatus
    stage: str | None
    stage_number: int | None
    stages: int | None
    phase: str | None
    step: int | None
    steps: int | None
    loss: float | None
    validation_loss: float | None
    age: float


def find_runs(directory: Path) -> Iterator[Path]:
    """The run directories below a directory, or that one itself; what is hidden, or inside a run, is not looked at.

    Raises:
        LigoError: there is no such directory.
    """
    if not directory.is_dir():
        raise LigoError(f"{directory}: there is no such directory; name the one that your runs are in")
    for path, names, _ in os.walk(directory):
        if _is_run(Path(path)):
            names.clear()
            yield Path(path)
        names[:] = sorted(name for name in names if not name.startswith("."))


def standing_of(run_dir: Path) -> Standing:
    """Where the run of a directory stands now."""
    state, now = read_state(run_dir), time.time()
    records = _last_records(run_dir / METRICS_FILE)
    last: Record = next((record for record in reversed(records) if record.get("phase") != EVALUATE), {})
    launch = LaunchDirectory.newest(run_dir)
    written = _last_written(run_dir, launch)
    stage, phase = last.get("stage"), last.get("phase")
    names = _stage_names(state)
    first, steps = _steps(state, stage, phase)
    return Standing(
        run_dir=run_dir,
        status=_status(launch, state, silent=now - written),
        stage=stage,
        stage_number=names.index(stage) + 1 if stage in names else None,
        stages=len(names) or None,
        phase=phase,
        step=None if first is None else last["step"] - first,
        steps=steps,
        loss=_last(records, f"{phase}/loss"),
        validation_loss=_last(records, "evaluate/loss"),
        age=max(0.0, now - (_time(records[-1]) if records else written)),
    )


def _is_run(path: Path) -> bool:
    return (path / STATE_FILE).is_file() or LaunchDirectory.newest(path) is not None


def _status(launch: LaunchDirectory | None, state: TrackingState | None, silent: float) -> RunStatus:
    """Ranks that have begun and not ended count before what an earlier launch has recorded."""
    said = "RUNNING" if state is None or state.run is None else state.run.status
    open_ends = launch is not None and launch.has_open_ends()
    if said == "FINISHED" or (said in _ENDED and not (open_ends and silent < LOST_SECONDS)):
        return _ENDED[said]
    if launch is not None and not open_ends and launch.ends():
        return "failed"  # at once, before any rank could record it
    return "running" if silent < LOST_SECONDS else "lost"


def _last_written(run_dir: Path, launch: LaunchDirectory | None) -> float:
    """When the newest of the files was written that a run, and its newest launch, write all the time."""
    files = [run_dir / STATE_FILE, run_dir / METRICS_FILE, *(launch.path.iterdir() if launch else ())]
    times = [0.0]
    for file in files:
        with suppress(OSError):  # it is not there yet, or not any more
            times.append(file.stat().st_mtime)
    return max(times)


def _last_records(path: Path) -> list[Record]:
    """The last records of a metrics file: at least so many that a training step and an evaluation are among them, if
    there are."""
    with suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        records = parse_records(file.read())
        if size <= _TAIL_BYTES or _last(records, "evaluate/loss") is not None:
            return records
        return read_records(path)
    return []


def _last(records: Sequence[Record], metric: str) -> float | None:
    return next((float(record[metric]) for record in reversed(records) if metric in record), None)


def _time(record: Record) -> float:
    return datetime.fromisoformat(record["time"]).timestamp()


def _stage_names(state: TrackingState | None) -> list[str]:
    parameters = {} if state is None or state.run is None else state.run.parameters
    names: list[str] = []
    while (name := parameters.get(f"stages.{len(names)}.name")) is not None:
        names.append(name)
    return names


def _steps(
    state: TrackingState | None, stage: str | None, phase: str | None
) -> tuple[int | None, int | None]:
    """The run's global step when a phase begins, and the number of its steps."""
    tracked = None if state is None or stage is None else state.stages.get(stage)
    if tracked is None:
        return None, None
    first, steps = (tracked.parameters.get(f"{phase}.{key}", "") for key in ("first_step", "steps"))
    return (int(first), int(steps)) if first.isdecimal() and steps.isdecimal() else (None, None)
