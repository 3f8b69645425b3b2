from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import matplotlib
import psutil
import pytest
from matplotlib import pyplot

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import Tracker, build_tracker

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk


def test_other_ranks_record_nothing(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(tracking=SimpleNamespace(mlflow=True, uri=None, experiment="x"))
    tracker = build_tracker(config, tmp_path / "run", 1, None)
    assert isinstance(tracker, Tracker)
    tracker.start_run("a", {}, {})
    tracker.log({}, 1)
    tracker.close()
    assert not (tmp_path / "run").exists()


def test_bad_address_is_refused_before_anything_is_written(desk: Desk) -> None:
    with pytest.raises(LigoError, match="unknown scheme"):
        desk.tracker(uri="gopher://server")
    assert not desk.run_dir.exists()


def test_a_store_whose_locks_may_not_hold_is_told_and_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = [SimpleNamespace(mountpoint="/", fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: everywhere)
    tracker = desk.tracker()
    tracker.start_run("told", {}, {})
    tracker.close()
    (warning,) = desk.warnings
    assert "network file system (nfs4)" in warning
    assert desk.has_begun("told")


def test_the_example_of_a_plot_draws_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of validations lie between those of training, without a training loss."""
    page = Path(__file__).parents[2] / "docs" / "tracking.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (name,) = re.findall(r'read_json\("(.*?)"', example)
    (tmp_path / name).parent.mkdir(parents=True)
    records = [{("train/loss", "evaluate/loss")[n % 2]: 9.0 - n, "cumulative/flops": n} for n in range(6)]
    (tmp_path / name).write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    exec(example, {})
    (line,) = pyplot.gca().get_lines()
    assert line.get_xydata().tolist() == [[0, 9], [2, 7], [4, 5]]
    pyplot.close()
