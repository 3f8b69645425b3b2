"""What a result file says of where it comes from: the commit and the processor."""

from __future__ import annotations

import platform
from pathlib import Path

from ligo_dist.tracking import git_state


def commit() -> str:
    """Of the code that runs; `unknown` outside a repository."""
    state = git_state(Path(__file__).parent)
    return "unknown" if state is None else state[0][:12] + (" with changes" if state[1] else "")


def processor() -> str:
    """The processor's name, as the kernel has it; the kind of machine where it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
