"""What signals do to a process: tried on real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ligo_dist.stop_signals import StopSignals

# Blocked in C for good: a mutex that is locked twice is not interrupted, unlike a read or a sleep.
_BLOCK = """
import ctypes
mutex = ctypes.create_string_buffer(64)
def block():
    print("ready", flush=True)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@contextmanager
def process(body: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said `ready`; killed at the end, if it still runs."""
    code = f"import os, signal, time\nfrom ligo_dist.stop_signals import StopSignals\n{_BLOCK}\n{body}"
    started = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.mark.parametrize(
    ("signum", "code", "said"),
    [
        (
            signal.SIGTERM,
            75,
            "ligo-dist: stopped by SIGTERM before training; the same command goes on\n",
        ),
        (
            signal.SIGUSR1,
            75,
            "ligo-dist: stopped by SIGUSR1 before training; the same command goes on\n",
        ),
        (signal.SIGINT, 130, ""),
    ],
)
def test_before_training_it_ends_at_once_wherever_it_is(signum: signal.Signals, code: int, said: str):
    with process("with StopSignals(): block()") as started:
        started.send_signal(signum)
        assert started.communicate(timeout=30) == ("", said)
        assert started.returncode == code


def test_once_training_has_begun_they_are_noted_and_an_interrupt_ends_it():
    body = """
with StopSignals() as signals:
    signals.before_end(lambda reason: print(f"closed: {reason}"))
    signals.defer()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.requested == signal.SIGUSR1
    signals.wait_if_ending()
    block()
"""
    with process(body) as started:
        started.send_signal(signal.SIGINT)
        assert started.communicate(timeout=30) == ("closed: interrupted\n", "")
        assert started.returncode == 130


def test_whatever_breaks_while_it_ends_is_not_reported():
    body = """
with StopSignals() as signals:
    signals.before_end(lambda reason: (time.sleep(0.5), print(reason)))
    print("ready", flush=True)
    while signals._ending is None:
        time.sleep(0.01)
    signals.wait_if_ending()
    raise RuntimeError("the other rank has left")
"""
    with process(body) as started:
        started.send_signal(signal.SIGINT)
        assert started.communicate(timeout=30) == ("interrupted\n", "")
        assert started.returncode == 130


def test_what_is_ignored_stays_so():
    body = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
with StopSignals():
    os.kill(os.getpid(), signal.SIGINT)
    print("ready", flush=True)
    time.sleep(0.2)
"""
    with process(body) as started:
        assert started.wait(30) == 0


def test_a_forked_process_does_not_heed_them():
    body = """
with StopSignals() as signals:
    signals.defer()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), signals.requested)
"""
    code = f"import os, signal, time\nfrom ligo_dist.stop_signals import StopSignals\n{body}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (f"-{int(signal.SIGTERM)} None\n", 0), done.stderr


def test_afterwards_all_is_as_before():
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(signum) for signum in signums]
    with StopSignals():
        assert all(signal.getsignal(signum) not in before for signum in signums)
    assert [signal.getsignal(signum) for signum in signums] == before
    assert signal.set_wakeup_fd(-1) == -1
