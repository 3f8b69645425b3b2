"""Which nodes an allocation of Slurm has, and how many ranks each is for."""

from __future__ import annotations

import re
from collections.abc import Mapping

from launcher.hosts import Node
from ligo_dist.runtime.environment import expand_counts, expand_hosts
from ligo_dist.runtime.errors import LigoError

_GPUS = re.compile(r"[\w.-]+(?::[\w.-]+)*(?:,[\w.-]+(?::[\w.-]+)*)*")


def allocated_nodes(environ: Mapping[str, str], ranks_per_node: int | None) -> list[Node]:
    """The nodes of the allocation that this process is in.

    Args:
        environ: where Slurm says what it has given.
        ranks_per_node: None: a rank for each GPU of a node, else for each task, else one.

    Raises:
        LigoError: this is no allocation, or what Slurm says of its nodes cannot be read.
    """
    names = environ.get("SLURM_JOB_NODELIST")
    if names is None:
        raise LigoError(
            "--slurm: SLURM_JOB_NODELIST is not set: this is no allocation; use salloc or sbatch, or"
            " `ligo-dist submit CONFIG`"
        )
    hosts = expand_hosts(names)
    gpus = ranks_per_node or _gpus(environ, len(hosts))
    counts = [gpus] * len(hosts) if gpus else _tasks(environ, len(hosts))
    return [Node(name, tuple(range(count))) for name, count in zip(hosts, counts, strict=True)]


def _gpus(environ: Mapping[str, str], num_nodes: int) -> int:
    """GPUs of a node; 0: Slurm says of none."""
    for name in ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"):
        if count := _gpu_count(environ, name):
            return count
    total = _gpu_count(environ, "SLURM_GPUS")
    if total % num_nodes:
        raise LigoError(
            f"--slurm: SLURM_GPUS: {environ['SLURM_GPUS']!r} over {num_nodes} nodes; say --nproc, the ranks on each"
        )
    return total // num_nodes


def _gpu_count(environ: Mapping[str, str], name: str) -> int:
    """`8`, `h100:8`, `h100`, `a100:4,v100:2`: a kind without a number is one."""
    text = environ.get(name, "")
    if text and not _GPUS.fullmatch(text):
        raise LigoError(f"--slurm: {name}: {text!r} is no number of GPUs, such as 8 or a100:4; say --nproc")
    words = [part.rpartition(":")[2] for part in text.split(",") if part]
    return sum(int(word) if word.isdecimal() else 1 for word in words)


def _tasks(environ: Mapping[str, str], num_nodes: int) -> list[int]:
    """Tasks of each node."""
    for name in ("SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        text = environ.get(name)
        if not text:
            continue
        try:
            counts = expand_counts(text)
        except LigoError as error:
            raise LigoError(f"--slurm: {name}: {error}; say --nproc") from None
        counts = counts * num_nodes if len(counts) == 1 else counts
        if len(counts) != num_nodes or 0 in counts:
            raise LigoError(f"--slurm: {name}: {text!r} does not suit {num_nodes} nodes; say --nproc")
        return counts
    return [1] * num_nodes
