"""What is recorded of a run: in its directory always, in MLflow if wished, by rank 0 alone."""

from ligo_dist.tracking.address import how_to_open, tracking_address
from ligo_dist.tracking.environment import SOURCE_PATH, SOURCE_RUN, environment_tags, source_tags
from ligo_dist.tracking.record import (
    METRICS_FILE,
    Record,
    Status,
    Tracker,
    read_records,
    record_metrics,
)
from ligo_dist.tracking.state import STATE_FILE, read_state
from ligo_dist.tracking.tracker import build_tracker

__all__ = [
    "METRICS_FILE",
    "SOURCE_PATH",
    "SOURCE_RUN",
    "STATE_FILE",
    "Record",
    "Status",
    "Tracker",
    "build_tracker",
    "environment_tags",
    "how_to_open",
    "read_records",
    "read_state",
    "record_metrics",
    "source_tags",
    "tracking_address",
]
