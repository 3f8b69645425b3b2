"""What a run's directory says of it: metrics line by line, and what a store should have beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import (
    METRICS_FILE,
    STATE_FILE,
    RunRecord,
    TrackedRun,
    Tracker,
    TrackingState,
    read_records,
    read_state,
    record_metrics,
)
from ligo_dist.tracking import record as module


def open_record(
    run_dir: Path, resume_step: int | None = None, address: str | None = "http://me:secret@host"
) -> RunRecord:
    return RunRecord(run_dir, address, "experiment", resume_step, warn=pytest.fail)


def read(run_dir: Path) -> TrackingState:
    state = read_state(run_dir)
    assert state is not None
    return state


def parent(run_dir: Path) -> TrackedRun:
    run = read(run_dir).run
    assert run is not None
    return run


def records(run_dir: Path) -> list[dict[str, Any]]:
    return read_records(run_dir / METRICS_FILE)


# --- the metrics ---


def journey(tracker: Tracker, first: int, last: int) -> None:
    """Train one stage to step 10, evaluate there, grow, evaluate there again, train to `last`."""
    for step in range(first, last + 1):
        if step in (first, 11):
            tracker.start_stage("small" if step <= 10 else "large", {})
            tracker.start_phase("train")
        tracker.log({"train/loss": 1 / step}, step, time=float(step))
        if step == 10:
            tracker.log({"evaluate/loss": 0.5}, step, time=10.0)
            tracker.start_stage("large", {})
            tracker.start_phase("grow")
            tracker.log({"evaluate/loss": 0.6}, step, time=10.0)


def test_lines_are_flushed_and_say_where_they_are_from(tmp_path: Path) -> None:
    tracker = open_record(tmp_path / "new")
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
    open_record(tmp_path).log({"a": math.nan, "b": math.inf, "c": -math.inf}, 0)
    (record,) = records(tmp_path)
    assert (record["a"], record["b"], record["c"]) == ("NaN", "Infinity", "-Infinity")
    values = record_metrics(record)
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("checkpoint", "killed_after", "torn"),
    [
        (0, 9, ""),
        (8, 9, "null"),
        (9, 9, '{"step"'),
        (8, 10, '{"time": "2020'),
        (9, 11, "null"),
        (0, 14, '{"step"'),
        (9, 14, ""),
    ],
)
def test_resumed_file_is_that_of_an_uninterrupted_run(
    tmp_path: Path, checkpoint: int, killed_after: int, torn: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    journey(open_record(whole), 1, 15)
    journey(open_record(parts), 1, killed_after)
    with (parts / METRICS_FILE).open("a") as file:
        file.write(torn)
    tracker = open_record(parts, resume_step=checkpoint)
    assert [record["step"] for record in tracker.history] == list(range(1, checkpoint + 1))
    journey(tracker, checkpoint + 1, 15)
    assert (parts / METRICS_FILE).read_text() == (whole / METRICS_FILE).read_text()


def test_steps_never_go_backwards(tmp_path: Path) -> None:
    tracker = open_record(tmp_path)
    tracker.log({}, 2)
    with pytest.raises(AssertionError, match="step 1 after step 2"):
        tracker.log({}, 1)


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LigoError, match=r"cannot write .*file/metrics\.jsonl: "):
        open_record(tmp_path / "file")


def test_full_disk_is_reported_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = RunRecord(tmp_path, None, "experiment", None, warnings.append)

    class Full:
        closed = False

        def write(self, _: Any) -> None:
            raise OSError(28, "No space left on device")

    tracker._file = Full()  # type: ignore[assignment]
    tracker.log({}, 1)
    tracker.log({}, 2)
    assert warnings == [
        f"metrics are being lost, cannot write {tmp_path / METRICS_FILE}: No space left on device"
    ]


def grow(tracker: Tracker, again: float = 0.0) -> None:
    """Evaluate at the end of a stage, and right after growing out of it."""
    tracker.start_stage("small", {})
    tracker.start_phase("train")
    tracker.log({"evaluate/loss": 0.5 + again}, 10)
    tracker.end_stage()
    tracker.start_stage("large", {})
    tracker.start_phase("grow")
    tracker.log({"evaluate/loss": 0.6 + again}, 10)


def test_what_a_resumed_run_measures_again_is_there_once(tmp_path: Path) -> None:
    grow(open_record(tmp_path))
    again = open_record(tmp_path, resume_step=10)
    grow(again, again=1.0)
    again.start_phase("train")
    again.log({"evaluate/loss": 0.6}, 10)
    again.log({"evaluate/accuracy": 1.0, "evaluate/loss": 0.4}, 10)
    assert [(record["phase"], record["evaluate/loss"]) for record in records(tmp_path)] == [
        ("train", 0.5), ("grow", 0.6), ("train", 0.6), ("train", 0.4),
    ]  # fmt: skip


def test_no_two_records_have_one_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = open_record(tmp_path)
    moments = iter([100.0004, 100.0004, 99.0, 100.5])  # twice the same, then a clock that is set back
    monkeypatch.setattr(module.clock, "time", lambda: next(moments))
    for step in range(4):
        record.log({}, step)
    assert [one["time"][17:23] for one in records(tmp_path)] == ["40.000", "40.001", "40.002", "40.500"]


# --- the rest ---


def test_everything_is_on_disk_as_soon_as_it_happens(tmp_path: Path) -> None:
    tracker = open_record(tmp_path)
    assert not (tmp_path / STATE_FILE).exists()
    tracker.start_run("journey", {"stages": [{"width": 8}]}, {"host": "a"})
    assert (parent(tmp_path).name, parent(tmp_path).parameters) == ("journey", {"stages.0.width": "8"})
    tracker.artifact("seed: 0\n", "config.yaml")
    tracker.start_stage("small", {"width": 8})
    tracker.start_phase("train")
    assert read(tmp_path).stages["small"].tags == {"phase": "train"}
    tracker.artifact(tmp_path / "export" / "small", "model")
    tracker.artifact(Path("/elsewhere/report"), "report")
    assert read(tmp_path).stages["small"].files == {"model": "export/small", "report": "/elsewhere/report"}
    assert parent(tmp_path).texts == {"config.yaml": "seed: 0\n"}
    assert {run.status for _, run in read(tmp_path).runs()} == {"RUNNING"}
    tracker.end_stage()
    assert read(tmp_path).stages["small"].status == "FINISHED"
    tracker.start_stage("large", {})
    tracker.close("FAILED")
    assert [(key, run.status) for key, run in read(tmp_path).runs()] == [
        ("", "FAILED"), ("small", "FINISHED"), ("large", "FAILED"),
    ]  # fmt: skip
    assert parent(tmp_path).ended is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS_FILE, STATE_FILE]


def test_no_secret_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_TOKEN", "planted")
    tracker = open_record(tmp_path)
    tracker.start_run("planted", {"a": "planted"}, {"b": "http://x:planted@y"})
    tracker.start_stage("small", {"c": "planted"})
    tracker.set_tags({"d": "planted"})
    tracker.artifact("planted", "text")
    text = (tmp_path / STATE_FILE).read_text()
    assert "planted" not in text
    assert json.loads(text)["address"] == "http://***@host"


def test_a_resumed_run_keeps_its_identity_and_what_cannot_change(tmp_path: Path) -> None:
    first = open_record(tmp_path)
    first.start_run("journey", {"seed": 0}, {"host": "a", "kept": "yes"})
    first.artifact("0", "config.yaml")
    started = parent(tmp_path).started
    first.close("KILLED")
    again = open_record(tmp_path, 0, address=None)
    again.start_run("journey", {"seed": 1, "added": 2}, {"host": "b"})
    assert again.state.identity == first.state.identity == read(tmp_path).identity
    assert read(tmp_path).address is None
    assert parent(tmp_path) == TrackedRun(
        name="journey",
        parameters={"seed": "0", "added": "2"},
        tags={"host": "b", "kept": "yes"},
        texts={"config.yaml": "0"},
        given={"config.yaml": 1},
        started=started,
    )


def test_a_new_run_is_another_one(tmp_path: Path) -> None:
    """Its metrics are kept aside."""
    first = open_record(tmp_path)
    first.start_run("journey", {}, {})
    journey(first, 1, 3)
    second = open_record(tmp_path)
    second.start_run("journey", {}, {})
    assert second.state.identity != first.state.identity
    assert second.earlier is not None
    assert second.earlier.identity == first.state.identity
    assert (read(tmp_path).stages, second.history, records(tmp_path)) == ({}, [], [])
    assert len(read_records(tmp_path / "metrics.previous.jsonl")) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identity": 1}'])
def test_one_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content)
    assert read_state(tmp_path) is None
    assert open_record(tmp_path, 0).earlier is None


def test_what_comes_after_the_end_has_no_effect(tmp_path: Path) -> None:
    tracker = open_record(tmp_path)
    tracker.start_run("journey", {}, {})
    tracker.close("KILLED")
    before = (tmp_path / STATE_FILE).read_text()
    tracker.set_tags({"late": "yes"})
    tracker.log({"a": 1.0}, 1)
    tracker.close()
    assert (tmp_path / STATE_FILE).read_text() == before
    assert records(tmp_path) == []


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    open_record(tmp_path).close("FAILED")
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


def test_a_place_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = RunRecord(tmp_path, None, "experiment", None, warnings.append)
    (tmp_path / STATE_FILE).mkdir()
    tracker.start_run("journey", {}, {})
    tracker.set_tags({"a": "b"})
    assert warnings == [f"cannot write {tmp_path / STATE_FILE}: Is a directory"]


def test_a_stage_that_was_killed_is_ended_when_the_run_goes_on(tmp_path: Path) -> None:
    first = open_record(tmp_path)
    first.start_run("journey", {}, {})
    first.start_stage("small", {})
    first.log({"a": 1.0}, 1, time=50.0)
    open_record(tmp_path, 1).start_run("journey", {}, {})
    assert (read(tmp_path).stages["small"].status, read(tmp_path).stages["small"].ended) == ("KILLED", 50.0)


def test_the_example_of_the_documentation_draws_the_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of other metrics lie between those of the loss."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    tracker = open_record(tmp_path / "runs" / "quickstart")
    for step in range(1, 5):
        tracker.log({"train/loss": 5.0 - step, "cumulative/flops": 10.0 * step}, step)
        tracker.log({"evaluate/loss": 5.5 - step, "cumulative/flops": 10.0 * step}, step)
        tracker.log({"system/a/cpu_utilization_percentage": 50.0}, step)
    page = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    lines = page.partition("```python\n")[2].partition("```")[0].strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join([*lines[:-1], f"axes = {lines[-1]}"]), names)
    (line,) = names["axes"].get_lines()
    assert line.get_xydata().tolist() == [[10, 4], [20, 3], [30, 2], [40, 1]]
