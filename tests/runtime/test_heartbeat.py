"""Signs of life: which count, who is told, and the timer that ends a rank without them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from rank_processes import BLOCK, Clock, running

from ligo_dist.runtime import heartbeat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock.module)
    monkeypatch.setattr(heartbeat, "_HEART", heartbeat._Heart())
    return clock


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this rank is at, and whether it is timed, as the watchdog is told."""
    told: list[Any] = []
    monkeypatch.setattr(heartbeat.watchdog, "tell", lambda **facts: told.extend(facts.values()))
    return told


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each timer that is set, each in the place of the one before; infinite where one is cancelled."""
    timers: list[float] = []
    monkeypatch.setattr(
        heartbeat.faulthandler, "dump_traceback_later", lambda seconds, **_: timers.append(seconds)
    )
    monkeypatch.setattr(
        heartbeat.faulthandler, "cancel_dump_traceback_later", lambda: timers.append(math.inf)
    )
    return timers


def in_a_thread(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def test_the_watchdog_is_told_once_a_second_and_of_what_begins_at_once(clock: Clock, told: list[Any]):
    heartbeat.enter("medium learn")
    assert told == ["medium learn"]
    clock.now += 0.75
    heartbeat.beat("step 16")
    assert told == ["medium learn"]
    clock.now += 0.25
    heartbeat.beat("step 17")
    assert told == ["medium learn", "medium learn step 17"]
    clock.now += 0.5
    heartbeat.enter("export")
    assert told == ["medium learn", "medium learn step 17", "export"]
    clock.now += 0.5
    heartbeat.beat("shard 2")
    assert told[2:] == ["export"]
    clock.now += 0.5
    heartbeat.beat("shard 3")
    assert told[3:] == ["export shard 3"]


def test_where_it_is_at_is_known_at_once(clock: Clock, told: list[Any]):
    assert heartbeat.where() == "start"
    for beat in (
        lambda: heartbeat.enter("medium learn"),
        lambda: heartbeat.beat("step 16"),
        lambda: heartbeat.beat("step 17"),
    ):
        beat()
    assert heartbeat.where() == "medium learn step 17"
    heartbeat.enter("export")
    assert heartbeat.where() == "export"


def test_what_failed_stays_known_while_the_rest_is_closed(clock: Clock, told: list[Any]):
    heartbeat.enter("medium learn")
    heartbeat.beat("step 17")
    heartbeat.keep_place()
    clock.now += 2
    heartbeat.beat("recording the rest in MLflow")
    assert heartbeat.where() == "medium learn step 17"
    assert told == ["medium learn", "medium learn step 17"], "it is a beat"
    heartbeat.enter("export")
    heartbeat.beat("shard 2")
    assert heartbeat.where() == "export shard 2"


def test_each_item_is_a_beat(clock: Clock, told: list[Any]):
    seen = []
    for item in heartbeat.beating([1, 2, 3], "growing"):
        seen.append((item, len(told)))
        clock.now += 1
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert set(told) == {"start growing"}


def test_another_thread_is_no_sign_of_life(clock: Clock, told: list[Any], timers: list[float]):
    heartbeat.start(10)
    clock.now += 5
    in_a_thread(lambda: heartbeat.beat("writing"))
    in_a_thread(lambda: heartbeat.enter("writing"))
    assert heartbeat.where() == "start"
    assert (told, timers) == ([True, "start"], [10])


def test_the_timer_begins_anew_with_each_beat_that_counts(clock: Clock, told: list[Any], timers: list[float]):
    heartbeat.beat("reading")
    assert timers == []
    clock.now += 0.5
    heartbeat.start(10)
    clock.now += 0.5
    heartbeat.beat("step 1")
    assert timers == [10]
    clock.now += 0.5
    heartbeat.beat("step 2")
    assert timers == [10, 10]
    assert told == ["start reading", True, "start reading", "start step 2"]


def test_no_beat_goes_beyond_the_limit(clock: Clock, told: list[Any], timers: list[float]):
    heartbeat.start(10)
    clock.now += 1
    in_a_thread(lambda: heartbeat.limit(13))
    for _ in range(3):
        clock.now += 4
        heartbeat.beat("step")
    assert timers == [10, 9, 9, 5, 1], "a limit is no beat: the timer still runs from the last one"
    clock.now += 3  # what is past by the time it is looked at ends the rank all the same
    heartbeat.beat("step")
    assert 0 < timers[-1] < 0.1


@pytest.mark.parametrize("has_begun", [False, True], ids=["before any beat", "after one"])
def test_of_two_limits_the_earlier_stays(clock: Clock, told: list[Any], timers: list[float], has_begun: bool):
    if has_begun:
        heartbeat.beat("reading")
    for seconds in (9, 5, 7):
        heartbeat.limit(seconds)
    assert timers == [9, 5, 5]


def test_at_the_end_of_the_work_nothing_ends_the_rank(clock: Clock, told: list[Any], timers: list[float]):
    heartbeat.start(10)
    heartbeat.limit(5)
    heartbeat.stop()
    assert timers == [10, 5, math.inf]
    clock.now += 60
    heartbeat.beat("leaving")
    assert timers[3:] == []
    assert told == [True, "start", False, "start leaving"]


_HANG = f"""
import threading
from ligo_dist.runtime import heartbeat
{BLOCK}
threading.Thread(target=block, daemon=True).start()
heartbeat.start(1)
print("ready", flush=True)
block(ctypes.PyDLL)
"""


def test_a_rank_that_hangs_ends_and_leaves_the_stack_of_every_thread():
    with running(_HANG) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Timeout (0:00:01)!" in said
    lines = _HANG.splitlines()
    waiting, calling = lines.index("        lock(mutexes[-1])") + 1, len(lines)
    assert said.count(f'File "<string>", line {waiting} in block') == 2
    assert f'File "<string>", line {calling} in <module>' in said


def test_a_rank_that_gets_on_does_not_end():
    body = """
import time
from ligo_dist.runtime import heartbeat
heartbeat.SECONDS = 0.1
print("ready", flush=True)
heartbeat.start(1.5)
for _ in heartbeat.beating(range(20), "step"):
    time.sleep(0.1)
heartbeat.stop()
time.sleep(1.7)
print("finished")
"""
    with running(body) as process:
        assert process.communicate(timeout=30) == ("finished\n", "")
        assert process.returncode == 0


def test_beyond_its_limit_a_rank_ends_though_it_gets_on():
    body = """
import threading, time
from ligo_dist.runtime import heartbeat
heartbeat.SECONDS = 0.1
print("ready", flush=True)
heartbeat.start(60)
threading.Thread(target=heartbeat.limit, args=(1,)).start()
for _ in heartbeat.beating(range(300), "step"):
    time.sleep(0.1)
"""
    with running(body) as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 1
        assert "Timeout" in said
