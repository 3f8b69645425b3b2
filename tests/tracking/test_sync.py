"""What a store missed is delivered, once, whatever way it was missed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from ligo_dist.runtime.errors import LigoError
from ligo_dist.tracking import (
    MlflowStore,
    Point,
    Refused,
    Tracker,
    TrackingState,
    check_run_dir,
    main,
    store_address,
)
from servers import free_port

if TYPE_CHECKING:
    from tests.tracking.conftest import Desk

SECTION = {"seed": 0, "stages": [{"size": {"width": 8}}]}


def journey(tracker: Tracker, steps: int = 12) -> None:
    """A whole run of two stages, but for its end."""
    tracker.start_run("journey", SECTION, {"host": "a"})
    tracker.artifact("seed: 0\n", "config/config.yaml")
    for stage, some in (("small", range(1, steps)), ("large", range(steps, 2 * steps))):
        tracker.start_stage(stage, {"size": {"width": 8}})
        tracker.start_phase("train")
        for step in some:
            tracker.log({"train/loss": 1 / step, "odd [name]": 1.0}, step)
            if step % 5 == 0:
                tracker.log({"evaluate/loss": 2 / step}, step)
        tracker.log({"evaluate/loss": 0.0, "bad": float("nan"), "worse": float("inf")}, step)
        tracker.end_stage()


def wanted(run_dir: Path, stage: str | None) -> Counter[str]:
    """Points per metric that the metrics file has, of a stage or of all."""
    counts: Counter[str] = Counter()
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if stage in (None, record["stage"]):
            counts.update(set(record) - {"time", "stage", "phase", "step"})
    return Counter({name.replace("[", "_").replace("]", "_"): count for name, count in counts.items()})


def there(desk: Desk, run: str) -> Counter[str]:
    """Points per metric that the store has."""
    stored = desk.runs()[run]
    history = desk.client.get_metric_history
    return Counter({metric: len(history(stored.info.run_id, metric)) for metric in stored.data.metrics})


def assert_complete(desk: Desk) -> None:
    assert set(desk.runs()) == {"journey", "small", "large"}
    for name, stage in (("journey", None), ("small", "small"), ("large", "large")):
        assert there(desk, name) == wanted(desk.run_dir, stage)


def sync(desk: Desk, *arguments: str) -> int:
    return main([str(desk.run_dir), *arguments])


def test_a_run_that_no_store_knows_is_delivered_whole(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = desk.tracker(mlflow=False)
    journey(tracker)
    (desk.run_dir / "export" / "inner").mkdir(parents=True)
    (desk.run_dir / "export" / "inner" / "model.txt").write_text("weights")
    (desk.run_dir / "report.txt").write_text("loss 0.1")
    tracker.artifact(desk.run_dir / "export", "model")
    tracker.artifact(desk.run_dir / "report.txt", "reports/final.txt")
    tracker.set_tags({"export.path": "/there"})
    tracker.close()

    assert sync(desk, "--uri", desk.uri) == 0
    assert_complete(desk)
    runs = desk.runs()
    parent, large = runs["journey"], runs["large"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.params == {"seed": "0", "stages.0.size.width": "8"}
    assert large.data.params == {"size.width": "8"}
    assert (parent.data.tags["host"], parent.data.tags["export.path"]) == ("a", "/there")
    assert (large.data.tags["phase"], large.data.tags["mlflow.parentRunId"]) == ("train", parent.info.run_id)
    for path, text in (
        ("config/config.yaml", "seed: 0\n"),
        ("model/inner/model.txt", "weights"),
        ("reports/final.txt", "loss 0.1"),
    ):
        assert Path(desk.client.download_artifacts(parent.info.run_id, path)).read_text() == text
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{desk.run_dir} -> {desk.uri}, experiment {desk.experiment}"
    total = wanted(desk.run_dir, None).total()
    assert out[1].startswith(
        f"  journey: 0 points were there, {total} sent, {total} in all; also the run itself, "
    )
    assert out[1].endswith("config/config.yaml, model/inner/model.txt, reports/final.txt")
    assert len(out) == 4

    assert sync(desk, "--uri", desk.uri) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[1] == f"  journey: {total} points were there, 0 sent, {total} in all"
    assert again[-1] == "  nothing was missing"
    assert_complete(desk)


def test_a_run_that_was_killed_ends_as_killed_where_its_metrics_end(desk: Desk) -> None:
    tracker = desk.tracker(mlflow=False)
    tracker.start_run("journey", {}, {})
    tracker.start_stage("small", {})
    tracker.end_stage()
    tracker.start_stage("large", {})
    tracker.log({"train/loss": 0.25}, 3, time=4e9)
    assert sync(desk, "--uri", desk.uri) == 0
    large = desk.runs()["large"].info.run_id
    (point,) = desk.client.get_metric_history(large, "train/loss")
    assert (point.value, point.step, point.timestamp) == (0.25, 3, 4_000_000_000_000)
    runs = desk.runs()
    assert {name: run.info.status for name, run in runs.items()} == {
        "journey": "KILLED", "small": "FINISHED", "large": "KILLED",
    }  # fmt: skip
    assert runs["journey"].info.end_time == runs["large"].info.end_time == 4_000_000_000_000


def test_batches_that_were_refused_in_the_middle_are_delivered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    send = MlflowStore.send_points

    def refuse_some(store: MlflowStore, run_id: str, points: list[Point]) -> None:
        if any(point.step in (4, 5, 15) for point in points):
            raise Refused("no")
        send(store, run_id, points)

    monkeypatch.setattr(MlflowStore, "send_points", refuse_some)
    monkeypatch.setattr("ligo_dist.tracking.delivery.METRIC_BATCH", 1)
    tracker = desk.tracker()
    journey(tracker)
    tracker.close()
    monkeypatch.undo()
    assert there(desk, "small")["train/loss"] == 9
    assert {run.info.status for run in desk.runs().values()} == {"FINISHED"}
    assert sync(desk) == 0
    assert_complete(desk)
    small = wanted(desk.run_dir, "small").total()
    assert f"small: {small - 5} points were there, 5 sent, {small} in all" in capsys.readouterr().out
    assert sync(desk) == 0
    assert capsys.readouterr().out.endswith("nothing was missing\n")


def test_a_store_that_does_not_keep_what_it_takes_is_an_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = desk.tracker(mlflow=False)
    tracker.start_run("journey", {}, {})
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close()
    monkeypatch.setattr(MlflowStore, "send_points", lambda *_: None)
    assert sync(desk, "--uri", desk.uri) == 1
    assert "1 points were sent and are not there" in capsys.readouterr().out


def test_an_artifact_that_is_gone_is_named(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = desk.tracker(mlflow=False)
    tracker.start_run("journey", {}, {})
    tracker.artifact(desk.run_dir / "report.txt", "report.txt")
    tracker.close()
    assert sync(desk, "--uri", desk.uri) == 1
    assert (
        f"artifact report.txt was not stored: there is no {desk.run_dir / 'report.txt'}"
        in capsys.readouterr().out
    )


def test_one_store_out_of_reach_does_not_keep_the_others_from_theirs(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    away = type(desk)(tmp_path / "away", f"http://127.0.0.1:{port}")
    for some in (desk, away):
        tracker = some.tracker(mlflow=False)
        tracker.start_run("journey", {}, {})
        tracker.close()
        ledger = some.run_dir / "tracking.json"
        ledger.write_text(json.dumps(json.loads(ledger.read_text()) | {"address": some.uri}))
    assert main([str(away.run_dir), str(desk.run_dir)]) == 1
    assert capsys.readouterr().err == (
        f"ligo-dist: {away.run_dir}: http://127.0.0.1:{port}: Connection refused\n"
    )
    assert set(desk.runs()) == {"journey"}


def test_a_run_that_goes_on_is_left_alone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.tracker(mlflow=False).start_run("journey", {}, {})
    with FileLock(desk.run_dir / ".lock"):
        assert sync(desk, "--uri", desk.uri) == 2
    wrong = "in use by a run; what MLflow misses can be sent when it has ended"
    assert capsys.readouterr() == ("", f"ligo-dist: {desk.run_dir}: {wrong}\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such directory"),
        ("", "no directory of a run: tracking.json is missing"),
        ("{}", "no directory of a run: tracking.json cannot be read as the record of a run"),
    ],
)
def test_a_directory_that_is_no_runs(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "run").mkdir()
    if content:
        (tmp_path / "run" / "tracking.json").write_text(content)
    with pytest.raises(LigoError, match=f"^{said}$"):
        check_run_dir(tmp_path / "run", None)


def test_an_address_that_is_no_store_is_named(desk: Desk) -> None:
    desk.tracker(mlflow=False).start_run("journey", {}, {})
    with pytest.raises(LigoError, match=r"^--uri: 'gopher://x' has the unknown scheme"):
        check_run_dir(desk.run_dir, "gopher://x")


def test_a_lock_that_cannot_be_written(desk: Desk) -> None:
    desk.tracker(mlflow=False).start_run("journey", {}, {})
    (desk.run_dir / ".lock").mkdir()
    with pytest.raises(LigoError, match=r"^\.lock cannot be written there: Is a directory"):
        check_run_dir(desk.run_dir, None)


@pytest.mark.parametrize(
    ("recorded", "variable", "uri", "address"),
    [
        ("http://host:5000", None, None, "http://host:5000"),
        ("http://host:5000", "http://elsewhere", None, "http://host:5000"),
        ("http://host:5000", None, "http://elsewhere", "http://elsewhere"),
        ("http://***@host:5000", None, None, "http://host:5000"),
        ("http://***@host:5000", "http://me:secret@host:5000", None, "http://me:secret@host:5000"),
        ("postgresql://***@db/x", "postgresql://me:secret@db/x", None, "postgresql://me:secret@db/x"),
        (None, "http://host", None, "http://host"),
        (None, None, None, "sqlite:////runs/mlflow.db"),
    ],
)
def test_where_to_deliver(
    monkeypatch: pytest.MonkeyPatch, recorded: str | None, variable: str | None, uri: str | None, address: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    ledger = TrackingState(identity="1", address=recorded, experiment="x")
    assert store_address(ledger, Path("/runs/journey"), uri) == address


def test_a_password_that_nobody_knows_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger: Any = TrackingState(identity="1", address="postgresql://***@db/x", experiment="x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@other/x")
    with pytest.raises(LigoError, match=r"^the password of postgresql://\*\*\*@db/x is kept nowhere; put"):
        store_address(ledger, Path("/runs/journey"), None)
