"""No rank outlives the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone can kill a child with its parent"
)

_RANK = "from ligo_dist.agent import end_with_agent; end_with_agent(); print('ready', flush=True); "
_AGENT = f"""
import os, subprocess, sys, time
environ = {{**os.environ, "LIGO_DIST_AGENT": str(os.getpid())}}
rank = subprocess.Popen(
    [sys.executable, "-c", {_RANK!r} + "import time; time.sleep(600)"], env=environ, stdout=subprocess.PIPE)
rank.stdout.readline()
print(rank.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_rank_whose_agent_is_killed_is_gone():
    agent = subprocess.Popen([sys.executable, "-c", _AGENT], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        assert lives(pid)
    finally:
        agent.kill()
        agent.wait()
    deadline = time.monotonic() + 30
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(agent: int | None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ} | ({} if agent is None else {"LIGO_DIST_AGENT": str(agent)})
    return subprocess.run([sys.executable, "-c", _RANK], env=environ, capture_output=True, text=True)


def test_a_rank_whose_agent_has_ended_already_does_not_begin():
    done = start(agent=2**22 + 1)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ligo-dist: the process that started this rank is gone\n"


def test_with_its_agent_or_without_one_it_begins():
    for agent in (os.getpid(), None):
        done = start(agent)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")
