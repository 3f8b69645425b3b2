"""What signals to the launcher come to, before and while something runs."""

from __future__ import annotations

import os
import signal

import pytest

from launcher.signals import Signals, leave_when_warned
from ligo_dist.runtime.errors import REQUEUE

WARNINGS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


@pytest.mark.parametrize("signum", WARNINGS)
def test_a_warning_before_anything_runs_asks_to_be_started_again(signum, capsys):
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as left, leave_when_warned():
        os.kill(os.getpid(), signum)
    assert left.value.code == REQUEUE
    assert capsys.readouterr().err == f"ligo-dist: {signum.name} before anything was started\n"
    assert signal.getsignal(signum) is before


@pytest.mark.parametrize("signum", WARNINGS)
def test_what_runs_is_stopped_in_order_instead(signum):
    with leave_when_warned(), Signals() as signals:
        os.kill(os.getpid(), signum)
        assert (signals.order, signals.exit_code) == ("preempt", REQUEUE)


def test_an_ignored_warning_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with leave_when_warned():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
