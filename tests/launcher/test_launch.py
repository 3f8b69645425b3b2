"""Exit codes and signals, with a stand-in for `deepspeed` that starts as many processes as the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.processes import run_in_group

HERE = Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "quickstart.yaml"
FAKE = HERE / "fake_deepspeed.py"

_DRIVER = """
import sys
from launcher import cli, command, processes
command.deepspeed_executable = lambda: sys.argv[1]
defaults = processes.run_in_group.__defaults__
processes.run_in_group.__defaults__ = (float(sys.argv[2]),)
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.fixture
def launch(tmp_path):
    """Starts `ligo-dist run` with the stand-in behaving as told."""
    executable = tmp_path / "deepspeed"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    executable.chmod(0o755)

    def start(behaviour: str, grace: float = 20.0) -> subprocess.Popen[str]:
        environ = {
            **os.environ,
            "FAKE": behaviour,
            "FAKE_PIDS": str(tmp_path / "pids"),
            "DS_ACCELERATOR": "cpu",
        }
        arguments = ["run", str(CONFIG), f"run_dir={tmp_path / 'run'}", "--nproc", "2"]
        command = [sys.executable, "-c", _DRIVER, str(executable), str(grace), *arguments]
        return subprocess.Popen(
            command,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CONFIG.parents[1],
        )

    return start


def pids(tmp_path: Path) -> list[int]:
    file = tmp_path / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_for_processes(tmp_path: Path) -> None:
    deadline = time.monotonic() + 20
    while len(pids(tmp_path)) < 4:
        assert time.monotonic() < deadline, "the stand-in did not start"
        time.sleep(0.05)
    time.sleep(0.2)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_none_survives(tmp_path: Path) -> None:
    assert pids(tmp_path)
    assert [pid for pid in pids(tmp_path) if runs(pid)] == []


def test_a_run_that_finishes(launch, tmp_path):
    process = launch("finish")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert f"--module ligo_dist {CONFIG} run_dir={tmp_path / 'run'}" in out
    assert_none_survives(tmp_path)


@pytest.mark.parametrize("code", [1, 2, 3])
def test_the_exit_code_of_a_rank_is_ours(launch, tmp_path, code):
    process = launch(f"exit-{code}")
    process.communicate(timeout=30)
    assert process.returncode == code
    assert_none_survives(tmp_path)


@pytest.mark.parametrize("behaviour", ["exit-0", "old-result"])
def test_an_end_without_this_launchs_result_is_a_failure(launch, behaviour):
    process = launch(behaviour)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "deepspeed ended without an error, but the run did not report its end" in err


def test_a_killed_launcher_of_ranks_is_a_failure_and_leaves_no_rank(launch, tmp_path):
    process = launch("kill-launch")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "one of its processes was killed" in err
    assert_none_survives(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(launch, tmp_path, signum):
    process = launch("sleep")
    wait_for_processes(tmp_path)
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signum
    assert_none_survives(tmp_path)


def test_ranks_that_do_not_heed_are_killed_after_the_grace(launch, tmp_path):
    process = launch("stubborn", grace=1.0)
    wait_for_processes(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert_none_survives(tmp_path)


def test_a_second_signal_kills_at_once(launch, tmp_path):
    process = launch("stubborn", grace=60.0)
    wait_for_processes(tmp_path)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert_none_survives(tmp_path)


def test_a_command_ended_by_a_signal_gives_the_shells_code():
    assert run_in_group(["sh", "-c", "kill -9 $$"], os.environ) == 137
    assert run_in_group(["sh", "-c", "exit 7"], os.environ) == 7


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    run_in_group(["true"], os.environ)
    assert signal.getsignal(signal.SIGTERM) is before
