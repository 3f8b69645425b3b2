"""The ranks: joining their process group, leaving it, sending each other objects, a few numbers, and whole tensors."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeVar

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from ligo_dist.engine.shards import partition_size, shard_of, unpadded
from ligo_dist.runtime.environment import export_rank_environment, rank_environment
from ligo_dist.runtime.machine import BF16_CAPABILITY, processor_flags, processors_have_bf16

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Who this process is among the ranks, the device it computes on, and the number of nodes they all run on."""

    rank: int
    size: int
    device: torch.device
    nodes: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def environment_world_size() -> int:
    """Number of ranks the launcher announced.

    Raises:
        LigoError: see `rank_environment`.
    """
    return rank_environment().world_size


def broadcast_object(value: T, world: World) -> T:
    """The first rank's value, on every rank. The value must be picklable."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_objects(value: T, world: World) -> list[T]:
    """Every rank's value, on every rank, in the order of the ranks."""
    if world.size == 1:
        return [value]
    values: list[T | None] = [None] * world.size
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def first_rank_only(action: Callable[[], T], world: World) -> T:
    """Run an action on the first rank alone; all ranks get its result, or its exception.

    Raises:
        Exception: whatever the action raised, on every rank, so that no rank is left waiting for another.
    """
    outcome: tuple[T | None, Exception | None] = (None, None)
    if world.is_first:
        try:
            outcome = (action(), None)
        except Exception as error:
            outcome = (None, error)
    result, failure = broadcast_object(outcome, world)
    if failure is not None:
        raise _shared(failure, rank=0)
    return result  # type: ignore[return-value]


def raise_together(failure: Exception | None, world: World) -> None:
    """Raise the failure of the lowest rank that has one, on every rank; return if none has."""
    for rank, error in enumerate(gather_objects(failure, world)):
        if error is not None:
            raise _shared(error, rank)


def _shared(error: Exception, rank: int) -> Exception:
    """An error of one rank that all raise: it is that rank's, which shows it."""
    error.told_by = rank  # type: ignore[attr-defined]
    return error


def sum_over_ranks(values: list[float], world: World) -> list[float]:
    """Element-wise sums of a few numbers over the ranks, in fp64."""
    return added_over_ranks(torch.tensor(values, dtype=torch.float64, device=world.device), world).tolist()


def added_over_ranks(values: Tensor, world: World) -> Tensor:
    """Element-wise sums of a tensor on the ranks' devices, in its place; a device that computes meanwhile is not waited
    for."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(value: float, world: World) -> float:
    tensor = torch.tensor([value], dtype=torch.float64, device=world.device)
    if world.size > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.item()


def gather_numbers(values: list[float], world: World) -> list[list[float]]:
    """Every rank's list of numbers, all of one length, on every rank, in the order of the ranks; in fp64."""
    if world.size == 1:
        return [values]
    row = torch.tensor(values, dtype=torch.float64, device=world.device)
    rows = row.new_empty(world.size * len(values))
    dist.all_gather_into_tensor(rows, row)
    return rows.view(world.size, -1).tolist()


def barrier() -> None:
    """Wait for all ranks, if there are several."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def seed_everything(*parts: int) -> None:
    """Seed torch, numpy and random from a few integers: the same parts, the same random numbers."""
    # By themselves the parts (5,) and (5, 0) would be one: zeros at the end are taken for nothing.
    count = (len(parts),) if len(parts) > 1 else ()
    sequence = np.random.SeedSequence([part % 2**63 for part in parts], spawn_key=count)
    state = sequence.generate_state(2, np.uint64)
    torch.manual_seed(int(state[0] % 2**63))
    np.random.seed(int(state[1] % 2**32))
    random.seed(int(state[1]))


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


def present_world(device: torch.device) -> World:
    """The ranks of the process group that is there already; without one, this process alone.

    Args:
        device: where this process holds what it computes with.
    """
    if not dist.is_initialized():
        return World(0, 1, device)
    if device.type == "cpu" and dist.get_backend() not in ("gloo", "mpi"):  # it sends from accelerators alone
        device = torch.device(get_accelerator().current_device_name())
    return World(dist.get_rank(), dist.get_world_size(), device)


def get_accelerator_name() -> str:
    """`cpu`, `cuda`, ...: what the ranks compute on."""
    return get_accelerator().device_name()


def has_native_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 natively, rather than in fp32 with a rounding after each step."""
    if device.type == "cpu":
        return processors_have_bf16(processor_flags())
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return float(f"{major}.{minor}") >= BF16_CAPABILITY
    return bool(get_accelerator().is_bf16_supported())


def stop_world() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_gather(local_S: Tensor, world: World) -> Tensor:
    """The partitions of all ranks, [N, S], on every rank and its device."""
    local_S = local_S.to(world.device)
    if world.size == 1:
        return local_S.unsqueeze(0)
    gathered_NS = local_S.new_empty(world.size, local_S.numel())
    dist.all_gather_into_tensor(gathered_NS.view(-1), local_S.contiguous())
    return gathered_NS


def gather_tensor(shard: Tensor, shape: tuple[int, ...], world: World) -> Tensor:
    """A whole tensor from its partitions, on every rank."""
    return unpadded(all_gather(shard, world), shape)


def scatter_tensor(full: Tensor | None, numel: int, owner: int, world: World) -> Tensor:
    """This rank's partition of a whole tensor of so many elements, which one rank has. Collective."""
    if world.size == 1:
        assert full is not None
        return shard_of(full, 0, 1).to(world.device)
    shard = torch.empty(partition_size(numel, world.size), device=world.device)
    ranks = range(world.size)
    shards = None if full is None else [shard_of(full, rank, world.size).to(world.device) for rank in ranks]
    dist.scatter(shard, shards, src=owner)
    return shard


def gather_each(parts: Sequence[Tensor], world: World) -> Tensor | None:
    """Partitions of several tensors, at most as many as there are ranks, to one rank each: the first tensor's to the
    first rank. Collective.

    Args:
        parts: this rank's partition of each tensor, [S] of its own size; of one dtype, on the ranks' device.
        world: the ranks.

    Returns:
        All ranks' partitions of the tensor that is this rank's, [N, S]; None where it has none.
    """
    if world.size == 1:
        return parts[0].unsqueeze(0)
    sizes = _padded_sizes([part.numel() for part in parts], world)
    own = sizes[world.rank]
    sent = torch.cat(list(parts))
    gathered = sent.new_empty(world.size * own)
    dist.all_to_all_single(gathered, sent, [own] * world.size, sizes)
    return gathered.view(world.size, own) if own else None


def scatter_each(
    own_NS: Tensor | None, sizes: Sequence[int], dtype: torch.dtype, world: World
) -> list[Tensor]:
    """The other way round: this rank's partition of each tensor, from the ranks that have them. Collective.

    Args:
        own_NS: the partitions for all ranks of the tensor that is this rank's; None where it has none.
        sizes: elements of a partition of each tensor.
        dtype: of all tensors.
        world: the ranks.
    """
    if own_NS is None:
        own_NS = torch.empty(world.size, 0, device=world.device, dtype=dtype)
    if world.size == 1:
        return [own_NS.squeeze(0)]
    received = own_NS.new_empty(sum(sizes))
    own = [own_NS.shape[1]] * world.size
    dist.all_to_all_single(received, own_NS.reshape(-1), _padded_sizes(sizes, world), own)
    return list(received.split(list(sizes)))


def _padded_sizes(sizes: Sequence[int], world: World) -> list[int]:
    """A size for each rank: nothing for those beyond the tensors."""
    return [*sizes, *[0] * (world.size - len(sizes))]


def reduce_scatter_mean(values_NS: Tensor, world: World) -> Tensor:
    """This rank's row of the mean over all ranks, [S]."""
    if world.size == 1:
        return values_NS.squeeze(0)
    local_S = values_NS.new_empty(values_NS.shape[1])
    dist.reduce_scatter_tensor(local_S, values_NS.contiguous().view(-1), op=dist.ReduceOp.AVG)
    return local_S
