"""`ligo-dist report` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher import cli
from recorded_runs import GROWN, SCRATCH, SMALL, Recorder
from runs import environment


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_report_from_the_command_line(tmp_path: Path) -> None:
    grown = Recorder(tmp_path / "grown").record(SMALL, GROWN)
    scratch = Recorder(tmp_path / "scratch").record(SCRATCH)
    command = [sys.executable, "-m", "launcher", "report", grown, "--baseline", scratch]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment(), "COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "74 %" in done.stdout
    assert done.stdout.rstrip().endswith("report/report.png")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.json", "report.png",
    ]  # fmt: skip


def test_mistakes_are_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_text("mine")
    assert cli.main(["report", "gone", "--baseline", "lost"]) == 2
    assert capsys.readouterr().err == (
        "ligo-dist: gone: there is no such directory; a run is named by its run directory\n"
        "lost: there is no such directory; a run is named by its run directory\n"
        "--output: report is a file; name a directory\n"
    )


def test_faults_of_the_runs_themselves_have_the_same_exit_code(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run", status="KILLED").record(SMALL, planned=["large"])
    command = [sys.executable, "-m", "ligo_dist.report", run, "--output", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ligo-dist: {run}: no evaluate/loss of its last stage, 'large'")
    assert not (tmp_path / "report").exists()
