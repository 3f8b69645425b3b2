"""The file that says where a rank is; the clock is ours."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ligo_dist import heartbeat


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat.time, "monotonic", clock)
    monkeypatch.setattr(heartbeat, "_HEART", heartbeat._Heart())
    return clock


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "rank-0"
    monkeypatch.setenv("LIGO_DIST_HEARTBEAT", str(file))
    return file


def test_the_file_is_there_when_the_ranks_have_met(clock: Clock, file: Path):
    heartbeat.enter("preparation")
    heartbeat.beat("reading")
    assert not file.exists()
    heartbeat.start()
    assert file.read_text().strip() == "preparation reading"


def test_it_is_written_once_a_second_at_most_and_says_where_the_rank_is(clock: Clock, file: Path):
    heartbeat.start()
    assert file.read_text().strip() == "start"
    clock.now += 0.9
    heartbeat.enter("medium learn")
    heartbeat.beat("step 16")
    assert file.read_text().strip() == "start"
    clock.now += 0.2
    heartbeat.beat("step 17")
    assert file.read_text().strip() == "medium learn step 17"
    clock.now += 1.0
    heartbeat.enter("export")
    assert file.read_text().strip() == "export"
    assert heartbeat.where() == "export"


def test_every_line_replaces_the_whole_one_before(clock: Clock, file: Path):
    heartbeat.start()
    size = file.stat().st_size
    for text in ("x" * 500, "é", "a\nb"):
        clock.now += 1
        heartbeat.beat(text)
        assert file.stat().st_size == size
    assert file.read_bytes().endswith(b"\n")


def test_each_item_is_a_beat(clock: Clock, file: Path):
    heartbeat.start()
    seen = []
    for item in heartbeat.beating([1, 2, 3], "growing"):
        seen.append((item, file.read_text().strip()))
        clock.now += 1
    assert seen == [(1, "start"), (2, "start growing"), (3, "start growing")]


def test_another_thread_is_no_sign_of_life(clock: Clock, file: Path):
    heartbeat.start()
    clock.now += 5
    thread = threading.Thread(target=heartbeat.beat, args=("writing",))
    thread.start()
    thread.join()
    assert heartbeat.where() == "start"
    assert file.read_text().strip() == "start"


def test_a_file_that_cannot_be_written_is_none(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIGO_DIST_HEARTBEAT", str(tmp_path / "nowhere" / "rank-0"))
    heartbeat.start()
    clock.now += 1
    heartbeat.beat("step 1")
    assert heartbeat.where() == "start step 1"


def test_without_the_variable_nothing_is_written(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LIGO_DIST_HEARTBEAT", raising=False)
    monkeypatch.chdir(tmp_path)
    heartbeat.start()
    heartbeat.beat("step 1")
    assert list(tmp_path.iterdir()) == []
