"""What a run takes before it starts: memory, communication, disk and time, on any number of ranks. Imports no torch.

`docs/internals/accounting.md` has every formula; `tests/planning` holds them against whole runs that are measured.
"""

from ligo_dist.planning.estimate import Needs, PhaseEstimate, estimate_phases, export_bytes, needs
from ligo_dist.planning.forecast import SECONDS_PER_BLOCK, Forecast
from ligo_dist.planning.hardware import DEFAULT_GPU, get_gpu, gpu_names
from ligo_dist.planning.traffic import Traffic

__all__ = [
    "DEFAULT_GPU",
    "SECONDS_PER_BLOCK",
    "Forecast",
    "Needs",
    "PhaseEstimate",
    "Traffic",
    "estimate_phases",
    "export_bytes",
    "get_gpu",
    "gpu_names",
    "needs",
]
