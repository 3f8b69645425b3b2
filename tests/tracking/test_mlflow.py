"""What arrives in a real store, what a resumed run adds to it, and what a broken one does to the training."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow.tracking import MlflowClient

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import Tracker, main, read_records
from servers import free_port

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk


def train(tracker: Tracker, stage: str, steps: range) -> None:
    tracker.start_stage(stage, {"size": {"width": 8}})
    tracker.start_phase("train")
    for step in steps:
        tracker.log({"train/loss": 1 / step, "cumulative/tokens": 10.0 * step}, step)


def test_schedule_has_a_parent_run_and_nested_stages(desk: Desk, tmp_path: Path) -> None:
    exported = tmp_path / "report.txt"
    exported.write_text("loss 0.1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.txt").write_text("inner")

    tracker = desk.tracker()
    tracker.start_run(
        "journey", {"seed": 0, "stages": [{"size": {"width": 8}}], "betas": [0.9, 0.95]}, {"host": "a"}
    )
    tracker.artifact("seed: 0\n", "config/resolved.yaml")
    train(tracker, "small", range(1, 4))
    tracker.end_stage()
    train(tracker, "large", range(4, 6))
    tracker.artifact(exported, "reports/final.txt")
    tracker.artifact(tmp_path / "folder", "folder")
    tracker.set_tags({"export": "/somewhere"})
    tracker.end_stage()
    tracker.close()

    runs = desk.runs()
    parent, small, large = runs["journey"], runs["small"], runs["large"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert (
        small.data.tags["mlflow.parentRunId"] == large.data.tags["mlflow.parentRunId"] == parent.info.run_id
    )
    assert parent.data.params == {"seed": "0", "stages.0.size.width": "8", "betas": "[0.9, 0.95]"}
    assert large.data.params == {"size.width": "8"}
    assert parent.data.tags["host"] == "a"
    assert (large.data.tags["export"], large.data.tags["phase"]) == ("/somewhere", "train")
    assert desk.steps("journey", "train/loss") == [1, 2, 3, 4, 5]
    assert desk.steps("small", "train/loss") == [1, 2, 3]
    assert desk.steps("large", "cumulative/tokens") == [4, 5]
    assert small.data.metrics["train/loss"] == pytest.approx(1 / 3)

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    client = desk.client
    for run, path, text in (
        (parent, "config/resolved.yaml", "seed: 0\n"),
        (large, "reports/final.txt", "loss 0.1"),
        (large, "folder/inner.txt", "inner"),
    ):
        assert Path(client.download_artifacts(run.info.run_id, path, str(downloads))).read_text() == text
    assert Path(desk.uri.removeprefix("sqlite:///")).with_name("mlartifacts").is_dir()
    assert desk.warnings == []


def test_a_hundred_stages_and_long_values_are_within_the_limits_and_searchable(desk: Desk) -> None:
    size = {"layers": 2, "width": 24, "heads": 3, "files": ["x" * 90] * 10}
    stage = {"size": size, "train": {f"key{number}": number for number in range(4)}, "k" * 300: 1}
    parameters = {"stages": [stage | {"name": f"s{index}"} for index in range(100)], "seeds": [*range(5000)]}
    tracker = desk.tracker()
    tracker.start_run("journey", parameters, {"command": "word " * 4000})
    tracker.start_stage("s99", stage)
    tracker.close()
    assert desk.warnings == []
    parent = desk.runs()["journey"]
    assert len(parent.data.params) == 100 * (4 + 4 + 1 + 1) + 1
    assert max(map(len, parent.data.params)) == 250
    assert max(map(len, parent.data.params.values())) == 500
    assert len(parent.data.tags["command"]) == 5000
    found = desk.client.search_runs(
        [parent.info.experiment_id], "params.`stages.99.size.width` = '24' and params.`stages.7.name` = 's7'"
    )
    assert [run.info.run_id for run in found] == [parent.info.run_id]


def test_resumed_run_goes_on_in_the_same_runs_without_repetition(desk: Desk) -> None:
    first = desk.tracker()
    first.start_run("journey", {"seed": 0}, {"host": "a"})
    train(first, "small", range(1, 8))
    first.close("KILLED")
    before = desk.runs()
    assert {run.info.status for run in before.values()} == {"KILLED"}

    again = desk.tracker(resume_step=4)
    again.start_run("journey", {"seed": 1, "added": 2}, {"host": "b"})
    train(again, "small", range(5, 11))
    again.end_stage()
    train(again, "large", range(11, 13))
    again.close()

    runs = desk.runs()
    assert {name: runs[name].info.run_id for name in before} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["journey"].data.params == {"seed": "0", "added": "2"}
    assert runs["journey"].data.tags["host"] == "b"
    assert desk.steps("small", "train/loss") == list(range(1, 11))
    assert desk.steps("journey", "train/loss") == list(range(1, 13))
    assert [record["step"] for record in read_records(desk.run_dir / "metrics.jsonl")] == list(range(1, 13))
    assert desk.warnings == []
    assert main([str(desk.run_dir)]) == 0
    assert desk.steps("small", "train/loss") == list(range(1, 11)), (
        "steps that were taken again are there once"
    )


def test_status_is_running_meanwhile(desk: Desk) -> None:
    first = desk.tracker()
    first.start_run("journey", {}, {})
    first.close("FAILED")
    again = desk.tracker(resume_step=0)
    again.start_run("journey", {}, {})
    deadline = time.monotonic() + 20
    while desk.runs()["journey"].info.status != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert desk.runs()["journey"].info.status == "RUNNING"
    again.close("FAILED")
    assert desk.runs()["journey"].info.status == "FAILED"


def test_points_that_the_store_missed_in_the_middle_are_sent_on_resuming(desk: Desk) -> None:
    first = desk.tracker()
    first.start_run("journey", {}, {})
    train(first, "small", range(1, 4))
    first.close("KILLED")
    away = desk.tracker(resume_step=3, mlflow=False)
    away.start_run("journey", {}, {})
    train(away, "small", range(4, 6))
    away.end_stage()
    train(away, "medium", range(6, 8))
    away.end_stage()
    away.close("KILLED")

    again = desk.tracker(resume_step=7)
    again.start_run("journey", {}, {})
    train(again, "large", range(8, 10))
    again.close()
    assert desk.steps("journey", "train/loss") == list(range(1, 10))
    assert desk.steps("small", "train/loss") == list(range(1, 6))
    assert desk.steps("medium", "train/loss") == [6, 7]
    assert desk.runs()["medium"].info.status == "FINISHED"
    assert desk.warnings == []


def test_a_store_that_does_not_know_the_run_gets_all_of_it(desk: Desk, tmp_path: Path) -> None:
    first = desk.tracker(uri=f"sqlite:///{tmp_path / 'other.db'}")
    first.start_run("journey", {"seed": 0}, {})
    train(first, "small", range(1, 3))
    first.close()
    tracker = desk.tracker(resume_step=2)
    tracker.start_run("journey", {"seed": 0}, {})
    train(tracker, "large", range(3, 5))
    tracker.close()
    assert desk.steps("journey", "train/loss") == [1, 2, 3, 4]
    assert desk.steps("small", "train/loss") == [1, 2]
    (warning,) = desk.warnings
    assert warning == f"MLflow: {desk.uri} does not have the run that is resumed; it begins there now"


def test_new_run_ends_what_an_earlier_one_left_running(desk: Desk) -> None:
    first = desk.tracker()
    first.start_run("killed", {}, {})
    deadline = time.monotonic() + 20
    while not desk.has_begun("killed") and time.monotonic() < deadline:
        time.sleep(0.05)
    second = desk.tracker(resume_step=None)
    second.start_run("anew", {}, {})
    second.close()
    assert (desk.runs()["killed"].info.status, desk.runs()["anew"].info.status) == ("KILLED", "FINISHED")


def test_refused_call_costs_only_itself(desk: Desk) -> None:
    tracker = desk.tracker()
    tracker.start_run("journey", {}, {})
    tracker.artifact(Path("/no/such/file"), "file")
    tracker.log({"odd [name]": 1.0}, 1)
    tracker.close()
    assert desk.steps("journey", "odd _name_") == [1]
    assert desk.warnings == [
        "MLflow: artifact file was not stored: there is no /no/such/file; going on without it",
        f"MLflow: not everything of this run was recorded; `ligo-dist sync {desk.run_dir}` delivers the rest",
    ]


def test_server_that_is_down_costs_neither_time_nor_metrics(desk: Desk) -> None:
    port, remedy = free_port(), f"`ligo-dist sync {desk.run_dir}`"
    tracker = desk.tracker(uri=f"http://ada:hunter2@127.0.0.1:{port}")
    tracker.start_run("journey", {}, {})
    train(tracker, "small", range(1, 1001))
    tracker.close()
    assert len(read_records(desk.run_dir / "metrics.jsonl")) == 1000
    assert desk.warnings == [
        f"MLflow: http://***@127.0.0.1:{port}: Connection refused; going on and trying again now and then;"
        f" if it stays away, {remedy} delivers the rest",
        f"MLflow: not everything of this run was recorded; {remedy} delivers the rest",
    ]


@pytest.mark.parametrize("path", ["file/mlflow.db", "directory"])
def test_database_that_cannot_be_written_leaves_the_metrics_file(
    desk: Desk, tmp_path: Path, path: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    tracker = desk.tracker(uri=f"sqlite:///{tmp_path / path}")
    tracker.start_run("journey", {}, {})
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close()
    assert len(read_records(desk.run_dir / "metrics.jsonl")) == 1
    (warning,) = desk.warnings
    assert warning.startswith("MLflow: cannot ")
    assert warning.endswith(
        f"this run is recorded in its directory only; `ligo-dist sync {desk.run_dir}` delivers it"
    )


def test_deleted_experiment_is_named(desk: Desk) -> None:
    client = MlflowClient(desk.uri)
    client.delete_experiment(client.create_experiment(desk.experiment))
    tracker = desk.tracker()
    tracker.start_run("journey", {}, {})
    tracker.close()
    (warning,) = desk.warnings
    assert "was deleted; restore it or name another" in warning


def test_experiment_that_another_run_was_first_to_make_is_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.client.create_experiment(desk.experiment)
    find, asked = MlflowClient.get_experiment_by_name, []

    def not_yet_at_first(client: MlflowClient, name: str) -> object:
        asked.append(name)
        return find(client, name) if len(asked) > 1 else None

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", not_yet_at_first)
    tracker = desk.tracker()
    tracker.start_run("journey", {}, {})
    tracker.close()
    assert desk.warnings == []
    assert desk.runs()["journey"].info.experiment_id == made


def test_missing_mlflow_is_the_users_to_mend(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)
    with pytest.raises(LigoError, match=r"tracking\.mlflow: mlflow cannot be imported"):
        desk.tracker()


def test_mlflow_is_quiet(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = desk.tracker()
    tracker.start_run("journey", {}, {})
    tracker.close()
    assert capfd.readouterr() == ("", "")
    assert os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] == "true"  # only servers have such URLs
    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.INFO)
    assert not logging.getLogger("alembic.runtime.migration").isEnabledFor(logging.INFO)
