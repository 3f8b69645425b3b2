"""Whether what has started a rank is still there; that the system tells it when not, test_process.py shows."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

from ligo_dist.runtime import parent


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for `os` and for the C library: the number of the parent, and what is asked of the system."""
    system = SimpleNamespace(ppid=4320, asked=[])
    library = SimpleNamespace(prctl=lambda *words: system.asked.append(words))
    monkeypatch.setattr(parent, "_parent", None)
    monkeypatch.setattr(parent, "os", SimpleNamespace(getppid=lambda: system.ppid))
    monkeypatch.setattr(parent, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    return system


@pytest.mark.parametrize(("platform", "asked"), [("linux", [(1, parent.SIGNAL)]), ("darwin", [])])
def test_it_has_gone_once_another_is_the_parent(
    platform: str, asked: list[tuple[int, int]], system: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parent.sys, "platform", platform)
    parent.stop_without_it()
    assert system.asked == asked
    assert not parent.has_gone()
    system.ppid = 1
    assert parent.has_gone()


def test_what_is_nobodys_rank_does_not_ask(system: SimpleNamespace):
    system.ppid = 1
    assert not parent.has_gone()


@pytest.mark.parametrize(("platform", "asked"), [("linux", [(1, signal.SIGKILL)]), ("darwin", [])])
def test_what_a_rank_starts_ends_with_it(
    platform: str, asked: list[tuple[int, int]], system: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parent.sys, "platform", platform)
    parent.end_with_it()
    assert system.asked == asked
