"""The one command that starts the ranks: `deepspeed`, or `srun` within an allocation of Slurm."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.fleet import Fleet
from ligo_dist.config import Cluster
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.runtime.machine import count_accelerators

WORKER = "ligo_dist"
"""The module that is a rank."""

FIRST_PORT = 29500
"""Where ranks on several nodes meet if nobody says; the next attempt takes the next one."""


def start_command(fleet: Fleet, meeting: tuple[str, int], words: Sequence[str]) -> list[str]:
    """What starts the ranks of a launch.

    Args:
        fleet: the machines that are there; of hosts, `cluster.hostfile` names them.
        meeting: address and port where the ranks meet.
        words: the arguments of each rank.
    """
    if fleet.kind == "allocation":
        return _srun(fleet, words)
    command = [deepspeed_program(fleet.cluster), *_where(fleet, meeting[0])]
    command += ["--master_port", str(meeting[1]), "--no_local_rank", "--quiet"]
    if fleet.cluster.wrapper:
        return [*command, "--no_python", *_rank(fleet.cluster, words)]
    return [*command, "--module", WORKER, *words]


def deepspeed_program(cluster: Cluster) -> str:
    """DeepSpeed's launcher starts the ranks by the python that runs it, at the same path on every machine."""
    return str(Path(cluster.python or sys.executable).absolute().with_name("deepspeed"))


def shown(command: Sequence[str]) -> str:
    """As it may be typed into a shell in which the environment is active."""
    program, *words = command
    return shlex.join([Path(program).name, *words])


def next_port(fleet: Fleet, run_dir: Path) -> int:
    """Where the ranks of the next attempt meet: those of the last may hold theirs still."""
    if fleet.cluster.master_port is not None:
        return fleet.cluster.master_port
    before = LaunchDirectory.newest(run_dir)
    number = int(before.path.name) if before else 0
    return free_port() if fleet.is_here else FIRST_PORT + number % 1000


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(cluster: Cluster, words: Sequence[str]) -> list[str]:
    return [*cluster.wrapper, cluster.python or sys.executable, "-u", "-m", WORKER, *words]


def _where(fleet: Fleet, address: str) -> list[str]:
    if fleet.is_here:
        return _devices(fleet.world_size, os.environ)
    cluster = fleet.cluster
    assert cluster.hostfile is not None
    words = ["--hostfile", os.path.abspath(cluster.hostfile)]
    for key in ("include", "exclude"):
        value = getattr(cluster, key)
        words += [] if value is None else [f"--{key}", value]
    words += ["--launcher", cluster.launcher, "--master_addr", address]
    if cluster.launcher_args:
        words.append(f"--launcher_args={shlex.join(cluster.launcher_args)}")
    # It would look at the first host without our options of ssh, and run a single one here.
    return [*words, "--no_ssh_check", *(["--force_multi"] if len(fleet.nodes) == 1 else [])]


def _devices(num_ranks: int, environ: Mapping[str, str]) -> list[str]:
    """The runner's choice of devices. With `--num_gpus` it forgets CUDA_VISIBLE_DEVICES, so those are named to it."""
    visible = [
        device.strip() for device in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()
    ]
    if count_accelerators(environ) and visible and all(device.isdecimal() for device in visible):
        return ["--include", "localhost:" + ",".join(visible[:num_ranks])]
    return ["--num_nodes", "1", "--num_gpus", str(num_ranks)]


def _srun(fleet: Fleet, words: Sequence[str]) -> list[str]:
    """A task for each rank: DeepSpeed's own way through Slurm takes no module and gives no rank its place."""
    nodes, ranks_there = fleet.nodes, fleet.nodes[0].num_ranks
    cores = os.environ.get("SLURM_CPUS_PER_TASK")  # srun itself does not take it over from the job
    return [
        "srun",
        f"--nodes={len(nodes)}",
        f"--ntasks={fleet.world_size}",
        f"--ntasks-per-node={ranks_there}",
        *([f"--cpus-per-task={cores}"] if cores else []),
        f"--nodelist={','.join(node.name for node in nodes)}",
        "--kill-on-bad-exit=1",
        "--unbuffered",
        "--export=ALL",
        *_rank(fleet.cluster, words),
    ]
