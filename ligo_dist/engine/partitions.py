"""Modules whose parameters are partitioned as they are built, and what lies in the partitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn
from transformers.integrations.deepspeed import prevent_arange_dtype_change

from ligo_dist.distributed import World
from ligo_dist.shards import Shards, padded, partition_range


@contextmanager
def partitioned_parameters(dtype: torch.dtype) -> Iterator[None]:
    """Modules built inside have their parameters partitioned over the ranks as soon as each is built."""
    # By configuration: zero.Init ignores its `dtype` argument where the accelerator has no fp16.
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": {"stage": 3},
    }
    with prevent_arange_dtype_change(), deepspeed.zero.Init(config_dict_or_path=config):
        yield


def partitioned_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the whole parameters of a module built under `partitioned_parameters`, by name."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {name: tuple(parameter.ds_shape) for name, parameter in parameters}


def partitions(module: nn.Module, world: World) -> Shards:
    """Copies of this rank's partitions of a module built under `partitioned_parameters`."""
    parameters: Iterator[tuple[str, Any]] = module.named_parameters()
    return {name: without_padding(parameter, parameter.ds_tensor, world) for name, parameter in parameters}


def without_padding(parameter: Any, local: Tensor, world: World) -> Tensor:
    """A copy with the padding zeroed: DeepSpeed leaves uninitialised memory in it."""
    start, stop = partition_range(parameter.ds_numel, world.rank, world.size)
    return padded(local.detach()[: stop - start], local.numel())
