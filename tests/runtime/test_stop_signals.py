"""What asks a rank to stop, and what that does to it: tried on real processes where they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rank_processes import BLOCK, running, start_python

from ligo_dist.runtime import signals as module
from ligo_dist.runtime.signals import POLITE, StopReason, StopSignals

_IMPORTS = """
import os, signal, threading, time
from ligo_dist.runtime import watchdog
from ligo_dist.runtime.signals import StopReason, StopSignals
"""
_READY = 'print("ready", flush=True)'
_TOLD = """
def tell(**facts):  # not by `print`, which a signal's handler may interrupt in itself
    if "said" not in facts:
        os.write(1, f"{facts}\\n".encode())
watchdog.tell = tell
"""


def stopped_by(what: str) -> str:
    return f"ligo-dist: stopped by {what} before training; the same command goes on\n"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the watchdog of this process is told."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(module.watchdog, "tell", lambda **facts: told.append(facts))
    return told


def in_a_thread(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("signum", "code", "said"),
    [
        (signal.SIGTERM, 75, stopped_by("SIGTERM")),
        (signal.SIGUSR1, 75, stopped_by("SIGUSR1")),
        (signal.SIGHUP, 75, stopped_by("SIGHUP")),
        (signal.SIGINT, 130, ""),
    ],
)
def test_before_training_a_signal_ends_it_at_once_wherever_it_is(
    signum: signal.Signals, code: int, said: str
):
    body = f"{_IMPORTS}{BLOCK}\n{_TOLD}\nwith StopSignals():\n    {_READY}\n    block()"
    with running(body) as process:
        process.send_signal(signum)
        told = [str({"asked": signum.name}), str({"code": code})]
        output, errors = process.communicate(timeout=30)
        assert (sorted(set(output.splitlines())), errors) == (told, said)
        assert process.returncode == code


def test_before_training_so_does_another_thread_that_asks():
    body = f"""{_IMPORTS}{BLOCK}
{_TOLD}
with StopSignals() as signals:
    {_READY}
    threading.Thread(target=signals.ask, args=(StopReason.LAUNCHER_GONE, 60)).start()
    block()
"""
    with running(body) as process:
        told = "{'asked': 'LAUNCHER_GONE'}\n{'code': 75}\n"
        assert process.communicate(timeout=30) == (told, stopped_by("losing its launcher"))
        assert process.returncode == 75


@pytest.mark.parametrize("signum", POLITE)
def test_once_training_has_begun_a_signal_is_noted(signum: signal.Signals, told: list[dict[str, Any]]):
    with StopSignals() as signals:
        signals.defer()
        assert signals.requested is None
        os.kill(os.getpid(), signum)
        assert signals.requested is StopReason(signum)
        signals.wait_if_ending()
    assert all(facts == {"asked": StopReason(signum).name} for facts in told)
    assert told


@pytest.mark.parametrize(
    ("has_gone", "reason"),
    [
        ([True], StopReason.PARENT_GONE),
        ([False, False, True], StopReason.PARENT_GONE),  # its other threads were still there
        ([False], None),  # a thread of it has ended
    ],
)
def test_the_systems_word_of_the_parent_is_looked_into(
    has_gone: list[bool], reason: StopReason | None, monkeypatch: pytest.MonkeyPatch
):
    looks = iter(has_gone)
    seen = [False]

    def look() -> bool:
        seen[0] = next(looks, seen[0])
        return seen[0]

    monkeypatch.setattr(module.parent, "has_gone", look)
    monkeypatch.setattr(module.parent, "_LAST_SECONDS", 0.2)
    monkeypatch.setattr(module.watchdog, "tell", lambda **facts: None)
    with StopSignals() as signals:
        signals.defer()
        os.kill(os.getpid(), module.parent.SIGNAL)
        deadline = time.monotonic() + 5
        while signals.requested is None and time.monotonic() < deadline - 4.5 * (reason is None):
            time.sleep(0.01)
        assert signals.requested is reason


def test_of_several_that_ask_the_first_is_noted(told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch):
    limits: list[float] = []
    monkeypatch.setattr(module.heartbeat, "limit", limits.append)
    signals = StopSignals()
    signals.defer()
    in_a_thread(lambda: signals.ask(StopReason.REQUESTED))
    assert (signals.requested, limits) == (StopReason.REQUESTED, [])
    in_a_thread(lambda: signals.ask(StopReason.PARENT_GONE, within_seconds=60))
    assert (signals.requested, limits) == (StopReason.REQUESTED, [60])
    assert told == [{"asked": "REQUESTED"}]


def test_an_interrupt_ends_it_all_the_same():
    body = f"""{_IMPORTS}{BLOCK}
with StopSignals() as signals:
    signals.before_end(lambda reason: print(f"closed: {{reason}}"))
    signals.defer()
    os.kill(os.getpid(), signal.SIGUSR1)
    signals.wait_if_ending()
    {_READY}
    block()
"""
    with running(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("closed: interrupted\n", "")
        assert process.returncode == 130


def test_whatever_breaks_while_it_ends_is_not_reported():
    body = f"""{_IMPORTS}
with StopSignals() as signals:
    signals.before_end(lambda reason: (time.sleep(0.5), print(reason)))
    {_READY}
    while signals._ending is None:
        time.sleep(0.01)
    signals.wait_if_ending()
    raise RuntimeError("the other rank has left")
"""
    with running(body) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("interrupted\n", "")
        assert process.returncode == 130


def test_two_that_ask_end_it_once():
    body = f"""{_IMPORTS}
with StopSignals() as signals:
    signals.before_end(lambda reason: (print("closing", flush=True), time.sleep(0.5)))
    {_READY}
    for reason in (StopReason.SIGINT, StopReason.LAUNCHER_GONE):
        threading.Thread(target=signals.ask, args=(reason,)).start()
    time.sleep(60)
"""
    with running(body) as process:
        assert process.communicate(timeout=30) == ("closing\n", "")
        assert process.returncode == 130


def test_what_is_ignored_stays_so():
    body = f"""{_IMPORTS}
signal.signal(signal.SIGINT, signal.SIG_IGN)
with StopSignals():
    os.kill(os.getpid(), signal.SIGINT)
    {_READY}
    time.sleep(0.2)
"""
    with running(body) as process:
        assert process.wait(30) == 0


def test_a_forked_process_does_not_heed_them():
    body = f"""{_IMPORTS}
with StopSignals() as signals:
    signals.defer()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.requested)
"""
    with start_python(body) as process:
        said, _ = process.communicate(timeout=60)
        assert (said, process.returncode) == (f"-{int(signal.SIGTERM)} None\n", 0)


def test_afterwards_all_is_as_before():
    signums = (signal.SIGINT, *POLITE)
    before = [signal.getsignal(signum) for signum in signums]
    with StopSignals():
        assert all(signal.getsignal(signum) not in before for signum in signums)
    assert [signal.getsignal(signum) for signum in signums] == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (StopReason.SIGHUP, "SIGHUP"),
        (StopReason.SIGINT, "SIGINT"),
        (StopReason.SIGUSR1, "SIGUSR1"),
        (StopReason.SIGTERM, "SIGTERM"),
        (StopReason.REQUESTED, "a request to stop"),
        (StopReason.LAUNCHER_GONE, "losing its launcher"),
        (StopReason.PARENT_GONE, "losing the process that started it"),
    ],
)
def test_reasons_are_told_in_words(reason: StopReason, words: str):
    assert reason.words == words


def test_no_reason_is_mistaken_for_a_signal():
    beyond = (StopReason.REQUESTED, StopReason.LAUNCHER_GONE, StopReason.PARENT_GONE)
    assert not {int(reason) for reason in beyond} & {int(signum) for signum in signal.Signals}
