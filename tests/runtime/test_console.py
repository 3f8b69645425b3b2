"""Where the first rank shows its progress."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ligo_dist.runtime.console import open_console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The two ends of a terminal that the environment names; what is shown comes out of the first."""
    ours, theirs = os.openpty()
    monkeypatch.setenv("LIGO_DIST_TERMINAL", os.ttyname(theirs))
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    yield ours, theirs
    os.close(theirs)
    os.close(ours)


def resize(terminal: int, columns: int, lines: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


@pytest.mark.parametrize("named", [None, ""])
def test_standard_output_by_default(
    named: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("LIGO_DIST_TERMINAL", raising=False)
    if named is not None:
        monkeypatch.setenv("LIGO_DIST_TERMINAL", named)
    open_console().print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_on_the_terminal_that_is_named(terminal: tuple[int, int], capsys: pytest.CaptureFixture[str]):
    ours, _ = terminal
    for text in ("progress", "summary"):
        console = open_console()
        assert console.is_terminal
        console.print(text)
        assert os.read(ours, 1000).decode() == f"{text}\r\n"
    assert capsys.readouterr().out == ""


def test_it_has_the_terminals_own_width(terminal: tuple[int, int]):
    _, theirs = terminal
    console = open_console()
    for width in (133, 57):
        resize(theirs, width, 20)
        assert console.size == (width, 20)
    resize(theirs, 0, 0)
    assert console.size.width > 0


def test_on_standard_output_where_the_terminal_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "no terminal"
    file.write_text("kept")
    for named in (tmp_path / "gone", file):
        monkeypatch.setenv("LIGO_DIST_TERMINAL", str(named))
        open_console().print("shown")
        assert capsys.readouterr().out == "shown\n"
    assert file.read_text() == "kept"
