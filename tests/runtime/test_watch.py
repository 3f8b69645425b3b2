"""What the watch sees, and what it asks for then; the clock is ours."""

from __future__ import annotations

import io
import os
import signal
import threading
from pathlib import Path

import pytest
from rank_processes import Clock, wait_until

from ligo_dist.runtime import watch as module
from ligo_dist.runtime.launch import LaunchDirectory
from ligo_dist.runtime.signals import StopReason
from ligo_dist.runtime.watch import Watch

Asked = list[tuple[StopReason, float | None]]


class Signals:
    """Notes what it is asked for, in place of `StopSignals`."""

    def __init__(self) -> None:
        self.asked: Asked = []

    def ask(self, reason: StopReason, within_seconds: float | None = None) -> None:
        self.asked.append((reason, within_seconds))

    def of(self, watch: Watch) -> Asked:
        """What one look asks for."""
        self.asked = []
        watch.look()
        return self.asked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock.module)
    return clock


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def launch(tmp_path: Path) -> LaunchDirectory:
    return LaunchDirectory.make(tmp_path)


def build(signals: Signals, launch: LaunchDirectory | None = None, leads: bool = True) -> Watch:
    return Watch(signals, lost_seconds=30, grace_seconds=60, leads=leads, launch=launch)  # type: ignore[arg-type]


LOST = [(StopReason.LAUNCHER_GONE, 60)]


def test_a_request_is_heeded_once_the_run_directory_is_known(signals: Signals, tmp_path: Path):
    watch, file = build(signals), tmp_path / "stop"
    file.touch()
    assert signals.of(watch) == []
    watch.heed(file)
    assert signals.of(watch) == [(StopReason.REQUESTED, None)]
    file.unlink()
    assert signals.of(watch) == []


def test_files_are_looked_at_by_one_rank_of_a_node(
    signals: Signals, launch: LaunchDirectory, tmp_path: Path, clock: Clock
):
    watch = build(signals, launch, leads=False)
    (tmp_path / "stop").touch()
    watch.heed(tmp_path / "stop")
    launch.ask("stop")
    clock.now += 1000
    assert signals.of(watch) == []


def test_what_the_launcher_asks_for(signals: Signals, launch: LaunchDirectory, clock: Clock):
    watch = build(signals, launch)
    assert signals.of(watch) == []
    launch.ask("preempt")
    assert signals.of(watch) == [(StopReason.REQUESTED, None)]
    launch.ask("stop")
    assert signals.of(watch) == [(signal.SIGINT, None)]


def test_a_launcher_that_does_not_count_for_long_has_gone(
    signals: Signals, launch: LaunchDirectory, clock: Clock
):
    watch = build(signals, launch)
    launch.count(1)
    for seconds, asked in ((29.0, []), (29.0, []), (1.0, []), (0.1, LOST), (1.0, LOST)):
        clock.now += seconds
        assert signals.of(watch) == asked
    launch.count(2)
    assert signals.of(watch) == []
    clock.now += 30
    assert signals.of(watch) == []


def test_so_has_one_that_never_did(signals: Signals, launch: LaunchDirectory, clock: Clock):
    watch = build(signals, launch)
    clock.now += 30
    assert signals.of(watch) == []
    clock.now += 0.1
    assert signals.of(watch) == LOST


def test_a_number_that_cannot_be_read_is_none(signals: Signals, launch: LaunchDirectory, clock: Clock):
    watch, counter = build(signals, launch), launch.path / "launcher"
    launch.count(7)
    assert signals.of(watch) == []
    clock.now += 20
    counter.unlink()
    assert signals.of(watch) == []
    clock.now += 5
    counter.write_bytes(b"\xff")
    assert signals.of(watch) == []
    clock.now += 5
    launch.count(7)  # the number from before: nothing has happened
    assert signals.of(watch) == []
    clock.now += 0.1
    assert signals.of(watch) == LOST


def test_any_rank_sees_that_what_started_it_has_gone(signals: Signals, monkeypatch: pytest.MonkeyPatch):
    watch = build(signals, leads=False)
    assert signals.of(watch) == []
    monkeypatch.setattr(module.parent, "has_gone", lambda: True)
    assert signals.of(watch) == [(StopReason.PARENT_GONE, 60)]


def test_it_looks_until_it_is_closed(signals: Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    watch = build(signals)
    watch.heed(tmp_path)
    watch.start()
    wait_until(lambda: len(signals.asked) > 2)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "watch"]
    watch.close()
    thread.join(10)
    assert not thread.is_alive()


def test_it_goes_on_looking_where_the_file_system_fails(
    signals: Signals, launch: LaunchDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(116, "Stale file handle")

    watch = build(signals, launch)
    watch.heed(tmp_path / "stop")
    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", fail)
        failing.setattr(io, "open", fail)
        assert signals.of(watch) == []
    (tmp_path / "stop").touch()
    assert signals.of(watch) == [(StopReason.REQUESTED, None)]
