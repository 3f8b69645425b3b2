"""The tracker that a configuration asks for."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ligo_dist.tracking.address import locks_warning, tracking_address
from ligo_dist.tracking.record import RunRecord, Tracker

if TYPE_CHECKING:
    from ligo_dist.config import Config

_logger = logging.getLogger(__name__)


def build_tracker(
    config: Config,
    run_dir: Path,
    rank: int,
    resume_step: int | None,
    warn: Callable[[str], None] = _logger.warning,
    recorded: int = 0,
) -> Tracker:
    """The tracker that a configuration asks for.

    Args:
        config: the configuration; its section `tracking` is read.
        run_dir: the run's directory.
        rank: this process; all but rank 0 record nothing.
        resume_step: global step of the checkpoint that the run goes on from, None for a new run.
        warn: takes a message when a store fails during the run; may be called from another thread.
        recorded: records that the metrics file had when that checkpoint was made.

    Raises:
        LigoError: the metrics file cannot be written, the tracking URI names no store, mlflow is missing.
    """
    if rank != 0:
        return Tracker()
    tracking = config.tracking
    address = tracking_address(tracking.uri, run_dir) if tracking.mlflow else None
    record = RunRecord(run_dir, address, tracking.experiment, resume_step, warn)
    store = None
    if address is not None:
        from ligo_dist.tracking.mirror import Mirror
        from ligo_dist.tracking.mlflow import MlflowStore, import_mlflow

        import_mlflow()  # here and not in the thread, where it would race with the imports of the training
        if (message := locks_warning(address)) is not None:
            warn(message)
        store = MlflowStore(address, tracking.experiment, record.state.identity, run_dir)
    if resume_step is not None and (lost := recorded - record.recorded) > 0:
        from ligo_dist.tracking.recovery import recover

        warn(recover(record, lost, resume_step, store))
    if store is not None:
        remedy = f"`ligo-dist sync {shlex.quote(str(run_dir))}`"
        Mirror(store, run_dir, record, resume_step is not None, warn, remedy)
    return record
