"""What Slurm says about a job: whether this process is a task of a step, and which hosts a list of hosts names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from ligo_dist.errors import LigoError

_LAST_STEP = 0xFFFFFFF0
"""Numbers from here on are not steps that `srun` made: the batch script, the shell of `salloc`."""

_RANGE = r"\d+(?:-\d+)?"
_BRACKET = rf"\[{_RANGE}(?:,{_RANGE})*\]"
_HOST = rf"(?:[^\s,\[\]]|{_BRACKET})+"
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
