"""Where the first rank shows its progress."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

import pytest

from ligo_dist.console import open_console


def test_standard_output_by_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("LIGO_DIST_CONSOLE_FD", raising=False)
    open_console().print("shown")
    assert capsys.readouterr().out == "shown\n"


def test_a_pipe_that_is_named_stays_open(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    monkeypatch.setenv("LIGO_DIST_CONSOLE_FD", str(writing))
    for text in ("progress", "summary"):
        console = open_console()
        assert not console.is_terminal
        console.print(text)
        del console
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "progress\nsummary\n"


def test_a_terminal_that_is_named_is_one_and_has_its_own_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    ours, theirs = os.openpty()
    try:
        monkeypatch.setenv("LIGO_DIST_CONSOLE_FD", str(theirs))
        monkeypatch.setenv("TERM", "xterm")
        for name in ("COLUMNS", "LINES"):
            monkeypatch.delenv(name, raising=False)
        console = open_console()
        assert console.is_terminal
        for width in (133, 57):
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, width, 0, 0))
            assert console.size == (width, 20)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        assert console.size.width > 0
    finally:
        os.close(theirs)
        os.close(ours)
