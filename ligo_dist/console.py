"""Where the first rank shows how the run goes on."""

from __future__ import annotations

import os
from contextlib import suppress

from rich.console import Console, ConsoleDimensions

DESCRIPTOR_VARIABLE = "LIGO_DIST_CONSOLE_FD"
"""Holds an open file descriptor, of a terminal or a pipe, to show it there instead of on standard output."""


def open_console() -> Console:
    """On the descriptor that the environment names, else on standard output."""
    descriptor = os.environ.get(DESCRIPTOR_VARIABLE)
    return Console() if descriptor is None else _DescriptorConsole(int(descriptor))


class _DescriptorConsole(Console):
    """On a file descriptor, which stays open; if that is a terminal, as wide as it is."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        file = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        super().__init__(file=file)

    @property  # type: ignore[misc]  # never set, unlike the one of rich
    def size(self) -> ConsoleDimensions:
        """Rich itself looks at the standard streams alone."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._descriptor)
            if columns and lines:
                return ConsoleDimensions(columns, lines)
        return super().size
