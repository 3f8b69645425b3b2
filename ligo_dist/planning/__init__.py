"""What a run takes before it starts: memory, communication, disk and time, on any number of ranks. Imports no torch.

`docs/accounting.md` has every formula; `tests/planning` holds them against whole runs that are measured.
"""

from ligo_dist.planning.estimate import PhaseEstimate, StageEstimate, estimate_stages
from ligo_dist.planning.forecast import Forecast
from ligo_dist.planning.hardware import DEFAULT_GPU, Gpu, get_gpu, gpu_names
from ligo_dist.planning.memory import Memory
from ligo_dist.planning.needs import Needs, needs
from ligo_dist.planning.saving import Saving
from ligo_dist.planning.setting import Setting
from ligo_dist.planning.traffic import Traffic

__all__ = [
    "DEFAULT_GPU",
    "Forecast",
    "Gpu",
    "Memory",
    "Needs",
    "PhaseEstimate",
    "Saving",
    "Setting",
    "StageEstimate",
    "Traffic",
    "estimate_stages",
    "get_gpu",
    "gpu_names",
    "needs",
]
