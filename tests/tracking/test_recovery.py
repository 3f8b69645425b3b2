"""A metrics file that has lost lines: it is told, and what the store has of them comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ligo_dist.tracking import (
    METRICS_FILE,
    STATE_FILE,
    RunRecord,
    Tracker,
    points_of,
    read_records,
    records_of,
)

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk


def journey(tracker: Tracker) -> None:
    """Two stages: one that is trained, and one whose operator is learned before it is."""
    tracker.start_run("run", {}, {})
    tracker.start_stage("small", {})
    tracker.start_phase("train")
    for step in (1, 2):
        tracker.log({"train/loss": 5.0 / step, "cumulative/tokens": 10.0 * step}, step)
        tracker.log({"system/node-1/cpu_utilization_percentage": 7.5}, step)
    tracker.log({"evaluate/loss": math.nan}, 2)
    tracker.end_stage()
    tracker.start_stage("large", {})
    tracker.start_phase("learn")
    tracker.log({"grow/preservation_error": 1e-7}, 2)
    tracker.log({"evaluate/loss": 2.5}, 3)
    tracker.log({"learn/loss": 2.0}, 4)
    tracker.start_phase("grow")
    tracker.log({"grow/seconds": 0.5, "evaluate/loss": 2.25}, 4)
    tracker.log({"grow/preservation_error": 2e-7}, 4)
    tracker.start_phase("train")
    tracker.log({"evaluate/loss": 2.125}, 5)
    tracker.log({"train/loss": 2.0625, "train/gradient_norm": -math.inf}, 6)
    tracker.log({"train/loss": 1.5}, 7)


LAST, RECORDED = 6, 12
"""Of the checkpoint that the run goes on from."""


def text(run_dir: Path) -> list[str]:
    return (run_dir / METRICS_FILE).read_text().splitlines()


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    """The order of the metrics in a line is of no account."""
    return [json.loads(line) for line in lines]


def test_the_points_of_records_make_the_same_records(tmp_path: Path):
    journey(RunRecord(tmp_path, None, "experiment", None, pytest.fail))
    records = read_records(tmp_path / METRICS_FILE)
    for stage in ("small", "large"):
        expected = [record for record in records if record["stage"] == stage]
        made = records_of(stage, points_of(expected, stage))
        assert [json.dumps(record) for record in made] == [json.dumps(record) for record in expected]


def cut_in_half(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[5][:20]]


LOSSES: dict[str, Callable[[list[str]], list[str]]] = {
    "its second half": cut_in_half,
    "all of it": lambda lines: [],
    "lines in its middle": lambda lines: [*lines[:2], "torn {", *lines[6:]],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_lost_lines_come_back_from_the_store(desk: Desk, loss: str):
    first = desk.tracker()
    journey(first)
    first.close("KILLED")
    assert desk.warnings == []
    whole = text(desk.run_dir)
    expected = [line for line in whole if json.loads(line)["step"] <= LAST]
    assert len(expected) == RECORDED
    left = LOSSES[loss](whole)
    (desk.run_dir / METRICS_FILE).write_text("\n".join(left))
    lost = RECORDED - len(read_records(desk.run_dir / METRICS_FILE)) + (loss == "lines in its middle")
    again = desk.tracker(LAST, recorded=RECORDED)
    assert desk.warnings == [
        f"metrics.jsonl: {lost} records from before the checkpoint are not there; {lost} were taken from MLflow"
    ]
    assert parsed(text(desk.run_dir)) == parsed(expected)
    assert again.recorded == RECORDED
    again.close("KILLED")


@pytest.mark.parametrize("place", ["no store", "an unknown run", "nothing is lost", "an older checkpoint"])
def test_what_is_lost_for_good_is_told(desk: Desk, place: str):
    first = desk.tracker(mlflow=place != "no store")
    journey(first)
    first.close("KILLED")
    whole = text(desk.run_dir)
    file = desk.run_dir / METRICS_FILE
    more: dict[str, Any] = {"recorded": RECORDED}
    match place:
        case "no store":
            file.write_text(whole[0] + "\n")
            more["mlflow"], reason = False, "the run is not tracked in MLflow"
        case "an unknown run":
            file.write_text(whole[0] + "\n")
            (desk.run_dir / STATE_FILE).unlink()
            reason = "MLflow does not have them either"
        case "nothing is lost":
            reason = ""
        case _:
            file.write_text(whole[0] + "\n")
            more, reason = {}, ""
    again = desk.tracker(LAST, **more)
    said = f"metrics.jsonl: 11 records from before the checkpoint are not there; 11 are lost ({reason})"
    assert desk.warnings == ([said] if reason else [])
    again.close("KILLED")
    assert text(desk.run_dir)[0] == whole[0]
