"""The process beside a rank: what it does, by our clock; and real ones, whose ranks end in every way there is."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from rank_processes import Clock, start_python, wait_until

from ligo_dist.runtime import watchdog
from ligo_dist.runtime.launch import LaunchDirectory, RankEnd
from ligo_dist.runtime.watchdog import Watchdog, _State

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says of a process what it needs")

# --- what a rank tells ---


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What this process would tell its watchdog is read here."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    monkeypatch.setattr(watchdog, "_pipe", writing)
    yield reading
    os.close(reading)
    os.close(writing)


def heard(pipe: int) -> list[Any]:
    return [json.loads(line) for line in os.read(pipe, 1 << 20).splitlines()]


def test_facts_go_one_a_line(pipe: int):
    watchdog.tell(rank=1, host="h")
    watchdog.tell(doing="growing\ngrün")
    assert heard(pipe) == [{"rank": 1, "host": "h"}, {"doing": "growing\ngrün"}]


@pytest.mark.parametrize("letter", ["x", "é", '"'])
def test_of_a_long_text_the_end_is_told(pipe: int, letter: str):
    watchdog.tell(said=letter * 5000 + "the end", code=1)
    [facts] = heard(pipe)
    assert facts["said"].endswith(f"{letter}the end")
    assert len(facts["said"]) > 500
    assert facts["code"] == 1


def test_a_watchdog_that_does_not_listen_holds_nobody_up(pipe: int):
    for _ in range(1000):
        watchdog.tell(said="x" * 1000)
    assert all(facts == {"said": "x" * 1000} for facts in heard(pipe))


def test_without_one_nobody_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watchdog, "_pipe", None)
    assert not watchdog.is_there()
    watchdog.tell(code=1)


# --- when it kills ---

RANK, PARENT = 4321, 4320


class Rank:
    """A process that is what the test says it is."""

    def __init__(self) -> None:
        self.state: _State | None = _State("S", PARENT, "777")
        self.killed: list[tuple[int, int]] = []


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Rank:
    rank = Rank()
    monkeypatch.setattr(_State, "of", lambda pid: rank.state)
    monkeypatch.setattr(watchdog.os, "kill", lambda pid, signum: rank.killed.append((pid, signum)))
    return rank


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock.module)
    return clock


def after(seconds: float, clock: Clock, dog: Watchdog) -> None:
    clock.now += seconds
    dog._look()


@pytest.mark.parametrize(
    ("wrong", "seconds"),
    [
        (_State("T", PARENT, "777"), 600),
        (_State("S", 1, "777"), 65),
        (_State("R", 1, "777"), 65),
    ],
)
def test_it_kills_what_is_wrong_for_too_long(rank: Rank, clock: Clock, wrong: _State, seconds: float):
    well, dog = rank.state, Watchdog(RANK, PARENT)
    rank.state = wrong
    after(0, clock, dog)
    after(seconds, clock, dog)
    assert rank.killed == []
    rank.state = well
    after(0, clock, dog)
    rank.state = wrong
    after(0.1, clock, dog)
    after(seconds, clock, dog)
    assert rank.killed == []
    after(0.1, clock, dog)
    assert rank.killed == [(RANK, signal.SIGKILL)]


def test_it_waits_as_long_as_the_rank_has_told_it(rank: Rank, clock: Clock):
    dog = Watchdog(RANK, PARENT)
    dog._hear(b'{"hang_seconds": 20, "grace_seconds": 2}')
    rank.state = _State("T", 1, "777")
    after(0, clock, dog)
    after(7, clock, dog)
    assert rank.killed == []
    after(0.1, clock, dog)
    assert (dog._reason(), len(rank.killed)) == ("outlived the process that started it", 1)


def test_another_process_that_has_got_the_number_is_left_alone(rank: Rank, clock: Clock):
    dog = Watchdog(RANK, PARENT)
    rank.state = _State("T", 1, "778")
    after(0, clock, dog)
    after(10_000, clock, dog)
    assert rank.killed == []
    assert not dog._is_there()


def test_what_it_cannot_understand_is_passed_over(rank: Rank, clock: Clock):
    dog = Watchdog(RANK, PARENT)
    for line in (b'{"code": 1}', b'{"code": ', b"\xff"):
        dog._hear(line)
    assert dog._reason() == "ended with exit code 1"


def test_silence_counts_from_what_a_timed_rank_has_last_done(rank: Rank, clock: Clock):
    dog = Watchdog(RANK, PARENT)
    dog._hear(b'{"doing": "preparation"}')
    clock.now += 1000
    assert dog._reason() == "was killed"
    dog._hear(b'{"timed": true, "doing": "small train step 7"}')
    clock.now += 599.5  # the beat may have been heard later than it was
    dog._hear(b'{"asked": "SIGTERM"}')
    assert dog._reason() == "was killed"
    clock.now += 0.1
    assert dog._reason() == "has not got on for 600 s"
    dog._hear(b'{"timed": false}')
    assert dog._reason() == "was killed"


# --- real ranks, all at the same time ---

_BEGIN = """
import fcntl, os, signal, struct, sys, termios, time
from pathlib import Path
from ligo_dist.runtime import heartbeat, watchdog

directory, rank = Path(sys.argv[1]), int(sys.argv[2])

def begin(**facts):
    watchdog.start(has_parent=True, rank=rank, host="h", directory=str(directory), **facts)
    wait_until_heard()

def wait_until_heard():
    while struct.unpack("i", fcntl.ioctl(watchdog._pipe, termios.FIONREAD, bytes(4)))[0]:
        time.sleep(0.01)
"""

STORIES = {
    "fails": """
begin(log=True)
heartbeat.enter("small train")
Path(directory / f"rank-{rank:05d}.log").write_text("".join(f"line {number}\\n" for number in range(35)))
watchdog.tell(said="in the log all the same", code=3, follows=4)
sys.exit(3)
""",
    "is killed": """
begin(log=False)
heartbeat.enter("small train step 7")
watchdog.tell(said="first line\\nsecond line", asked="SIGTERM")
watchdog.tell(said="third line")
wait_until_heard()
os.kill(os.getpid(), signal.SIGKILL)
""",
    "is stopped": """
begin(hang_seconds=1)
watchdog.tell(code=0)
wait_until_heard()
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "hangs": """
begin(log=False, hang_seconds=1)
heartbeat.enter("growing into medium")
heartbeat.start(1.5)
time.sleep(60)
""",
    "is orphaned": """
reading, writing = os.pipe()
if os.fork():
    os.read(reading, 1)
    os._exit(0)
begin(grace_seconds=0)
os.write(writing, b".")
time.sleep(60)
""",
    "finishes": """
import psutil
begin(log=True)
[dog] = psutil.Process().children()
(directory / "dog").write_text(str(dog.pid))
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    dog.send_signal(signum)
time.sleep(0.5)
assert dog.status() != psutil.STATUS_ZOMBIE
watchdog.tell(code=0)
""",
}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> LaunchDirectory:
    """The directory of a launch all of whose ranks have ended."""
    launch = LaunchDirectory.make(tmp_path_factory.mktemp("run"))
    started = [
        start_python(_BEGIN + story, str(launch.path), str(rank))
        for rank, story in enumerate(STORIES.values())
    ]
    try:
        wait_until(lambda: len(launch.ends()) == len(STORIES))
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return launch


@pytest.fixture(scope="module")
def ends(launch: LaunchDirectory) -> dict[str, RankEnd]:
    ends = launch.ends()
    return {story: ends[rank] for rank, story in enumerate(STORIES)}


def test_the_code_of_a_rank_that_fails_and_the_last_that_it_printed(ends: dict[str, RankEnd]):
    lines = [f"line {number}" for number in range(5, 35)]
    assert ends["fails"] == RankEnd(0, "h", 3, "ended with exit code 3", "small train", "", lines, follows=4)


def test_of_a_rank_without_a_log_what_it_has_said(ends: dict[str, RankEnd]):
    lines = ["first line", "second line", "third line"]
    assert ends["is killed"] == RankEnd(1, "h", None, "was killed", "small train step 7", "SIGTERM", lines)


def test_a_rank_that_is_stopped_for_long_is_killed(ends: dict[str, RankEnd]):
    assert ends["is stopped"] == RankEnd(2, "h", None, "was stopped (SIGSTOP)")


def test_a_rank_whose_timer_ends_it_has_not_got_on(ends: dict[str, RankEnd]):
    end = ends["hangs"]
    assert (end.code, end.doing) == (None, "growing into medium")
    assert end.reason.startswith("has not got on for ")


def test_a_rank_without_what_started_it_is_killed(ends: dict[str, RankEnd]):
    assert ends["is orphaned"] == RankEnd(4, "h", None, "outlived the process that started it")


def test_no_signal_ends_it_before_its_rank_has_ended(launch: LaunchDirectory, ends: dict[str, RankEnd]):
    assert ends["finishes"] == RankEnd(5, "h", 0, "ended with exit code 0")
    pid = int((launch.path / "dog").read_text())
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
