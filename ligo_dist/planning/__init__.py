"""What a run takes before it starts: memory, communication, disk and time, on any number of ranks. Imports no torch.

`docs/internals/accounting.md` has every formula; `tests/planning` holds them against whole runs that are measured.
"""

from ligo_dist.planning.estimate import Needs, PhaseEstimate, StageEstimate, estimate_stages, needs
from ligo_dist.planning.forecast import (
    DEFAULT_GPU,
    SECONDS_PER_BLOCK,
    BreakEven,
    Forecast,
    Gpu,
    get_gpu,
    gpu_names,
    gpu_of_device,
)
from ligo_dist.planning.memory import Memory
from ligo_dist.planning.setting import Setting
from ligo_dist.planning.traffic import Traffic

__all__ = [
    "DEFAULT_GPU",
    "SECONDS_PER_BLOCK",
    "BreakEven",
    "Forecast",
    "Gpu",
    "Memory",
    "Needs",
    "PhaseEstimate",
    "Setting",
    "StageEstimate",
    "Traffic",
    "estimate_stages",
    "get_gpu",
    "gpu_names",
    "gpu_of_device",
    "needs",
]
