"""Tables on the terminal, or wherever else they go."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table

_WIDEST = 1000


def print_whole(table: Table, file: TextIO | None = None) -> None:
    """Print a table as wide as it is: a number cut short says nothing."""
    width = Console(file=file, width=_WIDEST).measure(table).maximum
    Console(file=file, width=width, markup=False).print(table)
