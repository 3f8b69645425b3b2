"""The thread between a run's files and a store: retries, what is refused, and that training never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ligo_dist.tracking import (
    PARENT,
    Mirror,
    MlflowStore,
    OutOfReach,
    Point,
    Refused,
    RunRecord,
    StoredRun,
    TrackedRun,
)
from ligo_dist.tracking import mirror as module


class Store(MlflowStore):
    """Keeps all in memory; `behave` is called before each call, with its name, and may raise."""

    def __init__(self, behave: Callable[[str], None] = lambda call: None) -> None:
        self.address, self.behave = "store", behave
        self.runs: dict[str, StoredRun] = {}
        self.steps: dict[str, list[int]] = {}
        self.statuses: dict[str, str] = {}
        self.registered: list[str] = []

    def connect(self) -> None:
        self.behave("connect")

    def find(self, key: str) -> StoredRun | None:
        self.behave("find")
        return self.runs.get(key)

    def create(self, key: str, run: TrackedRun) -> StoredRun:
        self.behave("create")
        self.steps[key] = []
        self.runs[key] = StoredRun(key, "RUNNING", {}, run.tags)
        return self.runs[key]

    def points(self, run: StoredRun) -> list[Point]:
        return []

    def send_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        self.behave("parameters")

    def send_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.behave("tags")

    def send_points(self, run_id: str, points: Sequence[Point]) -> None:
        if points:
            self.behave("points")
            self.steps[run_id] += [point.step for point in points]

    def set_status(self, run_id: str, status: str, ended: float | None = None) -> None:
        self.statuses[run_id] = status

    def artifacts(self, run_id: str, folder: str | None = None) -> dict[str, int]:
        return {}

    def send_file(self, run_id: str, file: Path, name: str) -> None:
        self.behave("file")

    def register(self, run_id: str, name: str, artifact: str) -> str | None:
        self.registered.append(name)
        return "1"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    monkeypatch.setattr(module, "_PERIOD_SECONDS", 0.0)


def mirrored(run_dir: Path, store: Store, **options: Any) -> tuple[RunRecord, list[str]]:
    """What writes the files of a run that is mirrored, and what the user is told."""
    warnings: list[str] = []
    record = RunRecord(run_dir, "store", "experiment", None, warnings.append)
    Mirror(store, run_dir, record, False, warnings.append, "`sync`", **options)
    return record, warnings


def train(record: RunRecord, steps: int) -> None:
    record.start_run("run", {}, {})
    record.start_stage("small", {})
    for step in range(steps):
        record.log({"loss": 1.0}, step)


def test_all_is_there_in_its_order(tmp_path: Path) -> None:
    store = Store()
    record, warnings = mirrored(tmp_path, store)
    train(record, 500)
    record.close("KILLED")
    record.close()
    assert warnings == []
    assert store.steps == {PARENT: list(range(500)), "small": list(range(500))}
    assert store.statuses == {PARENT: "KILLED", "small": "KILLED"}


def test_metrics_beyond_one_round_are_read_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROUND_BYTES", 300)
    store = Store()
    record, warnings = mirrored(tmp_path, store)
    train(record, 50)
    record.close()
    assert (warnings, store.steps["small"]) == ([], list(range(50)))


@pytest.mark.parametrize("call", ["connect", "create", "points", "tags"])
def test_a_store_that_comes_back_misses_nothing(tmp_path: Path, call: str) -> None:
    failures, back = iter([True] * 20), threading.Event()

    def behave(name: str) -> None:
        if name != call or back.is_set():
            return
        if next(failures, False):
            raise OutOfReach("no route")
        back.set()

    store = Store(behave)
    record, warnings = mirrored(tmp_path, store)
    train(record, 6)
    assert back.wait(60)
    record.close()
    assert warnings == [
        "MLflow: no route; going on and trying again now and then; if it stays away, `sync` delivers the rest",
        "MLflow: answers again",
    ]
    assert store.steps == {PARENT: list(range(6)), "small": list(range(6))}


def test_what_is_refused_is_left_out_and_told_once(tmp_path: Path) -> None:
    def behave(name: str) -> None:
        if name == "points":
            raise Refused("odd http://me:secret@host")

    store = Store(behave)
    record, warnings = mirrored(tmp_path, store)
    train(record, 6)
    record.close()
    assert warnings == [
        "MLflow: odd http://***@host; going on without it",
        "MLflow: not everything of this run was recorded; `sync` delivers the rest",
    ]
    assert store.statuses == {PARENT: "FINISHED", "small": "FINISHED"}


@pytest.mark.parametrize("call", ["connect", "create"])
def test_a_store_of_no_use_is_not_called_again(tmp_path: Path, call: str) -> None:
    calls: list[str] = []

    def behave(name: str) -> None:
        calls.append(name)
        if name == call:
            raise Refused("gone")

    record, warnings = mirrored(tmp_path, Store(behave))
    train(record, 6)
    record.close()
    assert warnings == ["MLflow: gone; this run is recorded in its directory only; `sync` delivers it"]
    assert calls.count(call) == 1


def test_a_store_that_hangs_blocks_nothing(tmp_path: Path) -> None:
    """All calls return while the store still hangs in the first one."""
    entered, release = threading.Event(), threading.Event()

    def behave(name: str) -> None:
        entered.set()
        assert release.wait(60)

    record, warnings = mirrored(tmp_path, Store(behave), close_seconds=0.2)
    train(record, 1000)
    assert entered.wait(60)
    record.close()
    assert warnings == ["MLflow: not everything of this run was recorded; `sync` delivers the rest"]
    release.set()


def test_a_model_that_is_being_sent_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than for all else, and with signs of life."""
    beats: list[str] = []
    monkeypatch.setattr(module, "beat", beats.append)
    model = tmp_path / "export"
    model.mkdir()
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(10**9)  # takes no room
    entered, release = threading.Event(), threading.Event()

    def behave(name: str) -> None:
        if name == "file":
            entered.set()
            assert release.wait(60)

    store = Store(behave)
    record, warnings = mirrored(tmp_path, store, close_seconds=0.1)
    record.start_run("run", {}, {})
    record.register_model("name", model)
    assert entered.wait(60)
    threading.Timer(0.5, release.set).start()
    record.close()
    assert store.registered == ["name"]
    assert warnings == [f"MLflow: {model} is version 1 of the registered model name"]
    assert beats[0] == "recording the rest in MLflow"


def test_an_artifact_that_is_given_again_is_sent_again(tmp_path: Path) -> None:
    sent: list[str] = []
    store = Store(sent.append)
    record, _ = mirrored(tmp_path, store)
    (tmp_path / "picture").write_text("a")
    record.start_run("run", {}, {})
    record.artifact(tmp_path / "picture", "picture")
    deadline = threading.Event()
    for _ in range(1000):
        if "file" in sent or deadline.wait(0.01):
            break
    record.artifact(tmp_path / "picture", "picture")
    record.set_tags({"a": "b"})
    record.close()
    assert sent.count("file") == 2
