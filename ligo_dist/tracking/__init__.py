"""What is recorded of a run: in its directory always, in MLflow if wished, by rank 0 alone."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .address import how_to_open, tracking_address
from .background import BackgroundTracker
from .composite import CompositeTracker
from .environment import environment_tags
from .jsonl import JsonlTracker, read_records
from .ledger import LEDGER_FILE, LedgerTracker
from .protocol import NullTracker, Status, Tracker

if TYPE_CHECKING:
    from ligo_dist.config.schema import Config

__all__ = [
    "LEDGER_FILE",
    "METRICS_FILE",
    "NullTracker",
    "Status",
    "Tracker",
    "build_tracker",
    "environment_tags",
    "how_to_open",
    "read_records",
    "tracking_address",
]

METRICS_FILE = "metrics.jsonl"

_logger = logging.getLogger(__name__)


def build_tracker(
    config: Config,
    run_dir: Path,
    rank: int,
    resume_step: int | None,
    warn: Callable[[str], None] = _logger.warning,
) -> Tracker:
    """The tracker that a configuration asks for.

    Args:
        config: the configuration; its section `tracking` is read.
        run_dir: the run's directory.
        rank: this process; all but rank 0 record nothing.
        resume_step: global step of the checkpoint that the run goes on from, None for a new run.
        warn: takes a message when a store fails during the run; may be called from another thread.

    Raises:
        LigoError: the metrics file cannot be written, the tracking URI names no store, mlflow is missing.
    """
    if rank != 0:
        return NullTracker()
    tracking = config.tracking
    address = tracking_address(tracking.uri, run_dir) if tracking.mlflow else None
    metrics = JsonlTracker(run_dir / METRICS_FILE, resume_step, warn)
    resume = resume_step is not None
    ledger = LedgerTracker(run_dir, address, tracking.experiment, resume, warn)
    trackers: list[Tracker] = [metrics, ledger]
    if address is not None:
        from .mlflow import MlflowStore, import_mlflow
        from .mlflow_tracker import MlflowTracker

        import_mlflow()  # here and not in the thread, where it would race with the imports of the training
        store = MlflowStore(address, tracking.experiment, ledger.identity, run_dir)
        mlflow = MlflowTracker(store, ledger.earlier, resume, metrics.history, warn)
        remedy = f"`ligo-dist sync {shlex.quote(str(run_dir))}`"
        trackers.append(BackgroundTracker(mlflow, "MLflow", warn, remedy))
    recorded = [record for record in metrics.history if record["step"] == resume_step]
    return CompositeTracker(trackers, recorded)
