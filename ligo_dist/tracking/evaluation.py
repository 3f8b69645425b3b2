"""What was measured on an export after its training, among the records of the run that made it."""

from __future__ import annotations

import json
import re
import time as clock
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.files import EXPORTS_DIRECTORY
from ligo_dist.tracking.record import METRICS_FILE, encode, read_records
from ligo_dist.tracking.sync import read_run, unused

EVALUATE = "evaluate"
"""The phase of these records."""


def harness_metrics(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Task -> metric -> value, as lm-evaluation-harness gives them, by names such as `evaluate/lambada_openai/acc`.

    A metric is called there by its name and the filter of answers it was taken after: `acc,none`, or
    `exact_match,strict-match`, which becomes `exact_match_strict-match`.
    """
    metrics = {}
    for task, values in results.items():
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and "," in name:
                short = re.sub(",none$", "", name).replace(",", "_")
                metrics[f"{EVALUATE}/{task}/{short}"] = float(value)
    return metrics


def run_of_export(export: Path) -> tuple[Path, str] | None:
    """The directory of the run that wrote an export, and the stage; None: it lies in none."""
    path = export.resolve()
    run_dir = path.parent.parent
    if path.parent.name != EXPORTS_DIRECTORY:
        return None
    try:
        state = read_run(run_dir)
    except LigoError:
        return None
    return (run_dir, path.name) if path.name in state.stages else None


def add_evaluation(run_dir: Path, stage: str, metrics: Mapping[str, float]) -> None:
    """Record metrics of a stage's export, at the last step of the stage. `sync` brings them to MLflow.

    Raises:
        LigoError: a run is using the directory, it has no record of the stage, or it cannot be written.
    """
    with unused(run_dir):
        path = run_dir / METRICS_FILE
        steps = [record["step"] for record in read_records(path) if record.get("stage") == stage]
        if not steps:
            raise LigoError(f"{path} has no record of the stage {stage}")
        moment = datetime.fromtimestamp(clock.time(), UTC).isoformat(timespec="milliseconds")
        record = {"time": moment, "stage": stage, "phase": EVALUATE, "step": max(steps)}
        record |= {name: encode(value) for name, value in metrics.items()}
        try:
            torn = not path.read_bytes().endswith(b"\n")
            with path.open("a", encoding="utf-8") as file:
                file.write("\n" * torn + json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise LigoError(f"cannot write {path}: {error.strerror or error}") from error
