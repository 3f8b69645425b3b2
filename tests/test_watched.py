"""Ranks that `deepspeed`, typed by hand, or torchrun has started: whatever strikes them, nothing survives, and the last
checkpoint resumes. A frozen rank is in tests/cluster/test_runs.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.command import free_port
from runs import ROOT, RunFiles, Site, assert_same_weights, environment, run_warm

pytestmark = pytest.mark.slow

_HANG_SECONDS = "cluster.hang_seconds=8.0"
_LONG = ["stages[0].train.steps=40", "stages[1].train.steps=40"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site.make(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def whole_run(site: Site) -> RunFiles:
    """A run on two ranks that nobody disturbed."""
    files = site.config("whole", "two stages")
    assert run_warm(files, 2, *_LONG) == (0, "")
    return files


def typed(by: str, files: RunFiles) -> list[str]:
    """The command of a user."""
    port = str(free_port())
    start = {
        "deepspeed": [
            "--num_nodes",
            "1",
            "--num_gpus",
            "2",
            "--master_port",
            port,
            "--no_local_rank",
            "--module",
        ],
        "torchrun": ["--nproc-per-node", "2", "--master-port", port, "-m"],
    }
    return [
        str(Path(sys.executable).with_name(by)),
        *start[by],
        "ligo_dist",
        str(files.config),
        _HANG_SECONDS,
        *_LONG,
    ]


class Started:
    """The processes of a command: what was typed, what has started the ranks, the ranks, and what watches them."""

    def __init__(self, process: subprocess.Popen[bytes], files: RunFiles) -> None:
        self.process, self._files = process, files

    def wait_for(self, moment: Callable[[], bool], seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while not moment():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    @property
    def said(self) -> str:
        return self._files.config.with_suffix(".out").read_text()

    @property
    def everything(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def rank(self, number: int) -> psutil.Process:
        found = [
            process
            for process in self.everything
            if "ligo_dist" in process.cmdline()[:5] and process.environ().get("RANK") == str(number)
        ]
        (rank,) = found
        return rank

    def ends(self) -> dict[int, dict[str, Any]]:
        directory = max((self._files.run_dir / "logs").iterdir())
        ends = [json.loads(path.read_text()) for path in directory.glob("rank-*.end")]
        return {end["rank"]: end for end in ends}


@contextmanager
def struck(by: str, files: RunFiles) -> Iterator[Started]:
    """A run that has taken a step since it was started, to be struck; afterwards nothing of it is left."""
    began = datetime.now(UTC).isoformat()
    with files.config.with_suffix(".out").open("wb") as output:
        process = subprocess.Popen(
            typed(by, files),
            env=environment(),
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    started = Started(process, files)
    everything: list[psutil.Process] = []
    try:
        started.wait_for(lambda: any(r["time"] > began and "train/loss" in r for r in files.records()))
        everything = started.everything
        assert len(everything) >= 5, "the command, two ranks, two watchdogs"
        yield started
        _, left = psutil.wait_procs(everything, timeout=60)
        assert left == [], started.said
    finally:
        for one in everything:
            with suppress(psutil.Error):
                one.kill()
        process.kill()
        process.wait()


def kill(started: Started) -> None:
    started.rank(1).kill()


def kill_parent(started: Started) -> None:
    started.rank(1).parent().kill()


def request_stop(started: Started) -> None:
    (started._files.run_dir / "stop").touch()


def warn(started: Started) -> None:
    started.rank(1).send_signal(signal.SIGTERM)


def check_ends(fault: Callable[[Started], None], started: Started) -> None:
    """What the ranks say of their end."""
    ends = started.ends()
    if fault in (kill_parent, request_stop, warn):  # the step was finished, and a checkpoint written
        assert {end["code"] for end in ends.values()} == {75}, started.said
    else:
        assert (ends[1]["code"], ends[1]["reason"]) == (None, "was killed")
        assert ends[1]["doing"].startswith(("small", "large"))


@pytest.mark.parametrize(
    ("by", "faults"),
    [
        ("deepspeed", (request_stop, kill, kill_parent, warn)),
        # The other two the ranks see themselves, whoever has started them.
        ("torchrun", (kill, kill_parent)),
    ],
)
def test_nothing_survives_and_the_last_checkpoint_resumes(
    site: Site, whole_run: RunFiles, by: str, faults: Sequence[Callable[[Started], None]]
):
    """One run, struck again and again; a file that asks it to stop is seen within two seconds, the rest at once."""
    files = site.config(by, "two stages")
    for fault in faults:
        with struck(by, files) as started:
            fault(started)
        check_ends(fault, started)
    assert run_warm(files, 2, *_LONG) == (0, "")
    assert files.numbers() == whole_run.numbers()
    assert_same_weights(files, whole_run)


def test_a_process_that_a_person_starts_outlives_the_shell(site: Site, whole_run: RunFiles):
    """It is no rank: nobody has told it so."""
    files = site.config("alone", "two stages")
    command = f"{sys.executable} -m ligo_dist {files.config} & echo $!"
    environ = {name: value for name, value in environment().items() if name != "RANK"}
    done = subprocess.run(["sh", "-c", command], env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(done.stdout.splitlines()[0])
    deadline = time.monotonic() + 240
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (files.run_dir / "summary.json").exists(), os.listdir(files.run_dir)
