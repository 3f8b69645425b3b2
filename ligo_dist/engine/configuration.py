"""The DeepSpeed configuration of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepspeed.accelerator import get_accelerator

from ligo_dist.zero3 import Zero3


def engine_config(
    precision: str, micro_batch_size: int, accumulation: int, clipping: float, user: Mapping[str, Any]
) -> dict[str, Any]:
    """The DeepSpeed configuration of one engine: ours, with the user's keys merged in."""
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": clipping,
        "steps_per_print": 10**12,
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": get_accelerator().device_name() != "cpu",
            "reduce_bucket_size": Zero3.reduce_bucket,
            "stage3_prefetch_bucket_size": Zero3.prefetch_bucket,
            "stage3_param_persistence_threshold": Zero3.persistence_threshold,
        },
    }
    return _merged(ours, user)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result
