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
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_report_from_the_command_line(tmp_path: Path) -> None:
    grown = Recorder(tmp_path / "grown").record(SMALL, GROWN)
    scratch = Recorder(tmp_path / "scratch").record(SCRATCH)
    command = [sys.executable, "-m", "launcher", "report", grown, "--baseline", scratch]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment(), "COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "74.0 %" in done.stdout
    assert done.stdout.rstrip().endswith("report/report.html")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.html", "report.json", "report.png",
    ]  # fmt: skip


def test_mistakes_are_told_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report").write_text("mine")
    assert cli.main(["report", "gone", "mlflow:1", "--baseline", "lost"]) == 2
    assert capsys.readouterr().err == (
        "ligo-dist: gone: there is no such directory; a run is a run directory, or mlflow:RUN_ID for one in MLflow\n"
        "mlflow:1: name the store that has it, with --uri or MLFLOW_TRACKING_URI\n"
        "lost: there is no such directory; a run is a run directory, or mlflow:RUN_ID for one in MLflow\n"
        "--output: report is a file; name a directory\n"
    )


def test_a_password_on_the_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "mlflow:1", "--uri", "http://me:secret@host"]) == 2
    error = capsys.readouterr().err
    assert "--uri: holds a password" in error
    assert "secret" not in error


def test_faults_of_the_runs_themselves_have_the_same_exit_code(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run", status="KILLED").record(SMALL, planned=["large"])
    command = [sys.executable, "-m", "ligo_dist.report", run, "--output", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ligo-dist: {run}: no evaluate/loss of its last stage, 'large'")
    assert not (tmp_path / "report").exists()
