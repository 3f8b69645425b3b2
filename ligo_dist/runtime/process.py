"""What a process does first to become a rank that whoever has started it can rely on."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
from typing import Any

from ligo_dist.runtime import parent, watchdog
from ligo_dist.runtime.environment import own_cores, rank_environment
from ligo_dist.runtime.errors import FAILED, LigoError
from ligo_dist.runtime.launch import HANG_VARIABLE, LaunchDirectory
from ligo_dist.runtime.machine import available_cores

_BEGUN = "LIGO_DIST_BEGUN"
"""Says that the process has begun anew, and which one has started it."""


def become_rank() -> None:
    """Take over what the launcher has left for this rank, and have it end with what started it.

    Where a launcher supervises, the process begins anew with the launch's environment, and prints into its log.
    """
    launch = LaunchDirectory.given()
    if launch is not None:
        _begin_anew(launch)
    place = rank_environment()
    os.environ.setdefault("OMP_NUM_THREADS", str(own_cores(available_cores())))
    facts: dict[str, Any] = {} if launch is None else {"directory": str(launch.path), "log": True}
    if HANG_VARIABLE in os.environ:
        facts["hang_seconds"] = float(os.environ[HANG_VARIABLE])
    watchdog.start(has_parent=place.is_announced, rank=place.rank, host=socket.gethostname(), **facts)
    if launch is not None:
        _print_into(launch, place.rank)  # who has a log is watched
    faulthandler.enable(file=2)
    if place.is_announced:
        parent.stop_without_it()


def _begin_anew(launch: LaunchDirectory) -> None:
    """Begin once more, with the variables of the launch: some count only when a process begins.

    Raises:
        LigoError: the directory is not there.
    """
    if not launch.path.is_dir():
        raise LigoError(
            f"run_dir: {str(launch.path)!r} is not seen on {socket.gethostname()}; share it with all hosts"
        )
    starter = os.environ.pop(_BEGUN, None)
    if starter is None:
        environment = {**os.environ, **launch.environment(), _BEGUN: str(os.getppid())}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    if starter != str(os.getppid()):
        gone = LigoError("the process that started this rank has gone")
        gone.exit_code = FAILED  # whose mistake that was is not known
        raise gone


def _print_into(launch: LaunchDirectory, rank: int) -> None:
    sys.stdout.flush()
    descriptor = os.open(launch.log(rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
