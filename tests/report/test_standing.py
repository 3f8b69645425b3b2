"""Where runs stand, by what the trackers and the launcher leave in their directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import cli
from ligo_dist.report import LOST_SECONDS, Standing, find_runs, standing_of
from ligo_dist.runtime.errors import LigoError
from ligo_dist.runtime.launch import LaunchDirectory, RankEnd
from ligo_dist.tracking import EVALUATE, METRICS_FILE, STATE_FILE, Status, Tracker, build_tracker
from runs import environment


def begun(run_dir: Path) -> Tracker:
    """A run of two stages in the midst of the second, 3 of its 5 steps done."""
    section = SimpleNamespace(mlflow=False, uri=None, experiment="e", run_name=None)
    config: Any = SimpleNamespace(tracking=section)
    tracker = build_tracker(config, run_dir, 0, None)
    tracker.start_run("run", {"stages": [{"name": "small"}, {"name": "large"}]}, {})
    for number, stage in enumerate(("small", "large")):
        tracker.start_stage(stage, {"train": {"first_step": 5 * number, "steps": 5}})
        tracker.start_phase("train")
        if stage == "small":
            tracker.log({"train/loss": 7.0}, 5)
            tracker.log({"evaluate/loss": 6.5}, 5)
            tracker.end_stage()
    tracker.log({"train/loss": 4.25}, 8)
    return tracker


def test_what_tasks_of_an_export_came_to_is_no_phase(tmp_path: Path):
    tracker = begun(tmp_path / "run")
    before = standing_of(tmp_path / "run")
    tracker.start_phase(EVALUATE)
    tracker.log({"evaluate/endings/acc": 0.5}, 10)
    after = standing_of(tmp_path / "run")
    tracker.close("FINISHED")
    assert (
        (after.phase, after.step, after.loss)
        == (before.phase, before.step, before.loss)
        == ("train", 3, 4.25)
    )


def ended(run_dir: Path, status: Status) -> Path:
    begun(run_dir).close(status)
    return run_dir


def launched(run_dir: Path, *, ends: bool) -> Path:
    """Ranks that have begun, and perhaps ended."""
    launch = LaunchDirectory.make(run_dir)
    launch.log(0).write_text("")
    if ends:
        launch.write_end(RankEnd(0, "here", 1, "was killed"))
    return run_dir


def silent(run_dir: Path) -> Path:
    """As if nothing had been written for long."""
    then = time.time() - LOST_SECONDS - 60
    for path in run_dir.rglob("*"):
        os.utime(path, (then, then))
    return run_dir


def test_how_far_a_run_has_come(tmp_path: Path) -> None:
    begun(tmp_path)
    found = standing_of(tmp_path)
    assert found == Standing(tmp_path, "running", "large", 2, 2, "train", 3, 5, 4.25, 6.5, found.age)
    assert 0 <= found.age < 60


@pytest.mark.parametrize(
    ("status", "told"), [("FINISHED", "finished"), ("FAILED", "failed"), ("KILLED", "stopped")]
)
def test_how_a_run_ended(tmp_path: Path, status: Status, told: str) -> None:
    run_dir = launched(ended(tmp_path, status), ends=True)
    assert standing_of(run_dir).status == told
    assert standing_of(silent(run_dir)).status == told


def test_a_run_that_nobody_has_ended(tmp_path: Path) -> None:
    begun(tmp_path)
    assert standing_of(launched(tmp_path, ends=False)).status == "running"
    assert standing_of(silent(tmp_path)).status == "lost"
    # ... but its launcher counts on.
    LaunchDirectory.newest(tmp_path).count(7)  # type: ignore[union-attr]
    assert standing_of(tmp_path).status == "running"
    # All ranks were killed, and the watchdogs say so.
    assert standing_of(launched(tmp_path, ends=True)).status == "failed"


def test_a_run_that_is_started_again(tmp_path: Path) -> None:
    """It prepares, and its files say yet how it ended before."""
    ended(tmp_path, "FAILED")
    assert standing_of(launched(tmp_path, ends=False)).status == "running"
    assert standing_of(silent(tmp_path)).status == "failed"


def test_a_run_that_has_recorded_nothing(tmp_path: Path) -> None:
    found = standing_of(launched(tmp_path, ends=False))
    assert (found.status, found.stage, found.step, found.loss) == ("running", None, None, None)
    assert standing_of(launched(tmp_path, ends=True)).status == "failed"


def test_losses_that_are_no_numbers_and_torn_lines(tmp_path: Path) -> None:
    begun(tmp_path).log({"train/loss": float("nan")}, 9)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"time": "2026')
    found = standing_of(tmp_path)
    assert (found.step, str(found.loss), found.validation_loss) == (4, "nan", 6.5)


def test_an_evaluation_long_ago_is_found(tmp_path: Path) -> None:
    tracker = begun(tmp_path)
    for _ in range(200):
        tracker.log({"train/loss": 4.0, **{f"a long name of a metric {n}": 0.0 for n in range(60)}}, 9)
    assert (tmp_path / METRICS_FILE).stat().st_size > 1 << 18
    assert standing_of(tmp_path).validation_loss == 6.5


def test_runs_are_found_at_any_depth_and_not_inside_of_each_other(tmp_path: Path) -> None:
    ended(tmp_path / "a", "FINISHED")
    ended(tmp_path / "compared" / "ligo-0", "FINISHED")
    ended(tmp_path / "a" / "export", "FINISHED")
    ended(tmp_path / ".hidden", "FINISHED")
    (tmp_path / "nothing").mkdir()
    assert list(find_runs(tmp_path)) == [tmp_path / "a", tmp_path / "compared" / "ligo-0"]
    assert list(find_runs(tmp_path / "a")) == [tmp_path / "a"]
    with pytest.raises(LigoError, match="gone: there is no such directory; name the one"):
        list(find_runs(tmp_path / "gone"))


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ls", "gone"]) == 2
    assert capsys.readouterr().err.startswith("ligo-dist: gone: there is no such directory; name the one ")
    assert cli.main(["ls"]) == 0
    assert capsys.readouterr().out == "no run in runs; another directory: ligo-dist ls DIR\n"
    begun(Path("runs/mine"))
    lines = "import sys; from launcher import cli; code = cli.main(['ls']); sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line.split() for line in done.stdout.splitlines() if "runs/mine" in line)
    assert row[:8] == ["runs/mine", "running", "large", "2/2", "train", "3/5", "4.250", "6.500"]
    assert json.loads(Path("runs/mine", STATE_FILE).read_text())["run"]["status"] == "RUNNING"
