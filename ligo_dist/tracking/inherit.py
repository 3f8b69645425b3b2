"""What a run that begins from another one's checkpoint has of that one's record: the same as if it had measured it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import replace_text
from ligo_dist.tracking.record import METRICS_FILE, Record, read_records, write_records
from ligo_dist.tracking.state import STATE_FILE, TrackingState, read_state

_PHASES = ("learn", "grow", "train")


def inherit_records(other: Path, run_dir: Path, stages: Sequence[str], phase: str, step: int) -> int:
    """Put another run's record up to a checkpoint of it into the directory of a run that begins there: metrics, but for
    the load of its machines, and what is said of the stages before. A record of an earlier try is replaced.

    Args:
        other: the other run's directory.
        run_dir: this one's, which is made.
        stages: that the other run had begun, by name; the checkpoint is of the last one.
        phase: of the checkpoint, `learn` or `train`.
        step: its global step.

    Returns:
        The number of records.

    Raises:
        LigoError: they cannot be written.
    """
    place = (len(stages) - 1, _PHASES.index(phase))

    def is_before(record: Record) -> bool:
        if record["step"] > step or record.get("stage") not in stages or record.get("phase") not in _PHASES:
            return False
        its_place = (stages.index(record["stage"]), _PHASES.index(record["phase"]))
        return its_place <= place and not any(name.startswith("system/") for name in record)

    records = [record for record in read_records(other / METRICS_FILE) if is_before(record)]
    theirs, earlier = read_state(other), read_state(run_dir)
    state = TrackingState(
        # Whoever tries again goes on with the MLflow runs of the try before.
        identity=uuid.uuid4().hex if earlier is None else earlier.identity,
        address=None,
        experiment="",
        stages={
            name: run.model_copy(update={"texts": {}, "files": {}, "given": {}, "registered": {}})
            for name, run in (theirs.stages.items() if theirs is not None else ())
            if name in stages[:-1]
        },
    )
    path = run_dir / METRICS_FILE
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_records(path, records)
        replace_text(run_dir / STATE_FILE, state.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise LigoError(f"cannot write {path}: {error.strerror or error}") from error
    return len(records)
