"""What a run takes before it starts: memory, communication, disk and time, on any number of ranks. Imports no torch.

`docs/internals/accounting.md` has every formula; `tests/planning` holds them against whole runs that are measured.
"""

from ligo_dist.planning.activations import activation_bytes
from ligo_dist.planning.estimate import (
    Needs,
    PhaseEstimate,
    estimate_phases,
    export_bytes,
    fewest_ranks,
    needs,
)
from ligo_dist.planning.forecast import SECONDS_PER_BLOCK, Forecast
from ligo_dist.planning.gathering import (
    Module,
    Trained,
    Weight,
    all_weights,
    forward_and_backward,
    generated_modules,
    model_modules,
    partitioned,
)
from ligo_dist.planning.hardware import DEFAULT_GPU, GPUS_PER_NODE, Gpu, get_gpu, gpu_names, gpu_of_device
from ligo_dist.planning.law import (
    PUBLISHED,
    Carry,
    GrownPoint,
    Law,
    Laws,
    Point,
    final_losses,
    fit_carry,
    fit_law,
    laws_from_values,
    laws_to_values,
    loss_counts,
    tokens_count,
)
from ligo_dist.planning.memory import Memory, peak_of
from ligo_dist.planning.schedules import (
    Expected,
    Model,
    Schedule,
    all_schedules,
    best_schedules,
    expected,
    reaching,
    saved,
    stacking_rule,
)
from ligo_dist.planning.setting import Setting
from ligo_dist.planning.traffic import Traffic, engine_traffic, generation_traffic, transfer_traffic

__all__ = [
    "DEFAULT_GPU",
    "GPUS_PER_NODE",
    "PUBLISHED",
    "SECONDS_PER_BLOCK",
    "Carry",
    "Expected",
    "Forecast",
    "Gpu",
    "GrownPoint",
    "Law",
    "Laws",
    "Memory",
    "Model",
    "Module",
    "Needs",
    "PhaseEstimate",
    "Point",
    "Schedule",
    "Setting",
    "Traffic",
    "Trained",
    "Weight",
    "activation_bytes",
    "all_schedules",
    "all_weights",
    "best_schedules",
    "engine_traffic",
    "estimate_phases",
    "expected",
    "export_bytes",
    "fewest_ranks",
    "final_losses",
    "fit_carry",
    "fit_law",
    "forward_and_backward",
    "generated_modules",
    "generation_traffic",
    "get_gpu",
    "gpu_names",
    "gpu_of_device",
    "laws_from_values",
    "laws_to_values",
    "loss_counts",
    "model_modules",
    "needs",
    "partitioned",
    "peak_of",
    "reaching",
    "saved",
    "stacking_rule",
    "tokens_count",
    "transfer_traffic",
]
