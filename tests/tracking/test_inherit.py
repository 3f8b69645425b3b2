"""What a run that begins from another one's checkpoint has of that one's record, in its directory and in MLflow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ligo_dist.tracking import build_tracker, inherit_records, read_records, read_state

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk


def trunk(run_dir: Path) -> None:
    """Two steps of `small`, grown at step 2, one step of `large`, and the load of a machine."""
    section = SimpleNamespace(mlflow=False, uri=None, experiment="there", run_name=None)
    config: Any = SimpleNamespace(tracking=section)
    tracker = build_tracker(config, run_dir, 0, None)
    tracker.start_run("trunk", {"seed": 1}, {})
    for stage, steps in (("small", (1, 2)), ("large", (3,))):
        tracker.start_stage(stage, {"parameters": len(stage)})
        if stage == "large":
            tracker.start_phase("grow")
            tracker.log({"grow/seconds": 1.0}, 2)
        tracker.start_phase("train")
        for step in steps:
            tracker.log({"train/loss": 1 / step}, step)
            tracker.log({"system/here/load": 0.5}, step)
        tracker.artifact("text", f"{stage}.txt")
        tracker.end_stage()
    tracker.close()


@pytest.mark.parametrize(
    ("stages", "phase", "step", "expected"),
    [
        (["small"], "train", 1, [1]),
        (["small"], "train", 2, [1, 2]),
        (["small", "large"], "learn", 2, [1, 2]),
        (["small", "large"], "train", 2, [1, 2, 2]),
        (["small", "large"], "train", 3, [1, 2, 2, 3]),
    ],
)
def test_the_records_up_to_the_checkpoint(
    tmp_path: Path, stages: list[str], phase: str, step: int, expected: list[int]
):
    trunk(tmp_path / "trunk")
    run_dir = tmp_path / "fork"
    assert inherit_records(tmp_path / "trunk", run_dir, stages, phase, step) == len(expected)
    records = read_records(run_dir / "metrics.jsonl")
    assert [record["step"] for record in records] == expected
    assert not any(name.startswith("system/") for record in records for name in record)
    state, theirs = read_state(run_dir), read_state(tmp_path / "trunk")
    assert state is not None
    assert theirs is not None
    # The stages before are as they were recorded, without files that lie elsewhere; the one that goes on begins.
    assert list(state.stages) == stages[:-1]
    assert all(run.parameters == {"parameters": "5"} and not run.texts for run in state.stages.values())
    assert (state.run, state.identity == theirs.identity) == (None, False)
    inherit_records(tmp_path / "trunk", run_dir, stages, phase, step)
    assert read_state(run_dir) == state


def test_mlflow_has_a_run_of_its_own_with_the_whole_curve(tmp_path: Path, desk: Desk):
    trunk(tmp_path / "trunk")
    inherit_records(tmp_path / "trunk", desk.run_dir, ["small", "large"], "train", 2)
    tracker = desk.tracker(resume_step=2, recorded=3)
    tracker.start_run("fork", {"seed": 1}, {})
    tracker.start_stage("large", {})
    tracker.start_phase("train")
    tracker.log({"train/loss": 0.25}, 3)
    tracker.close()
    assert not any("does not have the run" in warning for warning in desk.warnings)
    runs = desk.runs()
    assert set(runs) == {"fork", "small", "large"}
    points = desk.client.get_metric_history(runs["fork"].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    assert runs["small"].info.status == "FINISHED"
