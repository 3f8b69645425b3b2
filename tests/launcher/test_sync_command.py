"""`ligo-dist sync`: what is refused at once, and what is left to the process that imports mlflow. That one runs in
tests/test_outage.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from launcher import cli
from launcher.commands import sync as sync_command
from ligo_dist.tracking import RunRecord


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The directory of a run that was killed before its first step."""
    directory = tmp_path / "run"
    directory.mkdir()
    tracker = RunRecord(directory, None, "experiment", None, pytest.fail)
    tracker.start_run("run", {}, {})
    return directory


def test_mistakes_are_told_together_and_start_nothing(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_command.subprocess, "run", lambda *_: pytest.fail("a process was started"))
    (run_dir.parent / "empty").mkdir()
    with FileLock(run_dir / ".lock"):
        words = [str(run_dir.parent / name) for name in ("nowhere", "empty", "run")]
        assert cli.main(["sync", *words]) == 2
    nowhere, empty, used = words
    assert capsys.readouterr() == (
        "",
        f"ligo-dist: {nowhere}: there is no such directory\n"
        f"{empty}: no directory of a run: tracking.json is missing\n"
        f"{used}: in use by a run; what MLflow misses can be sent when it has ended\n",
    )


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("redis://there", "--uri: 'redis://there' has the unknown scheme 'redis'"),
        ("http://me:hunter22@host", "ligo-dist: --uri: holds a password or token"),
    ],
)
def test_an_address_that_cannot_be(
    run_dir: Path, uri: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_command.subprocess, "run", lambda *_: pytest.fail("a process was started"))
    assert cli.main(["sync", str(run_dir), "--uri", uri]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hunter22" not in err


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_that_of_the_process(
    run_dir: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def note(argv: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(argv)
        return subprocess.CompletedProcess(argv, code)

    monkeypatch.setattr(sync_command.subprocess, "run", note)
    assert cli.main(["sync", str(run_dir), "--uri", "http://host"]) == code
    assert started == [[sys.executable, "-m", "ligo_dist.tracking.sync", "--uri=http://host", str(run_dir)]]
