"""The ranks: joining their process group, and leaving it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator

from ligo_dist.distributed import World, max_over_ranks
from ligo_dist.rank_environment import export_rank_environment


def start_world(timeout_seconds: float) -> World:
    """Join the process group that the environment describes.

    Raises:
        LigoError: see `rank_environment`.
    """
    # The shared-memory op serves inference only, and compiling it takes over a minute or hangs on a stale lock.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    environment = export_rank_environment()
    accelerator = get_accelerator()
    device = torch.device(accelerator.device_name())
    if device.type != "cpu":
        # Whoever shows each rank its own device alone (Slurm does, with `--gpus-per-task`) calls them all the first.
        index = 0 if accelerator.device_count() == 1 else environment.local_rank
        os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes the device from there
        device = torch.device(accelerator.device_name(), index)
        accelerator.set_device(index)
    backend = accelerator.communication_backend_name()
    backend = "gloo" if device.type == "cpu" else backend
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=timeout_seconds), verbose=False)
    world = World(dist.get_rank(), dist.get_world_size(), device)
    # Ranks on nodes of unequal size may know different numbers; all go by one.
    return replace(world, nodes=int(max_over_ranks(environment.num_nodes, world)))


def get_accelerator_name() -> str:
    """`cpu`, `cuda`, ...: what the ranks compute on."""
    return get_accelerator().device_name()


def stop_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
