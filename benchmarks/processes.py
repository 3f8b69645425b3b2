"""Starting ranks for a benchmark, and measuring the memory of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from launcher.command import free_port


def run_on_ranks(
    module: str,
    world_size: int,
    arguments: dict[str, Any],
    keeps_memory: bool = False,
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """Run `python -m module ARGUMENTS-AS-JSON RESULT-FILE` on each rank; returns what each wrote, as JSON.

    Args:
        module: what is run.
        world_size: the number of ranks.
        arguments: of the module.
        keeps_memory: freed blocks are kept for the next ones, as a run does, for measuring times. Otherwise they go
            back to the system at once, so that resident memory is memory in use.
        threads: that a rank computes with; None: its part of the cores.

    Raises:
        RuntimeError: if a rank fails; its output has been shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = [Path(folder) / f"{rank}.json" for rank in range(world_size)]
        port = free_port()
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(arguments), str(results[rank])],
                env=environment_of_rank(rank, world_size, port, keeps_memory)
                | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
                stdout=subprocess.DEVNULL,
            )
            for rank in range(world_size)
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise RuntimeError(f"{module} on {world_size} ranks failed: exit codes {codes}")
        return [json.loads(result.read_text()) for result in results]


def environment_of_rank(
    rank: int, world_size: int, port: int, keeps_memory: bool, *, on_processors: bool = True
) -> dict[str, str]:
    """The environment of a rank on this machine; `keeps_memory` as in `run_on_ranks`. Ranks that are not on processors
    have a GPU each."""
    largest_kept = str(1 << 30 if keeps_memory else 1 << 16)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    return {
        **os.environ,
        **{name: str(value) for name, value in ranks.items()},
        "MASTER_ADDR": "127.0.0.1",
        **({"DS_ACCELERATOR": "cpu"} if on_processors else {}),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // world_size)),
        "MALLOC_MMAP_THRESHOLD_": largest_kept,
        "MALLOC_TRIM_THRESHOLD_": largest_kept,
        "DS_LOG_LEVEL": "error",
        "PYTHONWARNINGS": "ignore",
    }


class PeakMemory:
    """Peak resident memory of this process above what it held at the start (Linux)."""

    def __init__(self) -> None:
        self._base = _status("VmRSS")
        self.restart()

    def restart(self) -> None:
        """Forget the peak so far, not the start."""
        Path("/proc/self/clear_refs").write_text("5")

    def now(self) -> int:
        """Bytes held now."""
        return _status("VmRSS") - self._base

    def peak(self) -> int:
        """Most bytes held since the last restart."""
        return _status("VmHWM") - self._base


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name} in /proc/self/status")
