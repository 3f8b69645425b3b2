"""DeepSpeed ZeRO-3, met here and nowhere else: building an engine, one training step, reading and writing partitions.

What is written down as code here was checked in DeepSpeed 0.19.8; docs/internals/deepspeed.md says why each
call is there.
"""

from ligo_dist.engine import importing  # noqa: F401 - before all that imports DeepSpeed
from ligo_dist.engine.adamw import ADAM_MOMENTS, build_adamw, set_steps
from ligo_dist.engine.blocks import gather_whole
from ligo_dist.engine.check import ZERO_KEYS, refused_keys
from ligo_dist.engine.engine import Engine, EvaluationResult, StepResult
from ligo_dist.engine.feeding import fed, made_ahead
from ligo_dist.engine.muon import Muon, orthogonalized, size_factor
from ligo_dist.engine.shards import (
    Shards,
    overlaps,
    padded,
    partition_range,
    partition_size,
    partitioned,
    shard_of,
    unpadded,
)
from ligo_dist.engine.tensor_file import WrittenFile, write_tensors
from ligo_dist.engine.world import (
    World,
    all_gather,
    barrier,
    environment_world_size,
    first_rank_only,
    gather_numbers,
    gather_objects,
    gather_tensor,
    get_accelerator_name,
    has_native_bf16,
    max_over_ranks,
    present_world,
    raise_together,
    reduce_scatter_mean,
    scatter_tensor,
    seed_everything,
    start_world,
    stop_world,
    sum_over_ranks,
)
from ligo_dist.engine.zero3 import (
    engine_config,
    is_partitioned,
    partitioned_parameters,
    partitioned_shapes,
    partitions,
    write_partitions,
    written_by_first_rank,
)
from ligo_dist.runtime.optimizers import MATRICES, MuonSettings, OptimizerSettings

__all__ = [
    "ADAM_MOMENTS",
    "MATRICES",
    "ZERO_KEYS",
    "Engine",
    "EvaluationResult",
    "Muon",
    "MuonSettings",
    "OptimizerSettings",
    "Shards",
    "StepResult",
    "World",
    "WrittenFile",
    "all_gather",
    "barrier",
    "build_adamw",
    "engine_config",
    "environment_world_size",
    "fed",
    "first_rank_only",
    "gather_numbers",
    "gather_objects",
    "gather_tensor",
    "gather_whole",
    "get_accelerator_name",
    "has_native_bf16",
    "is_partitioned",
    "made_ahead",
    "max_over_ranks",
    "orthogonalized",
    "overlaps",
    "padded",
    "partition_range",
    "partition_size",
    "partitioned",
    "partitioned_parameters",
    "partitioned_shapes",
    "partitions",
    "present_world",
    "raise_together",
    "reduce_scatter_mean",
    "refused_keys",
    "scatter_tensor",
    "seed_everything",
    "set_steps",
    "shard_of",
    "size_factor",
    "start_world",
    "stop_world",
    "sum_over_ranks",
    "unpadded",
    "write_partitions",
    "write_tensors",
    "written_by_first_rank",
]
