"""A run is read from its directory; what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.report import Cost, Run, build_report, notes, read_run
from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import METRICS_FILE, STATE_FILE, read_state
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder


def read(run: str) -> Run:
    return read_run(Path(run))


def test_stages_and_their_costs(tmp_path: Path) -> None:
    small, large = read(Recorder(tmp_path / "run").record(SMALL, GROWN)).stages
    assert (small.name, small.parameters, small.tokens, small.cost) == ("small", 5000, 20, Cost(10, 30, 10))
    assert (small.growth, small.source_loss, small.grown_loss, small.final_loss) == (None, None, None, 5.0)
    assert (large.name, large.parameters, large.tokens, large.cost) == ("large", 5000, 60, Cost(30, 90, 30))
    assert large.growth == Cost(6, 18, 6)
    assert (large.source_loss, large.grown_loss, large.final_loss) == (5, 5, 3.8)
    assert [point.loss for point in large.curve] == [5.0, 4.6, 4.2, 3.8], "those of learning are left out"


def test_a_run_that_was_killed_while_it_learned(tmp_path: Path) -> None:
    run = read(Recorder(tmp_path / "run", status="KILLED").record(SMALL, replace(GROWN, points=[])))
    assert (run.status, run.stages[1].growth, run.stages[1].curve) == ("KILLED", None, [])
    assert run.stages[1].cost == Cost(5, 15, 5)


def test_a_pause_is_no_time(tmp_path: Path) -> None:
    """A run that went on a day later has worked as long as one that was not disturbed."""
    run = Recorder(tmp_path / "run").record(SMALL, GROWN)
    stages = read(run).stages

    def a_day_later(record: dict[str, Any]) -> None:
        if record["step"] > 40:
            record["time"] = (datetime.fromisoformat(record["time"]) + timedelta(days=1)).isoformat()

    change_records(run, a_day_later)
    assert read(run).stages == stages


def test_values_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    leg = Leg("large", [(1, 5.0), (2, float("nan")), (3, float("inf")), (4, 4.0)])
    run = read(Recorder(tmp_path / "run").record(leg))
    assert [point.loss for point in run.target.curve] == [5.0, 4.0]


def test_runs_that_were_begun_with_each_other_are_read(tmp_path: Path) -> None:
    """As when one is run again, from what was made with it."""
    given = Leg("given", [(0, 5.0)])
    for name, other in (("a", "b"), ("b", "a")):
        run = Recorder(tmp_path / name)
        run.record(given, GROWN, begun_from=tmp_path / other / "export" / "large")
    assert read(str(tmp_path / "a")).source_total is None
    assert len(build_report([str(tmp_path / "a"), str(tmp_path / "b")]).cases) == 2


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
    assert fault(f"{tmp_path}/gone", str(empty), str(broken), str(empty)) == (
        f"{tmp_path}/gone: there is no such directory; a run is named by its run directory\n"
        f"{empty}: no directory of a run: tracking.json is missing\n"
        f"{broken}: no directory of a run: tracking.json cannot be read as the record of a run"
    )


@pytest.mark.parametrize("metric", ["evaluate/loss", "cumulative/flops"])
def test_a_run_without_what_is_compared(tmp_path: Path, metric: str) -> None:
    run = Recorder(tmp_path / "run").record(SCRATCH)
    change_records(run, lambda record: record.pop(metric, None))
    assert fault(run).startswith(f"{run}: no evaluate/loss of its last stage, 'large', is recorded beside")


def change_records(run: str, change: Callable[[dict[str, Any]], object]) -> None:
    file = Path(run, METRICS_FILE)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        change(record)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_that_has_not_come_to_its_last_stage(tmp_path: Path) -> None:
    run = Recorder(tmp_path / "run", status="KILLED").record(SMALL, planned=["large"])
    said = fault(run)
    assert said.startswith(f"{run}: no evaluate/loss of its last stage, 'large', is recorded")
    assert said.endswith("the run is KILLED, in 'small'")


@pytest.mark.parametrize("status", ["KILLED", "FAILED", "RUNNING"])
def test_a_baseline_that_never_finished(tmp_path: Path, status: Any) -> None:
    baseline = Recorder(tmp_path / "baseline").record(SCRATCH)
    run = Recorder(tmp_path / "run").record(SMALL, GROWN)
    state = read_state(Path(baseline))
    assert state is not None
    assert state.run is not None
    state.run.status = status
    Path(baseline, STATE_FILE).write_text(state.model_dump_json())
    assert fault(run, baseline=baseline).startswith(
        f"{baseline}: as the baseline it has to have finished, and it is {status}; `ligo-dist run` on its"
    )
    assert notes(build_report([baseline], run))[-1] == f"baseline is {status}: it is shown as far as it came."
