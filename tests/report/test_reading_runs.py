"""A run is read from its directory; what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report.read import Cost, make_run, read_run
from ligo_dist.report.report import build_report
from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import METRICS_FILE, STATE_FILE, read_state
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder


def test_stages_and_their_costs(tmp_path: Path) -> None:
    run = make_run(read_run(Path(Recorder(tmp_path / "run").record(SMALL, GROWN))))
    small, large = run.stages
    assert (small.name, small.parameters, small.tokens, small.cost) == ("small", 5000, 20, Cost(10, 30, 10))
    assert (small.growth, small.source_loss, small.grown_loss, small.final_loss) == (None, None, None, 5.0)
    assert (large.name, large.parameters, large.tokens, large.cost) == ("large", 5000, 60, Cost(30, 90, 30))
    assert (large.growth, large.source_loss, large.grown_loss, large.final_loss) == (
        Cost(6, 18, 6),
        5,
        5,
        3.8,
    )
    assert [evaluation.phase for evaluation in large.evaluations] == ["learn"] * 2 + ["grow"] + ["train"] * 3
    assert [evaluation.loss for evaluation in large.curve] == [5.0, 4.6, 4.2, 3.8]


def test_a_run_that_was_killed_while_it_learned(tmp_path: Path) -> None:
    directory = Recorder(tmp_path / "run", status="KILLED").record(SMALL, replace(GROWN, points=[]))
    read = read_run(Path(directory))
    assert read.status == "KILLED"
    assert [evaluation.phase for evaluation in make_run(read).stages[1].evaluations] == ["learn", "learn"]


def test_a_pause_is_no_time(tmp_path: Path) -> None:
    """A run that went on a day later has worked as long as one that was not disturbed."""
    run = Recorder(tmp_path / "run").record(SMALL, GROWN)
    stages = make_run(read_run(Path(run))).stages

    def a_day_later(record: dict[str, Any]) -> None:
        if record["step"] > 40:
            record["time"] = (datetime.fromisoformat(record["time"]) + timedelta(days=1)).isoformat()

    change_records(Path(run), a_day_later)
    assert make_run(read_run(Path(run))).stages == stages


def test_values_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    leg = Leg("large", [(1, 5.0), (2, float("nan")), (3, float("inf")), (4, 4.0)])
    run = make_run(read_run(Path(Recorder(tmp_path / "run").record(leg))))
    assert [evaluation.loss for evaluation in run.target.curve] == [5.0, 4.0]


# --- what is refused ---


def fault(*runs: str, baseline: str | None = None) -> str:
    with pytest.raises(LigoError) as caught:
        build_report(runs, baseline)
    return str(caught.value)


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / STATE_FILE).write_text("{")
    assert fault(f"{tmp_path}/gone", str(empty), str(broken)) == (
        f"{tmp_path}/gone: there is no such directory; a run is named by its run directory\n"
        f"{empty}: no directory of a run: tracking.json is missing\n"
        f"{broken}: no directory of a run: tracking.json cannot be read as the record of a run"
    )


@pytest.mark.parametrize("metric", ["evaluate/loss", "cumulative/flops"])
def test_a_run_without_what_is_compared(tmp_path: Path, metric: str) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    change_records(Path(run), lambda record: record.pop(metric, None))
    assert (
        fault(run) == f"{run}: no {metric} is recorded, which is what a report compares; the run is FINISHED"
    )


def change_records(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    records = [json.loads(line) for line in (run / METRICS_FILE).read_text().splitlines()]
    for record in records:
        change(record)
    (run / METRICS_FILE).write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_that_has_not_come_to_its_last_stage(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run", status="KILLED").record(SMALL, planned=["large"])
    assert fault(run) == (
        f"{run}: no evaluate/loss of its last stage, 'large', is recorded; the run is KILLED, in 'small'"
    )


@pytest.mark.parametrize("status", ["KILLED", "FAILED", "RUNNING"])
def test_a_baseline_that_never_finished(tmp_path: Path, status: Any) -> None:
    recorder = Recorder(tmp_path / "baseline", status="FAILED" if status == "RUNNING" else status)
    baseline, run = recorder.record(SCRATCH), Recorder(tmp_path / "run").record(SMALL, GROWN)
    if status == "RUNNING":
        set_status(recorder.directory, status)
    assert fault(run, baseline=baseline) == (
        f"{baseline}: as the baseline it has to have finished, and it is {status}; `ligo-dist run` on its run directory"
        " goes on with it, or name another run"
    )
    assert build_report([baseline], run).notes[-1] == f"baseline is {status}: it is shown as far as it came."


def set_status(run_dir: Path, status: Any) -> None:
    ledger = read_state(run_dir)
    assert ledger is not None
    assert ledger.run is not None
    ledger.run.status = status
    (run_dir / STATE_FILE).write_text(ledger.model_dump_json())
