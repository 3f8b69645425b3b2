"""The `deepspeed` command that starts the ranks, and the environment it wants."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ligo_dist.errors import LigoError

WORKER_MODULE = "ligo_dist"


@dataclass(frozen=True)
class Command:
    """A command line and the environment variables it adds to the caller's."""

    argv: list[str]
    environment: dict[str, str]

    def __str__(self) -> str:
        """As it may be typed into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.argv)])


def compose_command(
    config: str,
    overrides: Sequence[str],
    *,
    num_ranks: int,
    master_port: int,
    num_accelerators: int,
    environ: Mapping[str, str] = os.environ,
) -> Command:
    """The command that starts `num_ranks` ranks of the worker on this machine.

    Args:
        config: path of the configuration file.
        overrides: `key.path=value` words.
        num_ranks: ranks to start.
        master_port: TCP port on which they meet.
        num_accelerators: accelerators of this machine; 0: the ranks run on its processors.
        environ: the environment that the command inherits.
    """
    environment = {}
    if num_accelerators == 0 and "DS_ACCELERATOR" not in environ:
        environment["DS_ACCELERATOR"] = "cpu"
    if "OMP_NUM_THREADS" not in environ:
        environment["OMP_NUM_THREADS"] = str(max(1, available_cores() // num_ranks))
    argv = [deepspeed_executable(), *_devices(num_ranks, num_accelerators, environ)]
    argv += ["--master_port", str(master_port), "--no_local_rank", "--quiet"]
    argv += ["--module", WORKER_MODULE, config, *overrides]
    return Command(argv, environment)


def deepspeed_executable() -> str:
    """The `deepspeed` that belongs to this interpreter, else the one on the path.

    Raises:
        LigoError: if there is none.
    """
    beside = Path(sys.executable).parent / "deepspeed"
    found = str(beside) if beside.is_file() else shutil.which("deepspeed")
    if found is None:
        raise LigoError(
            f"there is no `deepspeed` beside {sys.executable} or on the PATH; is the project installed?"
        )
    return found


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(num_ranks: int, num_accelerators: int, environ: Mapping[str, str]) -> list[str]:
    """The runner's choice of devices. With `--num_gpus` it forgets CUDA_VISIBLE_DEVICES, so those are named
    to it."""
    visible = [device for device in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device.strip()]
    if num_accelerators and visible and all(device.strip().isdecimal() for device in visible):
        return ["--include", "localhost:" + ",".join(device.strip() for device in visible[:num_ranks])]
    return ["--num_nodes", "1", "--num_gpus", str(num_ranks)]
