"""What has to hold inside `tracking`."""

from __future__ import annotations

from ligo_dist.config.schema import Tracking
from ligo_dist.errors import Fault

_MODEL_NAME_LENGTH = 256  # of a name in MLflow's registry


def tracking_faults(tracking: Tracking) -> list[Fault]:
    """Names that MLflow would refuse when the run is over."""
    name = tracking.register_model
    if name is None:
        return []
    path = "tracking.register_model"
    if any(character in name for character in "/:") or name.strip() in ("", ".", ".."):
        return [Fault(path, f"{name!r} is no name of a model; one without '/' and ':' would be right")]
    if len(name) > _MODEL_NAME_LENGTH:
        return [Fault(path, f"has {len(name)} characters; at most {_MODEL_NAME_LENGTH} would be right")]
    return []
