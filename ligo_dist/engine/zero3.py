"""Modules that ZeRO-3 partitions as they are built, and the DeepSpeed configuration of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from ligo_dist.engine.shards import Shards, padded, partition_range, shard_of
from ligo_dist.engine.world import World
from ligo_dist.runtime.zero3 import Zero3


@contextmanager
def partitioned_parameters(dtype: torch.dtype) -> Iterator[None]:
    """Modules built inside have their parameters partitioned over the ranks as soon as each is built. Buffers are
    rounded to the dtype. A process without a process group is no rank: its modules stay whole, as they are built."""
    if not torch.distributed.is_initialized():
        yield
        return
    # By configuration: zero.Init ignores its `dtype` argument where the accelerator has no fp16.
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": {"stage": 3},
    }
    with deepspeed.zero.Init(config_dict_or_path=config):
        yield


@contextmanager
def written_by_first_rank(parameters: Sequence[nn.Parameter]) -> Iterator[bool]:
    """Partitioned parameters are whole inside; what the first rank makes of them is what all partitions have
    afterwards. Collective.

    Yields:
        Whether this is the first rank, as a process without a process group is.
    """
    if not torch.distributed.is_initialized():
        yield True
        return
    with deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0):
        yield deepspeed.comm.get_rank() == 0


def partitioned_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the whole parameters of a module built under `partitioned_parameters`, by name."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {name: tuple(parameter.ds_shape) for name, parameter in parameters}


def partitions(module: nn.Module, world: World) -> Shards:
    """Copies of this rank's partitions of a module's parameters: of one that `zero.Init` has partitioned, or of one
    that every rank has whole."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {
        name: without_padding(parameter, parameter.ds_tensor, world)
        if is_partitioned(parameter)
        else shard_of(parameter, world.rank, world.size).to(world.device)
        for name, parameter in parameters
    }


def is_partitioned(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 holds a parameter in partitions."""
    return hasattr(parameter, "ds_tensor")


def write_partitions(module: nn.Module, shards: Mapping[str, Tensor]) -> None:
    """Set the partitions of a module that no engine has: built under `partitioned_parameters`.

    Args:
        module: whose weights are set.
        shards: of every parameter by its name.
    """
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    for name, parameter in parameters:
        parameter.ds_tensor.data.copy_(shards[name])


def without_padding(
    parameter: Any, local: Tensor, world: World, device: torch.device | None = None
) -> Tensor:
    """A copy, on a device of its own if one is given, with the padding zeroed: DeepSpeed leaves uninitialised memory in
    it."""
    start, stop = partition_range(parameter.ds_numel, world.rank, world.size)
    return padded(local.detach()[: stop - start].to(device or local.device), local.numel())


def engine_config(
    precision: str,
    micro_batch_size: int,
    accumulation: int,
    clipping: float,
    user: Mapping[str, Any],
    block: Iterable[tuple[int, ...]] = (),
) -> dict[str, Any]:
    """The DeepSpeed configuration of one engine: ours, with the user's keys merged in. `block`: as `Zero3.from_keys`
    takes it."""
    sizes = Zero3.from_keys(user, block)
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
            "reduce_bucket_size": sizes.reduce_bucket,
            "stage3_prefetch_bucket_size": sizes.prefetch_bucket,
            "stage3_param_persistence_threshold": sizes.persistence_threshold,
        },
    }
    return _merged(ours, user)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result
