"""A run is read from its directory and from a real MLflow store, with the same result; what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from ligo_dist.errors import LigoError
from ligo_dist.report.reading import read_run
from ligo_dist.report.report import build_report
from ligo_dist.report.runs import Cost, make_run
from ligo_dist.tracking import LEDGER_FILE, METRICS_FILE
from ligo_dist.tracking.ledger import read_ledger
from recorded_runs import GROWN, SCRATCH, SMALL, Leg, Recorder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def stored(recorder: Recorder, store: str) -> dict[str, str]:
    """`mlflow:RUN_ID` of a run and of its stages, by name."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(recorder.directory.parent.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return {str(run.info.run_name): f"mlflow:{run.info.run_id}" for run in runs}


def test_stages_and_their_costs(tmp_path: Path) -> None:
    run = make_run(read_run(Recorder(tmp_path / "run").record(SMALL, GROWN)))
    small, large = run.stages
    assert (small.name, small.parameters, small.tokens, small.cost) == ("small", 5000, 20, Cost(10, 30))
    assert (small.growth, small.source_loss, small.grown_loss, small.final_loss) == (None, None, None, 5.0)
    assert (large.name, large.parameters, large.tokens, large.cost) == ("large", 5000, 60, Cost(30, 90))
    assert (large.growth, large.source_loss, large.grown_loss, large.final_loss) == (Cost(6, 18), 5, 5, 3.8)
    assert [evaluation.phase for evaluation in large.evaluations] == ["learn"] * 2 + ["grow"] + ["train"] * 3
    assert [evaluation.loss for evaluation in large.curve] == [5.0, 4.6, 4.2, 3.8]


@pytest.mark.parametrize("given", ["argument", "environment"])
def test_the_store_says_what_the_directory_says(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    recorder = Recorder(tmp_path / "run", uri=store)
    directory = recorder.record(SMALL, GROWN)
    place = stored(recorder, store)["run"]
    if given == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    from_store = read_run(place, store if given == "argument" else None)
    from_directory = read_run(directory)
    assert from_store.place == place
    assert (from_store.name, from_store.status) == ("run", "FINISHED")
    assert from_store.parameters == from_directory.parameters
    assert from_directory.tags.items() <= from_store.tags.items()
    assert make_run(from_store).stages == make_run(from_directory).stages


def test_reports_of_stored_runs_have_the_same_numbers(tmp_path: Path, store: str) -> None:
    baseline = Recorder(tmp_path / "scratch", uri=store)
    grown = Recorder(tmp_path / "grown", uri=store)
    from_directory = build_report(
        [grown.record(SMALL, GROWN), baseline.record(SCRATCH)], str(baseline.directory)
    )
    places = stored(grown, store)
    from_store = build_report([places["grown"], places["scratch"]], places["scratch"], store)
    assert from_store.comparisons == from_directory.comparisons
    assert from_store.cases == from_directory.cases


def test_a_run_that_was_killed_while_it_learned_has_the_same_phases(tmp_path: Path, store: str) -> None:
    recorder = Recorder(tmp_path / "run", uri=store, status="KILLED")
    directory = recorder.record(SMALL, replace(GROWN, points=[]))
    place = stored(recorder, store)["run"]
    assert read_run(place, store).status == "KILLED"
    stages = make_run(read_run(place, store)).stages
    assert stages == make_run(read_run(directory)).stages
    assert [evaluation.phase for evaluation in stages[1].evaluations] == ["learn", "learn"]


def test_a_pause_is_no_time(tmp_path: Path) -> None:
    """A run that went on a day later has worked as long as one that was not disturbed."""
    run = Recorder(tmp_path / "run").record(SMALL, GROWN)
    stages = make_run(read_run(run)).stages

    def a_day_later(record: dict[str, Any]) -> None:
        if record["step"] > 40:
            record["time"] = (datetime.fromisoformat(record["time"]) + timedelta(days=1)).isoformat()

    change_records(Path(run), a_day_later)
    assert make_run(read_run(run)).stages == stages


def test_values_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    leg = Leg("large", [(1, 5.0), (2, float("nan")), (3, float("inf")), (4, 4.0)])
    run = make_run(read_run(Recorder(tmp_path / "run").record(leg)))
    assert [evaluation.loss for evaluation in run.target.curve] == [5.0, 4.0]


# --- what is refused ---


def fault(*runs: str, baseline: str | None = None, uri: str | None = None) -> str:
    with pytest.raises(LigoError) as caught:
        build_report(runs, baseline, uri)
    return str(caught.value)


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / LEDGER_FILE).write_text("{")
    assert fault(f"{tmp_path}/gone", str(empty), str(broken)) == (
        f"{tmp_path}/gone: there is no such directory; a run is a run directory, or mlflow:RUN_ID for one in MLflow\n"
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
    ledger = read_ledger(run_dir)
    assert ledger is not None
    assert ledger.run is not None
    ledger.run.status = status
    (run_dir / LEDGER_FILE).write_text(ledger.model_dump_json())


def test_a_stored_run_without_a_store(tmp_path: Path) -> None:
    assert fault("mlflow:abc") == "mlflow:abc: name the store that has it, with --uri or MLFLOW_TRACKING_URI"
    missing = tmp_path / "gone.db"
    assert fault("mlflow:abc", uri=f"sqlite:///{missing}") == f"--uri: there is no database {missing}"
    assert not missing.exists()


def test_a_stored_run_that_is_not_there_or_is_a_stage(tmp_path: Path, store: str) -> None:
    recorder = Recorder(tmp_path / "run", uri=store)
    recorder.record(SMALL, GROWN)
    places = stored(recorder, store)
    assert fault(places["small"], uri=store) == (
        f"{places['small']}: one stage of a run; the run itself is {places['run']}"
    )
    message = fault("mlflow:abc", uri=store)
    assert message.startswith("mlflow:abc: sqlite:///")
    assert "abc" in message.removeprefix("mlflow:abc:")
