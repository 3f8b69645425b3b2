"""What this machine has, found without torch: processor cores, accelerators; and what computes bf16 natively."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

BF16_CAPABILITY = 8.0
"""NVIDIA GPUs of this compute capability, and of higher ones, compute bf16 natively."""

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Processors that compute bf16 natively have one of these, as Linux says it; the last is Arm's."""

CPUINFO = Path("/proc/cpuinfo")

_DEVICE = re.compile(r"nvidia\d+")


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags(cpuinfo: Path = CPUINFO) -> list[str]:
    """What the processors can do beyond the least, in Linux's words; empty where it does not say."""
    try:
        match = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return []
    return match[1].split() if match else []


def processors_have_bf16(flags: Iterable[str]) -> bool:
    """Whether processors with such flags compute bf16 natively, rather than in fp32 with a rounding after each step."""
    return not _BF16_FLAGS.isdisjoint(flags)


def has_native_bf16(flags: Iterable[str], capabilities: Iterable[float], *, on_processors: bool) -> bool:
    """Whether what ranks compute on does bf16 natively; GPUs of which nothing is known are taken for such.

    Args:
        flags: of the processors, as `processor_flags`.
        capabilities: of the GPUs.
        on_processors: whether the ranks compute on the processors.
    """
    if on_processors:
        return processors_have_bf16(flags)
    return all(capability >= BF16_CAPABILITY for capability in capabilities)


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
