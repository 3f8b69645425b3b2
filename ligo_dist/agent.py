"""The process that started this rank, where one did that wants no rank to outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ligo_dist.exit_codes import FAILED

PID_VARIABLE = "LIGO_DIST_AGENT"
"""Holds the agent's process id."""

_PR_SET_PDEATHSIG = 1  # from sys/prctl.h


def end_with_agent() -> None:
    """Have the system kill this process when its agent ends, however that ends; leave if it has ended already.

    The system looks at the agent's thread that started this process: it has to live as long as the agent. On other
    systems than Linux, and without an agent, nothing is done.
    """
    agent = os.environ.get(PID_VARIABLE)
    if not agent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(agent):
        print("ligo-dist: the process that started this rank is gone", file=sys.stderr, flush=True)
        os._exit(FAILED)
