"""How a process becomes a rank: with what a launcher has left for it, and for as long as what has started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rank_processes import read_line, running, start_python, wait_until

from ligo_dist.runtime import process as module
from ligo_dist.runtime.errors import FAILED, MISTAKE, LigoError
from ligo_dist.runtime.launch import LaunchDirectory

linux = pytest.mark.skipif(sys.platform != "linux", reason="on other systems the watch alone sees to it")

_RANK_1 = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done for this process: the facts for its watchdog, and whether it stops without its parent."""
    started: list[Any] = []
    monkeypatch.setattr(module.watchdog, "start", lambda **facts: started.append(facts))
    monkeypatch.setattr(module.faulthandler, "enable", lambda file: None)
    monkeypatch.setattr(module.parent, "stop_without_it", lambda: started.append("stops without its parent"))
    monkeypatch.setattr(module.socket, "gethostname", lambda: "node")
    for name in (*_RANK_1, "LIGO_DIST_LAUNCH", "LIGO_DIST_BEGUN", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return started


@pytest.mark.parametrize(
    ("ranks", "given", "threads"),
    [(None, None, 7), (1, None, 7), (2, None, 3), (7, None, 1), (8, None, 1), (2, "5", 5)],
)
def test_the_ranks_of_a_node_share_its_cores(
    ranks: int | None, given: str | None, threads: int, started: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "available_cores", lambda: 7)
    for name, value in (("LOCAL_WORLD_SIZE", ranks), ("OMP_NUM_THREADS", given)):
        if value is not None:
            monkeypatch.setenv(name, str(value))
    module.become_rank()
    assert os.environ["OMP_NUM_THREADS"] == str(threads)


def test_cores_that_it_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert module.available_cores() == 3
    monkeypatch.delattr(module.os, "sched_getaffinity")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 5)
    assert module.available_cores() == 5
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    assert module.available_cores() == 1


def test_a_process_that_nothing_has_started_as_a_rank(started: list[Any]):
    module.become_rank()
    assert started == [{"has_parent": False, "rank": 0, "host": "node"}]


def test_a_rank_that_nobody_supervises(started: list[Any], monkeypatch: pytest.MonkeyPatch):
    for name, value in _RANK_1.items():
        monkeypatch.setenv(name, value)
    module.become_rank()
    assert started == [{"has_parent": True, "rank": 1, "host": "node"}, "stops without its parent"]


@pytest.mark.parametrize(
    ("directory", "fault", "code"),
    [
        ("", "the process that started this rank has gone", FAILED),
        ("gone", r"run_dir: '.*/gone' is not seen on node; share it with all hosts", MISTAKE),
    ],
)
def test_a_rank_that_cannot_be_supervised_does_not_begin(
    directory: str, fault: str, code: int, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LIGO_DIST_LAUNCH", str(tmp_path / directory))
    monkeypatch.setenv("LIGO_DIST_BEGUN", "0")  # by another process than the one that has started this one
    with pytest.raises(LigoError, match=fault) as caught:
        module.become_rank()
    assert caught.value.exit_code == code
    assert started == []


# --- real processes ---

_SHOW = """
import os, sys
from ligo_dist.runtime.process import become_rank
become_rank()
words = [os.environ["GREETING"], os.environ["KEPT"], sys.flags.hash_randomization, os.environ.get("LIGO_DIST_BEGUN")]
print(os.getpid(), *words, *sys.argv[1:], flush=True)
print("an error", file=sys.stderr)
os.system("echo from a child")
"""


def test_where_a_launcher_supervises_it_begins_anew_and_prints_into_its_log(tmp_path: Path):
    launch = LaunchDirectory.make(tmp_path)
    # Python itself changes LC_CTYPE when it begins.
    launch.write_environment({"GREETING": "grüß", "PYTHONHASHSEED": "0", "LC_CTYPE": "C"})
    launch.log(1).write_text("from before\n")
    given = {**_RANK_1, "LIGO_DIST_LAUNCH": str(launch.path), "GREETING": "replaced", "KEPT": "here"}
    with start_python(_SHOW, "first argument", **given) as process:
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    lines = ["from before", f"{process.pid} grüß here 0 None first argument", "an error", "from a child"]
    assert launch.log(1).read_text().splitlines() == lines
    if sys.platform == "linux":
        wait_until(lambda: 1 in launch.ends())
        assert launch.ends()[1].lines == lines


_MAIN = """
import sys
from ligo_dist import __main__ as module

def main():
    {body}

module.main = main
sys.exit(module._run_as_rank())
"""


@linux
def test_an_end_that_nobody_expected_has_its_code_all_the_same(tmp_path: Path):
    launch = LaunchDirectory.make(tmp_path)
    codes = {
        "sys.exit(4)": 4,
        "raise RuntimeError('broken')": 1,
        "import atexit, os; atexit.register(os.abort); return 2": 2,
    }
    given = {**_RANK_1, "WORLD_SIZE": str(len(codes)), "LIGO_DIST_LAUNCH": str(launch.path)}
    started = [
        start_python(_MAIN.format(body=body), **given | {"RANK": str(rank)})
        for rank, body in enumerate(codes)
    ]
    for process, code in zip(started, codes.values(), strict=True):
        with process:
            assert (process.communicate(timeout=60), process.returncode) == (("", ""), code)
    wait_until(lambda: len(launch.ends()) == len(codes))
    assert [launch.ends()[rank].code for rank in range(len(codes))] == list(codes.values())
    assert launch.ends()[1].lines[-1] == "RuntimeError: broken"


_START = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""
_WAIT = """
import signal, sys
from ligo_dist.runtime import parent, watchdog
from ligo_dist.runtime.process import become_rank
signal.pthread_sigmask(signal.SIG_BLOCK, [parent.SIGNAL])
become_rank()
watchdog.tell(grace_seconds=0)
print("ready", flush=True)
got = signal.sigtimedwait([parent.SIGNAL], {seconds})
print(got and got.si_signo == parent.SIGNAL, flush=True)
"""


@contextmanager
def orphan(seconds: float, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """What waits so long for the signal after that which started it was killed, and then says whether it came. As the
    output of its parent."""
    with running(_START, _WAIT.format(seconds=seconds), **environ) as parent:
        parent.send_signal(signal.SIGKILL)
        yield parent


@linux
def test_a_rank_is_asked_to_stop_when_what_has_started_it_is_killed():
    with orphan(30, **_RANK_1) as process:
        assert read_line(process) == "True"


@linux
def test_a_process_that_was_started_by_hand_is_not_and_its_watchdog_does_not_mind():
    with orphan(7) as process:  # beyond the grace and what is added to it
        assert read_line(process) == "None"
