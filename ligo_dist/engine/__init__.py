"""DeepSpeed ZeRO-3, met here and nowhere else: building an engine, one training step, reading and writing partitions.

What is written down as code here was checked in DeepSpeed 0.19.8; docs/internals/deepspeed.md says why each
call is there.
"""

from ligo_dist.engine import importing  # noqa: F401 - before all that imports DeepSpeed
from ligo_dist.engine.engine import ADAM_MOMENTS, Engine, EvaluationResult, StepResult
from ligo_dist.engine.world import get_accelerator_name, start_world, stop_world
from ligo_dist.engine.zero3 import (
    engine_config,
    partitioned_parameters,
    partitioned_shapes,
    partitions,
    written_by_first_rank,
)
from ligo_dist.runtime.adamw import OptimizerSettings

__all__ = [
    "ADAM_MOMENTS",
    "Engine",
    "EvaluationResult",
    "OptimizerSettings",
    "StepResult",
    "engine_config",
    "get_accelerator_name",
    "partitioned_parameters",
    "partitioned_shapes",
    "partitions",
    "start_world",
    "stop_world",
    "written_by_first_rank",
]
