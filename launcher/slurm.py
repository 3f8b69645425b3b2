"""Slurm: which nodes an allocation has, and the sbatch file of a run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.hosts import Node
from ligo_dist.config.cluster import Cluster
from ligo_dist.runtime.environment import expand_counts, expand_hosts
from ligo_dist.runtime.errors import REQUEUE, LigoError

_WARNING_SECONDS = 60
"""Beside `cluster.grace_seconds`: for the signal to reach the ranks, and for the job to end."""


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


def sbatch_file(cluster: Cluster, config: str, overrides: Sequence[str], run_dir: Path, name: str) -> str:
    """The text of a job that runs a configuration, and asks to be queued again when it was stopped in mid-run.

    Raises:
        LigoError: the number of nodes is not said.
    """
    slurm = cluster.slurm
    if slurm.nodes is None:
        raise LigoError("cluster.slurm.nodes: is missing; say how many nodes the job asks for")
    ranks = slurm.ranks_per_node or slurm.gpus_per_node or 1
    words = [
        f"--job-name={name}",
        f"--nodes={slurm.nodes}",
        f"--ntasks-per-node={ranks}",
        *(
            f"--{key}={value}"
            for key, value in (("partition", slurm.partition), ("account", slurm.account))
            if value
        ),
        *([f"--time={slurm.time}"] if slurm.time else []),
        *([f"--gpus-per-node={slurm.gpus_per_node}"] if slurm.gpus_per_node else []),
        "--requeue",
        "--open-mode=append",
        f"--output={run_dir / 'slurm-%j.log'}",
        f"--signal=B:USR1@{int(cluster.grace_seconds) + _WARNING_SECONDS}",
        *slurm.options,
    ]
    python = cluster.python or sys.executable
    command = [python, "-m", "launcher", "run", config, "--slurm", "--nproc", str(ranks), *overrides]
    return _JOB.format(
        options="\n".join(f"#SBATCH {word}" for word in words),
        directory=shlex.quote(cluster.directory or os.getcwd()),
        command=shlex.join(command),
        requeue=REQUEUE,
    )


def submit(file: Path) -> str:
    """Hand an sbatch file to Slurm, and give the number of the job.

    Raises:
        LigoError: Slurm is not there, or refuses it.
    """
    command = ["sbatch", "--parsable", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        raise LigoError(
            f"`{shlex.join(command)}` failed: {error}; is this a machine that submits jobs?"
        ) from None
    if done.returncode:
        raise LigoError(f"`{shlex.join(command)}` was refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]


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


_JOB = """\
#!/bin/bash
{options}

# Slurm's warning goes to the run, which writes a checkpoint and ends with {requeue}: then the job is queued again.
cd {directory} || exit 2
{command} &
run=$!
trap 'kill -USR1 "$run" 2>/dev/null' USR1 TERM
code=0
while kill -0 "$run" 2>/dev/null; do
    wait "$run"
    code=$?
done
if [ "$code" -gt 128 ]; then  # the wait itself was interrupted, and the run has ended since
    wait "$run"
    again=$?
    [ "$again" -eq 127 ] || code=$again
fi
if [ "$code" -eq {requeue} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""
