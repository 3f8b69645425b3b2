"""What the run directory keeps for a store that missed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ligo_dist.tracking.ledger import LEDGER_FILE, Ledger, LedgerTracker, TrackedRun, read_ledger


def open_ledger(
    run_dir: Path, resume: bool = False, address: str | None = "http://me:secret@host"
) -> LedgerTracker:
    run_dir.mkdir(exist_ok=True)
    return LedgerTracker(run_dir, address, "experiment", resume, warn=pytest.fail)


def read(run_dir: Path) -> Ledger:
    ledger = read_ledger(run_dir)
    assert ledger is not None
    return ledger


def parent(run_dir: Path) -> TrackedRun:
    run = read(run_dir).run
    assert run is not None
    return run


def test_everything_is_on_disk_as_soon_as_it_happens(tmp_path: Path) -> None:
    tracker = open_ledger(tmp_path)
    assert not (tmp_path / LEDGER_FILE).exists()
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
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER_FILE]


def test_no_secret_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_TOKEN", "planted")
    tracker = open_ledger(tmp_path)
    tracker.start_run("planted", {"a": "planted"}, {"b": "http://x:planted@y"})
    tracker.start_stage("small", {"c": "planted"})
    tracker.set_tags({"d": "planted"})
    tracker.artifact("planted", "text")
    text = (tmp_path / LEDGER_FILE).read_text()
    assert "planted" not in text
    assert json.loads(text)["address"] == "http://***@host"


def test_a_resumed_run_keeps_its_identity_and_what_cannot_change(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    first.start_run("journey", {"seed": 0}, {"host": "a", "kept": "yes"})
    first.artifact("0", "config.yaml")
    started = parent(tmp_path).started
    first.close("KILLED")
    again = open_ledger(tmp_path, resume=True, address=None)
    again.start_run("journey", {"seed": 1, "added": 2}, {"host": "b"})
    assert again.identity == first.identity == read(tmp_path).identity
    assert read(tmp_path).address is None
    assert parent(tmp_path) == TrackedRun(
        name="journey",
        parameters={"seed": "0", "added": "2"},
        tags={"host": "b", "kept": "yes"},
        texts={"config.yaml": "0"},
        started=started,
    )


def test_a_new_run_is_another_one(tmp_path: Path) -> None:
    first = open_ledger(tmp_path)
    first.start_run("journey", {}, {})
    first.start_stage("small", {})
    second = open_ledger(tmp_path)
    second.start_run("journey", {}, {})
    assert second.identity != first.identity
    assert second.earlier is not None
    assert second.earlier.identity == first.identity
    assert read(tmp_path).stages == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"identity": 1}'])
def test_one_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / LEDGER_FILE).write_text(content)
    assert read_ledger(tmp_path) is None
    assert open_ledger(tmp_path, resume=True).earlier is None


def test_what_comes_after_the_end_has_no_effect(tmp_path: Path) -> None:
    tracker = open_ledger(tmp_path)
    tracker.start_run("journey", {}, {})
    tracker.close("KILLED")
    before = (tmp_path / LEDGER_FILE).read_text()
    tracker.set_tags({"late": "yes"})
    tracker.close()
    assert (tmp_path / LEDGER_FILE).read_text() == before


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    open_ledger(tmp_path).close("FAILED")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = LedgerTracker(tmp_path / "no", None, "experiment", False, warnings.append)
    tracker.start_run("journey", {}, {})
    tracker.set_tags({"a": "b"})
    assert warnings == [f"cannot write {tmp_path / 'no' / LEDGER_FILE}: No such file or directory"]
