"""DeepSpeed ZeRO-3, met here and nowhere else: building an engine, one training step, reading and writing partitions.

What is written down as code here was checked in DeepSpeed 0.19.8; see docs/deepspeed.md for why each call is there.
"""

from .configuration import engine_config
from .engine import ADAM_MOMENTS, Engine, Evaluation, OptimizerSettings, StepResult
from .partitions import partitioned_parameters, partitioned_shapes, partitions
from .world import get_accelerator_name, start_world, stop_world

__all__ = [
    "ADAM_MOMENTS",
    "Engine",
    "Evaluation",
    "OptimizerSettings",
    "StepResult",
    "engine_config",
    "get_accelerator_name",
    "partitioned_parameters",
    "partitioned_shapes",
    "partitions",
    "start_world",
    "stop_world",
]
