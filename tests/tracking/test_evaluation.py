"""What is measured on an export afterwards is a record of its run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import (
    METRICS_FILE,
    PARENT,
    RunRecord,
    add_evaluation,
    harness_metrics,
    points_of,
    read_records,
    run_of_export,
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Of a run with the stages small (steps 1 and 2) and large (step 3), which has ended."""
    directory = tmp_path / "run"
    record = RunRecord(directory, None, "experiment", None, pytest.fail)
    record.start_run("run", {}, {})
    for stage, steps in (("small", (1, 2)), ("large", (3,))):
        record.start_stage(stage, {})
        record.start_phase("train")
        for step in steps:
            record.log({"train/loss": 5.0 / step}, step)
        record.end_stage()
        (directory / "export" / stage).mkdir(parents=True)
    record.close()
    return directory


def test_names_are_those_of_task_and_metric() -> None:
    results = {
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.25, "acc_stderr,none": "N/A", "acc_norm,none": 1},
        "gsm8k": {"exact_match,strict-match": 0.5, "sample_len": 7},
    }
    assert harness_metrics(results) == {
        "evaluate/arc_easy/acc": 0.25,
        "evaluate/arc_easy/acc_norm": 1.0,
        "evaluate/gsm8k/exact_match_strict-match": 0.5,
    }


def test_it_stands_at_the_last_step_of_the_stage_and_twice_if_measured_twice(run_dir: Path) -> None:
    assert run_of_export(run_dir / "export" / "small") == (run_dir, "small")
    add_evaluation(run_dir, "small", {"evaluate/t/acc": 0.5})
    add_evaluation(run_dir, "small", {"evaluate/t/acc": 0.75})
    records = read_records(run_dir / METRICS_FILE)
    assert [(r["stage"], r["phase"], r["step"], r["evaluate/t/acc"]) for r in records[3:]] == [
        ("small", "evaluate", 2, 0.5),
        ("small", "evaluate", 2, 0.75),
    ]
    for key in (PARENT, "small"):
        points = [point for point in points_of(records, key) if point.metric == "evaluate/t/acc"]
        assert [(point.step, point.value) for point in points] == [(2, 0.5), (2, 0.75)]


def test_a_torn_last_line_costs_only_itself(run_dir: Path) -> None:
    path = run_dir / METRICS_FILE
    path.write_text(path.read_text()[:-9])
    add_evaluation(run_dir, "small", {"evaluate/t/acc": 0.5})
    assert [record["step"] for record in read_records(path)] == [1, 2, 2]
    assert json.loads(path.read_text().splitlines()[-1])["evaluate/t/acc"] == 0.5


def test_what_is_no_export_of_a_run_has_none(run_dir: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "model", run_dir, run_dir / "export" / "medium", tmp_path / "export" / "small"):
        assert run_of_export(place) is None


def test_a_run_that_goes_on_is_left_alone(run_dir: Path) -> None:
    with FileLock(run_dir / ".lock"), pytest.raises(LigoError, match="in use by a run"):
        add_evaluation(run_dir, "small", {"evaluate/t/acc": 0.5})
    with pytest.raises(LigoError, match="no record of the stage medium"):
        add_evaluation(run_dir, "medium", {"evaluate/t/acc": 0.5})
