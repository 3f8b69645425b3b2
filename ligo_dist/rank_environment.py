"""Who this process is among the ranks, from what the launcher has left in the environment. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from ligo_dist.errors import LigoError
from ligo_dist.slurm import expand_hosts, is_step_task

_FIRST_PORT, _NUM_PORTS = 20000, 10000
"""Where the ranks of a Slurm step meet: below the ports that systems hand out by themselves."""


@dataclass(frozen=True)
class RankEnvironment:
    """A rank's place; by default that of a process on its own.

    Attributes:
        rank: from 0 on, over all nodes.
        world_size: number of ranks.
        local_rank: among the ranks of its node: the number of its device.
        num_nodes: machines that the ranks run on.
        master_address: host where the ranks meet.
        master_port: TCP port there; 0: any.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    num_nodes: int = 1
    master_address: str = "127.0.0.1"
    master_port: int = 0


def rank_environment(environ: Mapping[str, str] = os.environ) -> RankEnvironment:
    """What the environment says: RANK and WORLD_SIZE, as torchrun, `deepspeed` and others set them; else a step of
    Slurm; else one process.

    Raises:
        LigoError: a variable is missing, or has no sensible value.
    """
    announced = [name for name in ("RANK", "WORLD_SIZE") if name in environ]
    if len(announced) == 2:
        return _announced(environ)
    if is_step_task(environ):
        return _slurm_task(environ)
    if announced:
        raise LigoError(f"{announced[0]} is set, and of RANK and WORLD_SIZE only this one; set both or none")
    return RankEnvironment()


def export_rank_environment(environ: MutableMapping[str, str] = os.environ) -> RankEnvironment:
    """The same, left in the variables that torch and DeepSpeed read."""
    found = rank_environment(environ)
    environ["RANK"] = str(found.rank)
    environ["WORLD_SIZE"] = str(found.world_size)
    environ["LOCAL_RANK"] = str(found.local_rank)
    environ.setdefault("MASTER_ADDR", found.master_address)
    environ.setdefault("MASTER_PORT", str(found.master_port))
    return found


def _announced(environ: Mapping[str, str]) -> RankEnvironment:
    rank, world_size = _number(environ, "RANK"), _number(environ, "WORLD_SIZE")
    if rank >= world_size:
        raise LigoError(f"RANK is {rank} and WORLD_SIZE {world_size}; ranks count from 0 to {world_size - 1}")
    local_rank = 0
    if "LOCAL_RANK" in environ:
        local_rank = _number(environ, "LOCAL_RANK")
    elif "LOCAL_WORLD_SIZE" in environ:
        local_rank = rank % _number(environ, "LOCAL_WORLD_SIZE", at_least=1)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environ]
    if world_size > 1 and missing:
        raise LigoError(
            f"WORLD_SIZE is {world_size}, and {' and '.join(missing)} not set; whatever starts the ranks has to say"
            " where they meet"
        )
    alone = RankEnvironment()
    return RankEnvironment(
        rank,
        world_size,
        local_rank,
        _num_nodes(environ, world_size),
        environ.get("MASTER_ADDR", alone.master_address),
        _number(environ, "MASTER_PORT") if "MASTER_PORT" in environ else alone.master_port,
    )


def _slurm_task(environ: Mapping[str, str]) -> RankEnvironment:
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    world_size = _number(environ, size, at_least=1)
    if world_size == 1:
        return RankEnvironment()
    hosts = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST")
    if hosts is None:
        raise LigoError("SLURM_STEP_ID is set, and neither SLURM_STEP_NODELIST nor SLURM_JOB_NODELIST")
    # By job and step: two steps of one job may run side by side.
    offset = _number(environ, "SLURM_JOB_ID") + _number(environ, "SLURM_STEP_ID")
    return RankEnvironment(
        _number(environ, "SLURM_PROCID"),
        world_size,
        _number(environ, "SLURM_LOCALID"),
        _num_nodes(environ, world_size),
        environ.get("MASTER_ADDR", expand_hosts(hosts)[0]),
        int(environ.get("MASTER_PORT", _FIRST_PORT + offset % _NUM_PORTS)),
    )


def _num_nodes(environ: Mapping[str, str], world_size: int) -> int:
    """As the launcher says it: `deepspeed`, torchrun, Slurm; else from the ranks of this node."""
    names = ["CROSS_SIZE", "GROUP_WORLD_SIZE"]
    if is_step_task(environ):
        names += ["SLURM_STEP_NUM_NODES", "SLURM_NNODES"]
    for name in names:
        if name in environ:
            return _number(environ, name, at_least=1)
    if "LOCAL_WORLD_SIZE" in environ:
        return -(-world_size // _number(environ, "LOCAL_WORLD_SIZE", at_least=1))
    return 1


def _number(environ: Mapping[str, str], name: str, at_least: int = 0) -> int:
    text = environ.get(name)
    if text is None:
        raise LigoError(f"{name} is not set, though Slurm sets it for every task of a step")
    if not text.isdecimal() or int(text) < at_least:
        raise LigoError(f"{name} is {text!r}; it should be a whole number from {at_least} on")
    return int(text)
