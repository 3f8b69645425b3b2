"""What this machine has, found without torch: processor cores, accelerators."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_DEVICE = re.compile(r"nvidia\d+")


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_accelerators(environ: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that a run may use: those of the machine, as far as CUDA_VISIBLE_DEVICES lets them be seen.

    0 where DS_ACCELERATOR says `cpu`.
    """
    if environ.get("DS_ACCELERATOR") == "cpu":
        return 0
    present = _present(devices)
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return present
    named = [device.strip() for device in visible.split(",")]
    # CUDA stops at the first device that does not exist: "-1" and "" hide all.
    usable = 0
    for device in named:
        if not device or (device.lstrip("-").isdecimal() and not 0 <= int(device) < present):
            break
        usable += 1
    return min(usable, present)


def _present(devices: Path) -> int:
    files = [path for path in devices.glob("nvidia*") if _DEVICE.fullmatch(path.name)]
    if files or shutil.which("nvidia-smi") is None:
        return len(files)
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0
