from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.errors import LigoError
from ligo_dist.tracking import Tracker
from ligo_dist.tracking.jsonl import JsonlTracker, read_records, record_metrics


def open_file(path: Path, resume_step: int | None = None) -> JsonlTracker:
    return JsonlTracker(path, resume_step, warn=pytest.fail)


def journey(tracker: Tracker, first: int, last: int) -> None:
    """Train one stage to step 10, evaluate there, grow, evaluate there again, train to `last`."""
    for step in range(first, last + 1):
        tracker.start_stage("small" if step <= 10 else "large", {})
        tracker.start_phase("train")
        tracker.log({"train/loss": 1 / step}, step, time=float(step))
        if step == 10:
            tracker.log({"evaluate/loss": 0.5}, step, time=10.0)
            tracker.start_stage("large", {})
            tracker.start_phase("grow")
            tracker.log({"evaluate/loss": 0.6}, step, time=10.0)


def test_lines_are_flushed_and_say_where_they_are_from(tmp_path: Path) -> None:
    tracker = open_file(tmp_path / "new" / "metrics.jsonl")
    tracker.start_stage("small", {})
    tracker.start_phase("train")
    tracker.log({"train/loss": 2.5}, 3, time=0.125)
    (line,) = (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.125+00:00",
        "stage": "small",
        "phase": "train",
        "step": 3,
        "train/loss": 2.5,
    }


def test_values_that_are_not_finite_are_strings_that_float_reads(tmp_path: Path) -> None:
    open_file(tmp_path / "m.jsonl").log({"a": math.nan, "b": math.inf, "c": -math.inf}, 0)
    (record,) = read_records(tmp_path / "m.jsonl")
    assert (record["a"], record["b"], record["c"]) == ("NaN", "Infinity", "-Infinity")
    values = record_metrics(record)
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize("killed_after", [9, 10, 11, 14])
@pytest.mark.parametrize("checkpoint", [0, 8, 9])
@pytest.mark.parametrize("torn", ["", '{"time": "2020', '{"step"', "null"])
def test_resumed_file_is_that_of_an_uninterrupted_run(
    tmp_path: Path, checkpoint: int, killed_after: int, torn: str
) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    journey(open_file(whole), 1, 15)
    journey(open_file(parts), 1, killed_after)
    with parts.open("a") as file:
        file.write(torn)
    tracker = open_file(parts, resume_step=checkpoint)
    assert [record["step"] for record in tracker.history] == list(range(1, checkpoint + 1))
    journey(tracker, checkpoint + 1, 15)
    assert parts.read_text() == whole.read_text()


def test_new_run_keeps_the_earlier_file_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journey(open_file(path), 1, 3)
    tracker = open_file(path)
    assert (tracker.history, path.read_text()) == ([], "")
    assert len(read_records(tmp_path / "metrics.previous.jsonl")) == 3


def test_steps_never_go_backwards(tmp_path: Path) -> None:
    tracker = open_file(tmp_path / "m.jsonl")
    tracker.log({}, 2)
    with pytest.raises(AssertionError, match="step 1 after step 2"):
        tracker.log({}, 1)


def test_closed_file_takes_no_more(tmp_path: Path) -> None:
    tracker = open_file(tmp_path / "m.jsonl")
    tracker.close()
    tracker.log({"a": 1.0}, 1)
    assert read_records(tmp_path / "m.jsonl") == []


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LigoError, match=r"cannot write .*file/metrics\.jsonl: "):
        open_file(tmp_path / "file" / "metrics.jsonl")


def test_full_disk_is_reported_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = JsonlTracker(tmp_path / "m.jsonl", None, warnings.append)

    class Full:
        closed = False

        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

    tracker._file = Full()  # type: ignore[assignment]
    tracker.log({}, 1)
    tracker.log({}, 2)
    assert warnings == [
        f"metrics are being lost, cannot write {tmp_path / 'm.jsonl'}: No space left on device"
    ]
