"""The thread between the training and a store: order, retries, bounds. No store is needed for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ligo_dist.tracking import background
from ligo_dist.tracking.background import BackgroundTracker
from ligo_dist.tracking.failures import OutOfReach, Unusable
from ligo_dist.tracking.protocol import NullTracker


class Recorder(NullTracker):
    """Notes the steps logged; `behave` is called with each step first and may raise."""

    def __init__(self, behave: Callable[[int], None] = lambda step: None) -> None:
        self.behave = behave
        self.steps: list[int] = []
        self.flushes = 0
        self.closed = ""

    def log(self, metrics: Mapping[str, float], step: int, time: float | None = None) -> None:
        self.behave(step)
        self.steps.append(step)

    def flush(self) -> None:
        self.flushes += 1

    def close(self, status: str = "FINISHED") -> None:
        self.closed = status


def follow(recorder: Recorder, steps: int, **options: float) -> list[str]:
    warnings: list[str] = []
    tracker = BackgroundTracker(recorder, "store", warnings.append, "`sync`", pauses=(0.0,), **options)  # type: ignore[arg-type]
    for step in range(steps):
        tracker.log({}, step)
    deadline = time.monotonic() + 5
    while tracker._calls and tracker._usable and time.monotonic() < deadline:
        time.sleep(0.001)
    tracker.close("KILLED")
    tracker.close()
    tracker.log({}, steps)
    return warnings


def test_calls_keep_their_order() -> None:
    recorder = Recorder()
    assert follow(recorder, 500) == []
    assert recorder.steps == list(range(500))
    assert recorder.closed == "KILLED"
    assert recorder.flushes


def test_store_that_comes_back_misses_nothing() -> None:
    failures = iter([True] * 20)

    def behave(step: int) -> None:
        if step == 3 and next(failures, False):
            raise OutOfReach("no route")

    recorder = Recorder(behave)
    assert follow(recorder, 6) == [
        "store: no route; going on and trying again now and then; if it stays away, `sync` delivers the rest",
        "store: answers again",
    ]
    assert recorder.steps == list(range(6))


def test_refused_call_is_skipped_and_reported_once() -> None:
    def behave(step: int) -> None:
        if step % 2:
            raise ValueError("odd http://me:secret@host")

    recorder = Recorder(behave)
    assert follow(recorder, 6) == [
        "store: odd http://***@host; going on without it",
        "store: not everything of this run was recorded; `sync` delivers the rest",
    ]
    assert recorder.steps == [0, 2, 4]


def test_unusable_store_is_not_called_again() -> None:
    def behave(step: int) -> None:
        if step == 2:
            raise Unusable("gone")

    recorder = Recorder(behave)
    assert follow(recorder, 6) == [
        "store: gone; this run is recorded in its directory only; `sync` delivers it"
    ]
    assert recorder.steps == [0, 1]
    assert not recorder.closed


def test_a_store_that_hangs_neither_blocks_nor_fills_the_memory() -> None:
    """All calls return while the store still hangs in the first one."""
    entered, release = threading.Event(), threading.Event()

    def behave(step: int) -> None:
        entered.set()
        assert release.wait(60)

    recorder = Recorder(behave)
    warnings: list[str] = []
    tracker = BackgroundTracker(recorder, "store", warnings.append, "`sync`", capacity=10, close_seconds=0.2)
    tracker.log({}, 0)
    assert entered.wait(60)
    for step in range(1, 1000):
        tracker.log({}, step)
    assert (recorder.steps, len(tracker._calls)) == ([], 10)
    tracker.close()
    assert recorder.steps == []
    assert warnings == ["store: not everything of this run was recorded; `sync` delivers the rest"]
    release.set()


def test_a_model_that_is_being_sent_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than for all else, and with signs of life."""
    beats: list[str] = []
    monkeypatch.setattr(background, "beat", beats.append)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(10**9)  # takes no room
    entered, release, sent = threading.Event(), threading.Event(), []

    class Sending(Recorder):
        def register_model(self, name: str, directory: Path) -> None:
            entered.set()
            assert release.wait(60)
            sent.append((name, directory))

    warnings: list[str] = []
    tracker = BackgroundTracker(Sending(), "store", warnings.append, "`sync`", close_seconds=0.1)
    tracker.register_model("name", tmp_path)
    assert entered.wait(60)
    threading.Timer(0.5, release.set).start()
    tracker.close()
    assert (sent, warnings) == ([("name", tmp_path)], [])
    assert beats[0] == "recording the rest in store"


def test_records_beyond_the_capacity_are_dropped_and_told_at_the_end() -> None:
    entered, release = threading.Event(), threading.Event()

    def behave(step: int) -> None:
        entered.set()
        assert release.wait(60)

    recorder = Recorder(behave)
    warnings: list[str] = []
    tracker = BackgroundTracker(recorder, "store", warnings.append, "`sync`", capacity=3)
    for step in range(6):
        tracker.log({}, step)
    assert entered.wait(60)
    release.set()
    tracker.close()
    assert recorder.steps == [0, 1, 2]
    assert recorder.closed == "FINISHED"
    assert warnings == ["store: not everything of this run was recorded; `sync` delivers the rest"]
