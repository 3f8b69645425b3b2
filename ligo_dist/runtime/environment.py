"""Who this process is among the ranks, from what the launcher, or Slurm, has left in the environment; and which hosts a
list of Slurm's names. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from itertools import product

from ligo_dist.runtime.errors import LigoError

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
        is_announced: whether something has started it as a rank, rather than a person as one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    num_nodes: int = 1
    master_address: str = "127.0.0.1"
    master_port: int = 0
    is_announced: bool = False


def rank_environment(environ: Mapping[str, str] = os.environ) -> RankEnvironment:
    """What the environment says: RANK and WORLD_SIZE, as torchrun, `deepspeed` and others set them; else what MPI or a
    step of Slurm says; else one process.

    Raises:
        LigoError: a variable is missing, or has no sensible value.
    """
    environ = {**_mpi(environ), **environ}
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
        is_announced=True,
    )


def _slurm_task(environ: Mapping[str, str]) -> RankEnvironment:
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    world_size = _number(environ, size, at_least=1)
    if world_size == 1:
        return RankEnvironment(is_announced=True)
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
        is_announced=True,
    )


def local_size(environ: Mapping[str, str] = os.environ) -> int:
    """Ranks on this node, as far as the environment says."""
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"):
        if name in environ:
            return _number(environ, name, at_least=1)
    if is_step_task(environ):
        tasks = expand_counts(
            environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_NTASKS_PER_NODE") or "1"
        )
        return tasks[min(_number({"SLURM_NODEID": "0", **environ}, "SLURM_NODEID"), len(tasks) - 1)]
    return 1


def own_cores(available: int, environ: Mapping[str, str] = os.environ) -> int:
    """Of the cores that a process may use, how many are its own: as many as Slurm has given its task, else its part
    of what the ranks of its node share. At least 1."""
    given = environ.get("SLURM_CPUS_PER_TASK", "") if is_step_task(environ) else ""
    return max(1, min(available, int(given)) if given.isdecimal() else available // local_size(environ))


def alone(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a rank without what says that it is one, for a process that it starts."""
    told = (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "LOCAL_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    )
    starters = ("CROSS_", "GROUP_", "ROLE_", "TORCHELASTIC_", "LIGO_DIST_", "SLURM_", "OMPI_", "PMI", "MV2_")
    return {
        name: value for name, value in environ.items() if name not in told and not name.startswith(starters)
    }


_MPI = {
    "RANK": ("OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"),
    "WORLD_SIZE": ("OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"),
    "LOCAL_RANK": ("OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    "LOCAL_WORLD_SIZE": ("OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE"),
}
"""What Open MPI and MVAPICH call it."""


def _mpi(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ[theirs] for name, names in _MPI.items() for theirs in names if theirs in environ}


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


_LAST_STEP = 0xFFFFFFF0
"""Numbers from here on are not steps that `srun` made: the batch script, the shell of `salloc`."""

_RANGE = r"\d+(?:-\d+)?"
_BRACKET = rf"\[{_RANGE}(?:,{_RANGE})*\]"
_HOST = rf"(?:[^\s,\[\]]|{_BRACKET})+"
_COUNT = r"(?P<count>\d+)(?:\(x(?P<times>\d+)\))?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")


def is_step_task(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process. What an sbatch script or a shell of `salloc` runs without it is one process,
    whatever the job was given."""
    step = environ.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < _LAST_STEP


def expand_hosts(hosts: str) -> list[str]:
    """The names that a list of hosts stands for: `node[01-03,7],gpu1` is node01, node02, node03, node7 and gpu1.

    Raises:
        LigoError: it is no such list.
    """
    if not _HOSTS.fullmatch(hosts):
        raise LigoError(f"{hosts!r} is no list of hosts as Slurm writes it, such as 'node[01-03,7],gpu1'")
    return [name for part in re.findall(_HOST, hosts) for name in _expand(part)]


def expand_counts(counts: str) -> list[int]:
    """The numbers that a list of Slurm's stands for, one for each node: `4(x2),3` is 4, 4, 3.

    Raises:
        LigoError: it is no such list.
    """
    parts = [re.fullmatch(_COUNT, part) for part in counts.split(",")]
    if not all(parts):
        raise LigoError(f"{counts!r} is no list of numbers as Slurm writes it, such as '4(x2),3'")
    return [int(part["count"]) for part in parts if part for _ in range(int(part["times"] or 1))]


def _expand(part: str) -> list[str]:
    """The names of one part of a list: its brackets, all combinations of them, the last one running fastest."""
    pieces = re.split(r"\[(.*?)\]", part)  # text, bracket, text, bracket, ..., text
    choices = [_numbers(piece) if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ["".join(combination) for combination in product(*choices)]


def _numbers(ranges: str) -> list[str]:
    numbers = []
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        numbers += [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return numbers
