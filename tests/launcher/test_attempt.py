"""Whose failure it was, when all fail."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from launcher.attempt import Outcome, RankFailure
from launcher.fleet import choose_fleet
from launcher.supervisor import Supervisor
from ligo_dist.config import load_config
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.launch import LaunchDirectory, RankEnd

PEER = RankFailure(
    "a", 0, 1, "ended with exit code 1", lines=["RuntimeError: [gloo] Connection closed by peer [10.0.0.2]"]
)
BUG = RankFailure("b", 2, 1, "ended with exit code 1", lines=["KeyError: 'labels'"])
KILLED = RankFailure("c", 4, None, "was killed")
SILENT = RankFailure("a", 1, None, "has not got on for 600 s")
LOST = RankFailure("b", None, None, "has lost its connection")
STOPPED = RankFailure("b", 3, None, "was stopped (SIGSTOP)", asked=True)
ENDED = RankFailure("c", 5, None, "was killed", asked=True)
FULL = RankFailure("a", 1, 2, "ended with exit code 2")
TOLD_OF_IT = RankFailure("a", 0, 2, "ended with exit code 2", is_own=False)
DIVERGED = RankFailure("b", 2, 3, "ended with exit code 3", asked=True)
SHARED = RankFailure("a", 1, 1, "ended with exit code 1", is_own=False)
NODE = RankFailure("a", None, 2, "`deepspeed` ended with exit code 2")


@pytest.mark.parametrize(
    ("failures", "cause"),
    [
        ([PEER, KILLED], KILLED),
        ([PEER, BUG], BUG),
        ([PEER, LOST], LOST),
        ([SILENT, LOST], LOST),
        ([SILENT], SILENT),
        ([BUG, SILENT], BUG),
        ([ENDED, PEER], PEER),
        ([ENDED, SILENT], SILENT),
        ([SILENT, STOPPED], STOPPED),
        ([KILLED, FULL], FULL),
        ([TOLD_OF_IT, FULL], FULL),
        ([STOPPED, LOST, DIVERGED], DIVERGED),
        ([SHARED, BUG], BUG),
        ([NODE, KILLED], KILLED),
        ([], None),
    ],
)
def test_the_cause_among_failures(failures: list[RankFailure], cause: RankFailure | None):
    assert Outcome(8, failures=failures).cause is cause


def test_a_rank_that_says_nothing_has_no_code():
    ends = {0: RankEnd(0, "a", 0, "ended with exit code 0")}
    assert Outcome(1, ends=ends).codes == {0}
    assert Outcome(2, ends=ends).codes == {0, None}


@pytest.mark.parametrize("name", ["make", "write_environment"])
def test_a_disk_that_is_full_before_anything_is_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "logs"))

    monkeypatch.setattr(LaunchDirectory, name, full)
    config = load_config(Path(__file__).parents[2] / "configs" / "quickstart.yaml", [f"run_dir={tmp_path}"])
    fleet = choose_fleet(config.cluster, slurm=False, nproc=1, accelerators=0, environ={})
    with pytest.raises(LigoError, match=r"^run_dir: .*/logs cannot be written: No space left on device$"):
        Supervisor(config, fleet).run()
