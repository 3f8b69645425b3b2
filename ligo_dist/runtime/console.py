"""Where a run speaks to a person: the first rank's display, and what any rank says when it ends before its time."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from contextlib import suppress

from rich.console import Console, ConsoleDimensions

from ligo_dist.runtime import watchdog
from ligo_dist.runtime.errors import LigoError, RunError
from ligo_dist.runtime.heartbeat import where
from ligo_dist.runtime.out_of_memory import is_out_of_memory, memory_advice
from ligo_dist.runtime.redaction import redact

TERMINAL_VARIABLE = "LIGO_DIST_TERMINAL"
"""Names a terminal, such as `/dev/pts/3`, to show it there instead of on standard output."""


FAILURE_TAG = "[rank {}] "
"""Before each line of a traceback; in braces the rank."""


def open_console() -> Console:
    """On the terminal that the environment names, if it can be had, else on standard output."""
    path = os.environ.get(TERMINAL_VARIABLE)
    if path:
        with suppress(OSError):
            return _TerminalConsole(path)
    return Console()


class _TerminalConsole(Console):
    """On a terminal, as wide as it is."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
        if not os.isatty(self._descriptor):
            os.close(self._descriptor)
            raise OSError(f"{path} is no terminal")
        super().__init__(
            file=os.fdopen(self._descriptor, "w", buffering=1, encoding="utf-8", errors="replace")
        )

    @property  # type: ignore[misc]  # never set, unlike the one of rich
    def size(self) -> ConsoleDimensions:
        """Rich itself looks at the standard streams alone."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._descriptor)
            if columns and lines:
                return ConsoleDimensions(columns, lines)
        return super().size


def tell(message: str) -> None:
    """Say something for the person who started the run; of other ranks than the first, who says it."""
    rank = _rank()
    speaker = f"rank {rank} on {socket.gethostname()}: " if rank else ""
    _say(f"ligo-dist: {speaker}{redact(message)}")


def tell_error(error: LigoError | RunError) -> None:
    """Show an error that explains itself; of one that all ranks raise, one of them shows it."""
    if error.told_by is None or error.told_by == _rank():
        tell(str(error))


def tell_failure() -> None:
    """The traceback of the exception that is being handled, where memory has run out what to do, then who failed where
    and at what."""
    tag = FAILURE_TAG.format(_rank())
    lines = "".join(f"{tag}{line}\n" for line in redact(traceback.format_exc()).splitlines())
    error = sys.exception()
    if error is not None and is_out_of_memory(error):
        lines += f"{tag}{memory_advice(where())}\n"
    _say(f"{lines}{tag}failed on {socket.gethostname()} at: {where()}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    watchdog.tell(said=text)


def _rank() -> int:
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0
